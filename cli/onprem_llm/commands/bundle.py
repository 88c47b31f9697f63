"""`onprem-llm bundle`: everything of a lock in one folder, to be carried, verified and loaded."""

from pathlib import Path

import click

from onprem_llm import output
from onprem_llm.errors import OnpremError

FOLDER = click.Path(path_type=Path)
ALLOWED = click.option(
    "--allowed-signers", "allowed", type=FOLDER, metavar="FILE", required=True,
    help="Keys that may sign, as `ssh-keygen -Y verify` reads them; carried apart from the bundle.",
)  # fmt: skip
REPORT_KEY = click.option("--report-key", type=FOLDER, metavar="KEY", help="Sign the report with this ssh key.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_REPAIR = "copy them again from where the bundle was made, and verify again"
_REPAIR_SITE = (
    "remove these blobs and load again what was loaded here, first the base where a bundle adds to one; what was made "
    "of them is mended with them"
)
_REPAIR_EXPIRED = "leave them, and load a newer bundle: what was loaded here has expired, and is not loaded again"
# Whoever meant to verify a medium must see that it was none.
_LOADED = "This is a site's folder, no bundle to load; whether what was loaded has expired since was not asked. "


@click.group("bundle", short_help="Bundles to carry behind the door: create, inspect, verify, load.")
def command() -> None:
    """Everything that a lock names, in one folder that can be carried, verified and loaded with no way out.

    \b
    Example:
      onprem-llm bundle create --lock onprem-llm.lock -o /media/disk/bundle --sign-key ~/.ssh/id_ed25519
      onprem-llm bundle load /media/disk/bundle --to /srv/site --allowed-signers allowed_signers
    """


@command.command("create", short_help="Write a bundle from a lock.")
@click.option("--lock", "lock_path", type=FOLDER, metavar="FILE", default=Path("onprem-llm.lock"), show_default=True,
              help="The lock.")  # fmt: skip
@click.option("-o", "--out", type=FOLDER, metavar="DIR", required=True, help="The bundle's folder.")
@click.option("--sign-key", type=FOLDER, metavar="KEY", help="Sign it with this ssh key (KEY.pub: by its agent).")
@click.option("--have", "have_path", type=FOLDER, metavar="FILE", help="Leave out what this site has: `bundle have`.")
@click.option("--volume-size", metavar="SIZE", help="Split it into volumes of this size, such as 4GB.")
@click.option("--store", type=FOLDER, metavar="DIR", help="Where weights are kept, as for `weights pull`.")
@JSON
def create(
    lock_path: Path,
    out: Path,
    sign_key: Path | None,
    have_path: Path | None,
    volume_size: str | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Write a bundle from a lock. The same lock makes the same bundle; a run that was cut off goes on.

    \b
    Example:
      onprem-llm bundle create --lock onprem-llm.lock -o bundle --sign-key ~/.ssh/id_ed25519
      onprem-llm bundle create -o delta --have have.json --volume-size 4GB
    """
    from onprem_llm.bundle.create import Asked, create, sign_bundle, signed_by
    from onprem_llm.bundle.have import read_have
    from onprem_llm.bundle.printed import first_steps
    from onprem_llm.bundle.sources import sources_of
    from onprem_llm.locking.fetching import fetcher
    from onprem_llm.sizes import parse_size
    from onprem_llm.spec.lock import lock_sha256, read_lock

    lock = read_lock(lock_path)
    asked = Asked(
        lock, lock_path.read_bytes(), lock_sha256(lock_path), out.absolute(),
        read_have(have_path) if have_path else None, parse_size(volume_size, "--volume-size") if volume_size else None,
    )  # fmt: skip
    with output.progress() as progress:
        created = create(asked, lambda: sources_of(lock, lock_path, store, fetcher(lock)), progress)
    if sign_key:
        sign_bundle(asked.folder, created.manifest, sign_key)
    signer = signed_by(asked.folder, created.manifest)
    steps = first_steps(created.manifest, sign_key, signer)
    if as_json:
        output.show_json({
            "folder": str(asked.folder), "manifest_sha256": created.manifest.sha256, "bytes": created.manifest.bytes,
            "placed": created.placed, "signed": signer is not None, "first_steps": steps,
            "volumes": [volume.name for volume in created.manifest.volumes],
        })  # fmt: skip
        return
    came = f"{output.human_bytes(created.placed)} written or linked" if created.placed else "nothing to do"
    volumes = f", {len(created.manifest.volumes)} volumes" if created.manifest.volumes else ""
    output.say(f"{asked.folder}: {output.human_bytes(created.manifest.bytes)}{volumes} ({came})")
    output.say("\n" + "\n".join(steps))


@command.command("inspect", short_help="Show what a bundle holds.")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
@click.option("--allowed-signers", "allowed", type=FOLDER, metavar="FILE", help="Look at the signature, too.")
@JSON
def inspect(folders: tuple[Path, ...], allowed: Path | None, as_json: bool) -> None:
    """Show what a bundle holds, as its manifest says; no blob is read.

    \b
    Example:
      onprem-llm bundle inspect /media/disk/bundle
    """
    from onprem_llm.bundle.opening import open_bundle
    from onprem_llm.bundle.summary import summary, summary_text

    opened = open_bundle(folders, allowed)
    if as_json:
        output.show_json(summary(opened))
    else:
        output.say(summary_text(opened))


@command.command("verify", short_help="Compare every byte of a bundle with its signed manifest.")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
@ALLOWED
@click.option("--report", type=FOLDER, metavar="FILE", help="Leave a report of what was verified.")
@REPORT_KEY
@JSON
def verify(
    folders: tuple[Path, ...], allowed: Path, report: Path | None, report_key: Path | None, as_json: bool
) -> None:
    """Compare every byte of a bundle, or of volumes one by one, with the manifest that a trusted key signed.

    Of a site's folder: every blob of what was loaded last, its base included, and with them the views.

    \b
    Example:
      onprem-llm bundle verify /media/disk/bundle --allowed-signers allowed_signers
      onprem-llm bundle verify vol-002 --allowed-signers allowed_signers --report r.json --report-key ~/.ssh/id_ed25519
    """
    from onprem_llm.bundle.check import check
    from onprem_llm.bundle.opening import open_bundle
    from onprem_llm.bundle.report import refusal, report_of, write_report

    try:
        opened = open_bundle(folders, allowed)
    except OnpremError as error:
        if report:
            write_report(report, refusal(folders, error.message), report_key)
        raise
    with output.progress() as progress:
        checked = check(opened, progress)
    found = report_of(opened, checked, "verify")
    if report:
        write_report(report, found, report_key)
    if as_json:
        output.show_json(found)
    for name in checked.extra:
        output.note(f"{name}: not of the bundle, and never read")
    if checked.damages:
        raise OnpremError(
            f"{len(checked.damages)} of {checked.files} files are not what was signed",
            details="\n".join(f"  {damage}" for damage in checked.damages[:20]),
            hint=_REPAIR if not opened.loaded else _REPAIR_EXPIRED if opened.expired else _REPAIR_SITE,
        )
    if not as_json:
        what = f"{checked.files} files, {output.human_bytes(checked.bytes)}, signed by {_signer(found)}"
        output.say(f"{_LOADED if opened.loaded else ''}As it was signed: {what}")
        if opened.absent:
            output.say(f"These volumes of it were not looked at: {', '.join(opened.absent)}")


@command.command("load", short_help="Load a bundle into the site's folder.")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
@click.option("--to", "root", type=FOLDER, metavar="SITE_FOLDER", required=True, help="The site's folder.")
@ALLOWED
@click.option("--facts", type=FOLDER, multiple=True, metavar="FILE",
              help="Refuse a bundle that was made for other hosts than these; repeatable.")  # fmt: skip
@REPORT_KEY
@JSON
def load(
    folders: tuple[Path, ...],
    root: Path,
    allowed: Path,
    facts: tuple[Path, ...],
    report_key: Path | None,
    as_json: bool,
) -> None:
    """Load a bundle, or volumes one by one in any order, into the site's folder. Every byte is verified on the way.

    \b
    Example:
      onprem-llm bundle load /media/disk/bundle --to /srv/onprem-llm-site --allowed-signers allowed_signers
      onprem-llm bundle load vol-002 --to /srv/onprem-llm-site --allowed-signers allowed_signers
    """
    from onprem_llm.bundle.check import Checked
    from onprem_llm.bundle.load import load
    from onprem_llm.bundle.opening import open_bundle
    from onprem_llm.bundle.report import report_of, write_report
    from onprem_llm.bundle.site_folder import REPORTS
    from onprem_llm.spec.facts import merge_facts

    hosts = merge_facts(facts) if facts else None
    opened = open_bundle(folders, allowed)
    site = root.absolute()
    with output.progress() as progress:
        loaded = load(opened, site, progress, hosts)
    report = report_of(opened, Checked(loaded.files, loaded.placed, (), ()), "load")
    report |= {"placed": loaded.placed, "absent_volumes": loaded.absent}
    report["result"] = "whole" if loaded.whole else "incomplete"
    write_report(site / REPORTS / f"{opened.sha256}.json", report, report_key)
    if as_json:
        output.show_json({**report, "site": str(site)})
        return
    came = f"{output.human_bytes(loaded.placed)} new" if loaded.placed else "nothing new"
    if loaded.whole:
        output.say(f"{site}: holds the bundle {opened.sha256[:12]} ({came}), signed by {_signer(report)}")
    else:
        output.say(f"{site}: {came}. Still to come: {', '.join(loaded.absent)}")


@command.command("have", short_help="Say what a site has, for a bundle that leaves it out.")
@click.argument("folder", metavar="SITE_FOLDER|DIR", type=FOLDER)
@click.option("-o", "--out", type=FOLDER, metavar="FILE", default=Path("have.json"), show_default=True,
              help="The file for `bundle create --have`.")  # fmt: skip
def have(folder: Path, out: Path) -> None:
    """Write what a site's folder (or a bundle) has, so that the next bundle can leave it out.

    \b
    Example:
      onprem-llm bundle have /srv/onprem-llm-site -o have.json
    """
    from onprem_llm.bundle.have import have_of
    from onprem_llm.bundle.opening import open_bundle
    from onprem_llm.bundle.site_folder import SiteFolder, is_site
    from onprem_llm.whole_files import write_whole

    found = SiteFolder(folder).have() if is_site(folder) else have_of(open_bundle([folder], None).manifest)
    write_whole(out, found.data())
    total = output.human_bytes(sum(found.blobs.values()))
    output.say(f"{out}: {len(found.blobs)} blobs, {total}, on top of the bundle {found.base[:12]}")


def _signer(report: dict[str, object]) -> str:
    signer = report["signer"]
    return f"{signer['principal']} ({signer['key']})" if isinstance(signer, dict) else "nobody"
