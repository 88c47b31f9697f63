"""`onprem-llm prove`: the rehearsal before the door."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError
from onprem_llm.options import find_inventory

if TYPE_CHECKING:
    from onprem_llm.prove.proof import Proof

FOLDER = click.Path(path_type=Path)


@click.command("prove", short_help="Rehearse a bundle on hosts with no way out.")
@click.argument("folders", metavar="BUNDLE...", nargs=-1, required=True, type=FOLDER)
@click.option(
    "--allowed-signers", "allowed", type=FOLDER, metavar="FILE", required=True,
    help="Keys that may have signed the bundle, as for `bundle verify`.",
)  # fmt: skip
@click.option("--facts", "facts_files", type=FOLDER, metavar="FILE", multiple=True,
              help="What the hosts are, as `facts export` wrote it; repeatable.")  # fmt: skip
@click.option("--base", "bases", type=FOLDER, metavar="BUNDLE", multiple=True,
              help="What the site has already, for a bundle that leaves it out; repeatable, in order.")  # fmt: skip
@click.option("--sign-key", type=FOLDER, metavar="KEY", help="Sign proof.json with this ssh key.")
@click.option("--out", type=FOLDER, metavar="DIR", help="Where to write the proof.  [default: into the bundle]")
@click.option("--work", type=FOLDER, metavar="DIR",
              help="Where to load the bundle.  [default: prove/ in the cache folder]")  # fmt: skip
@click.option("--settle", type=click.FloatRange(0), default=30, show_default=True, metavar="SECONDS",
              help="How long to watch after the last answer.")  # fmt: skip
@click.option("--name", default="prove", show_default=True, help="The lab's name.")
@click.option("--keep", is_flag=True, help="Leave the hosts up.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--inventory", "-i", type=FOLDER, metavar="PATH",
    help="The hosts on site; none of them is asked.  [default: $ONPREM_LLM_INVENTORY or ./inventory.ini]",
)  # fmt: skip
@click.option("--vault-password-file", "vault_files", type=FOLDER, metavar="FILE", multiple=True,
              help="The password of ansible-vault; repeatable.")  # fmt: skip
def command(
    folders: tuple[Path, ...],
    allowed: Path,
    facts_files: tuple[Path, ...],
    bases: tuple[Path, ...],
    sign_key: Path | None,
    out: Path | None,
    work: Path | None,
    settle: float,
    name: str,
    keep: bool,
    as_json: bool,
    inventory: Path | None,
    vault_files: tuple[Path, ...],
) -> None:
    """Rehearse a bundle: hosts like the inventory's are made here, with no way out; it is loaded, deployed and used.

    What tries to reach the outside is named with its process. Passed, or not, with what was real, substituted and not
    tried, stands in proof.json beside the bundle. The inventory's hosts are not asked anything.

    \b
    Example:
      onprem-llm prove /media/disk/bundle -i inventory.ini --facts facts.json --allowed-signers allowed_signers
      onprem-llm prove bundle -i inventory.ini --allowed-signers allowed_signers --sign-key ~/.ssh/id_ed25519
    """
    from onprem_llm.prove.proving import Wanted, prove

    connection = Connection(
        find_inventory(inventory), vault_password_files=tuple(one.absolute() for one in vault_files)
    )
    wanted = Wanted(folders, allowed.absolute(), facts_files, bases, sign_key, out, work, settle, name, keep)

    def show(proof: "Proof") -> None:
        output.show_json(proof.as_json()) if as_json else output.say(proof.text)

    proof = prove(wanted, connection, output.note, show)
    if proof.verdict != "passed":
        raise OnpremError(
            "the rehearsal did not pass",
            details="\n".join(f"  {reason}" for reason in proof.reasons),
            hint="mend what is said above, make the bundle anew, and run the same command again",
        )
