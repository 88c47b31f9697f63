"""`onprem-llm check`: GPUs, drivers and lines between hosts, their faults, and what changed since an earlier report."""

from dataclasses import asdict
from pathlib import Path

import click

from onprem_llm import output
from onprem_llm.checking import check
from onprem_llm.checks.difference import changes, not_seen
from onprem_llm.checks.report import Report, read_report
from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError, UnreachableError, UsageError
from onprem_llm.findings import Finding, by_level, findings_table, names
from onprem_llm.options import connection_options

# Shown although all is well: what a host has is what people ask.
ALWAYS = {"gpus", "driver", "gpu_access", "nvlink", "mig", "engine_image", "network", "all_reduce"}
CHANGED = ("host", "what", "level", "now", "before")
_FILE = click.Path(dir_okay=False, path_type=Path)


SECONDS = 3


@click.command("check", short_help="Look at GPUs, drivers, lines between hosts; compare with an earlier report.")
@connection_options(argument=True)
@click.option("--image", metavar="IMAGE", help="Try the GPUs in this image where no deployment says which; not pulled.")
@click.option("--no-trial", is_flag=True, help="Start no container: look, and try nothing.")
@click.option("--network", is_flag=True, help="Measure the lines between the hosts, too.")
@click.option(
    "--seconds",
    type=click.IntRange(1, 60),
    metavar="N",
    help=f"With --network: how long bandwidth is measured, for each pair and way.  [default: {SECONDS}]",
)
@click.option("--save", type=_FILE, metavar="FILE", help="Write the report there, for a later --against.")
@click.option("--against", type=_FILE, metavar="FILE", help="Say what changed since this saved report.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--verbose", "-v", is_flag=True, help="Show the checks that passed, too.")
def command(
    image: str | None,
    no_trial: bool,
    network: bool,
    seconds: int | None,
    save: Path | None,
    against: Path | None,
    as_json: bool,
    verbose: bool,
    connection: Connection,
) -> None:
    """Look at every host's GPUs: driver, memory errors, Xids, heat, PCIe, NVLink, MIG, other programs; change nothing.

    Then let torch multiply two matrices on them, in a throw-away container of the image that the deployments there use.
    With --network, bandwidth, delay, packet sizes, the ports of engines and clocks between each two hosts, too; for
    that a program listens on each of them, to the others alone, and is gone with the check; what is wrong with lines is
    written into the gateway's book, for plans (docs/network.md).

    Each finding says what to do. Exit code 5 where one is an error, 4 where a host does not answer.

    \b
    Example:
      onprem-llm check inventory.ini
      onprem-llm check --save monday.json
      onprem-llm check --no-trial --against monday.json
      onprem-llm check --network --no-trial
    """
    if no_trial and image:
        raise UsageError("--image names an image to try, and --no-trial tries none", hint="leave one of them out")
    if seconds is not None and not network:
        raise UsageError("--seconds is for --network", hint="add --network, or leave --seconds out")
    before = read_report(against) if against else None
    with output.progress() as progress:
        report = check(connection, progress, image=image, try_image=not no_trial,
                       network=(seconds or SECONDS) if network else None)  # fmt: skip
    changed = changes(before, report) if before else None
    # Where nobody answered there is nothing to compare with later, and an earlier report there is worth more.
    save = save if report.findings else None
    if save:
        # Imported where it is used: a check without --save writes nothing.
        from onprem_llm.whole_files import write_whole

        write_whole(save, report.as_bytes())
    if as_json:
        output.show_json(_document(report, changed))
    elif text := text_of(report, changed, before, verbose=verbose):
        output.say(text)
    if save:
        output.note(f"Written to {save}.")
    end(report, changed, skip_unreachable=connection.skip_unreachable)


def _document(report: Report, changed: dict[str, tuple[Finding, ...]] | None) -> dict[str, object]:
    document = report.as_document()
    if changed is not None:
        document["changes"] = {host: [asdict(one) for one in those] for host, those in changed.items()}
    return document


def text_of(
    report: Report, changed: dict[str, tuple[Finding, ...]] | None, before: Report | None, *, verbose: bool
) -> str:
    """Lay out findings, then what changed; nothing of both where no host answered, which the error says."""
    every = [one for those in report.findings.values() for one in those]
    parts = [findings_table(every, always=ALWAYS, verbose=verbose)] if every else []
    if report.network is not None:
        from onprem_llm.checks.network_view import lines_text  # a check without --network does without

        parts += [text for text in [lines_text(report.network, verbose=verbose)] if text]
    if before is not None and changed is not None:
        since = f"Since {before.made_at}:"
        told = [one for those in changed.values() for one in those]
        always = {one.check for one in told}
        parts.append(f"{since}\n" + findings_table(told, always=always, verbose=True, columns=CHANGED) if told else
                     f"{since} nothing changed.")  # fmt: skip
        silent = not_seen(before, report)
        parts += [f"In that report and not looked at now: {names(silent)}."] if silent else []
    parts += [_summary(report)] if report.findings else []
    return "\n\n".join(parts)


def _summary(report: Report) -> str:
    """Count the hosts by how they are."""
    bad = by_level(report.findings, "error")
    warned = [host for host in by_level(report.findings, "warning") if host not in bad]
    count = len(report.findings)
    well = count - len(bad) - len(warned)
    words = [f"{len(bad)} with errors" if bad else "", f"{len(warned)} with warnings" if warned else ""]
    said = ", ".join(word for word in [*words, f"{well} well" if well else ""] if word)
    return f"{count} host{'s' if count != 1 else ''}: {said}."


def end(report: Report, changed: dict[str, tuple[Finding, ...]] | None, *, skip_unreachable: bool) -> None:
    """Raise what the exit code is made of: hosts that did not answer, then errors."""
    silent = [one for one in report.failures if not (one.unreachable and skip_unreachable)]
    if not silent and not report.findings:
        output.note("No host answered.")
    if silent:
        from onprem_llm.look import failures_text  # as much again, and most runs end without it

        count = f"{len(silent)} host{'s' if len(silent) != 1 else ''}"
        kind = UnreachableError if any(one.unreachable for one in silent) else OnpremError
        raise kind(
            f"{count} could not be looked at: {names([one.host for one in silent])}",
            details=failures_text(silent),
            hint="mend what is said above; --skip-unreachable shows the others and no error",
        )
    bad = list(dict.fromkeys([*by_level(report.findings, "error"), *by_level(changed or {}, "error")]))
    if bad:
        raise OnpremError(
            f"{len(bad)} of {len(report.findings)} hosts have errors: {names(bad)}",
            hint="do what is said above for each, then run the same command again",
        )
