"""`onprem-llm facts`: what hosts are, in a file that travels to a machine that cannot reach them."""

from pathlib import Path

import click

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.options import connection_options

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("facts", short_help="Facts of hosts: export, collect-script, show.")
def command() -> None:
    """What hosts are (system, kernels, CPU, GPUs, disks), for a machine that cannot reach them.

    \b
    Example:
      onprem-llm facts export -i inventory.ini -o facts.json
      onprem-llm facts show facts.json
      onprem-llm lock model.yaml --facts facts.json
    """


@command.command("export", short_help="Ask the hosts of an inventory, and write facts.json.")
@click.option(
    "--out", "-o", type=click.Path(dir_okay=False, path_type=Path), default=Path("facts.json"), show_default=True,
    help="Where to write them.",
)  # fmt: skip
@click.option(
    "--network", type=click.Path(dir_okay=False, path_type=Path), metavar="REPORT",
    help="Put the lines of this report of check --network --save beside them.",
)  # fmt: skip
@JSON
@connection_options()
def export(out: Path, network: Path | None, as_json: bool, connection: Connection) -> None:
    """Ask every host of the inventory what it is, and write facts.json. Nothing is changed on the hosts.

    \b
    Example:
      onprem-llm facts export -i inventory.ini -o facts.json
      onprem-llm facts export -i inventory.ini --network monday.json
    """
    from onprem_llm.facts.export import collect
    from onprem_llm.facts.table import COLUMNS, rows
    from onprem_llm.whole_files import write_whole

    lines = None
    if network is not None:
        # Imported where it is used: most exports have no lines. Read before any host is asked.
        from onprem_llm.checks.network_kept import kept
        from onprem_llm.checks.report import read_report

        lines = kept(read_report(network, network=True), str(network))
    with output.glimpse() as progress:
        facts = collect(connection, progress)
    if lines is not None:
        facts = facts.model_copy(update={"network": lines.of(facts.hosts)})
    write_whole(out, facts.data)
    if as_json:
        output.show_json(facts.document)
    else:
        output.show_table(COLUMNS, rows(facts))
    output.note(f"Written to {out}.")


@command.command("collect-script", short_help="Print a script that collects the facts of the host that it runs on.")
def collect_script() -> None:
    """Print a shell script for hosts that this tool does not reach: `sh collect.sh > HOST.json` there.

    It needs a POSIX shell and coreutils, and changes nothing.

    \b
    Example:
      onprem-llm facts collect-script > collect.sh
      sh collect.sh web-7 > web-7.json
    """
    from onprem_llm.resources import PACKAGE

    click.echo((PACKAGE / "facts" / "collect.sh").read_text(encoding="utf-8"), nl=False)


@command.command("show", short_help="Check files of facts, and show their hosts together.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write them together to this file.")
@JSON
def show(files: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Check files of facts, and show their hosts together; two that differ on a host are an error.

    \b
    Example:
      onprem-llm facts show facts.json web-7.json
      onprem-llm facts show *.json -o facts.json
    """
    from onprem_llm.facts.table import COLUMNS, rows
    from onprem_llm.spec.facts import merge_facts
    from onprem_llm.whole_files import write_whole

    facts = merge_facts(files)
    if out is not None:
        write_whole(out, facts.data)
    if as_json:
        output.show_json(facts.document)
    else:
        output.show_table(COLUMNS, rows(facts))
    if out is not None:
        output.note(f"Written to {out}.")
