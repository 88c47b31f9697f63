"""`onprem-llm lab`: make rehearsal hosts, look at them, step into them, remove them."""

import os
import sys
from pathlib import Path

import click

from onprem_llm.errors import OnpremError
from onprem_llm.lab_systems import DEFAULT, NAMES
from onprem_llm.output import note, say, show_json, show_table

NAME = click.option("--name", default="lab", show_default=True, help="Which lab.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(short_help="Make rehearsal hosts on the local docker engine.")
def lab() -> None:
    """Make rehearsal hosts on the local docker engine.

    They boot systemd, run sshd, have their own addresses and, after bootstrap, their own docker engine. Their GPUs are
    stand-ins.

    \b
    Example:
      onprem-llm lab up --hosts 2 --gpus 2xH100-80GB
      onprem-llm bootstrap inventory.ini
      onprem-llm lab down
    """
    if not sys.platform.startswith("linux"):
        raise OnpremError(f"rehearsal hosts need Linux, this is {sys.platform}", hint="use a Linux machine")


@lab.command()
@NAME
@click.option("--hosts", "host_count", type=click.IntRange(1, 64), default=2, show_default=True, help="How many hosts.")
@click.option("--gpus", multiple=True, metavar="[hostN=]COUNTxMODEL", help="For every host, or for one; repeatable.")
@click.option("--driver", metavar="VERSION", help="The NVIDIA driver that hosts with GPUs pretend to have.")
@click.option(
    "--os", "os_name", type=click.Choice(NAMES), default=DEFAULT, show_default=True, help="What the hosts run."
)
@click.option(
    "--mirror", metavar="URL", help="A mirror of that system, where it has no image yet.  [default: this machine's own]"
)
@click.option(
    "--mirror-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The keys that sign the mirror.  [default: the system's, where this machine has them]",
)
@click.option(
    "--ready", is_flag=True, help="With bootstrap's packages (docker, compose, nftables, rsync) already installed."
)
@click.option("--memory", metavar="SIZE", help="A limit for each host, as docker takes it (8g).")
@click.option("--closed", is_flag=True, help="With no way out; what tries is recorded (lab attempts).")
@click.option(
    "--inventory", type=click.Path(dir_okay=False, path_type=Path), default=Path("inventory.ini"), show_default=True,
    help="Where to write the inventory.",
)  # fmt: skip
@JSON
def up(
    name: str, host_count: int, gpus: tuple[str, ...], driver: str | None, os_name: str, mirror: str | None,
    mirror_key: Path | None, ready: bool, memory: str | None, closed: bool, inventory: Path, as_json: bool,
) -> None:  # fmt: skip
    """Make the hosts and write their inventory; a second time, start what is switched off.

    \b
    Example:
      onprem-llm lab up --hosts 2 --gpus 2xH100-80GB
      onprem-llm lab up --os ubuntu-24.04 --mirror http://mirror.example/ubuntu
    """
    from onprem_llm.lab import lifecycle  # --help stays fast
    from onprem_llm.lab.mirrors import Given

    wanted = lifecycle.Wanted(
        name, host_count, gpus, os_name, ready, inventory.absolute(), driver, memory, closed,
        given=Given(mirror, mirror_key.absolute() if mirror_key else None),
    )  # fmt: skip
    made, changed = lifecycle.up(wanted, note)
    rows = [{"host": one.name, "address": one.address, "gpus": one.gpus} for one in made.hosts]
    if as_json:
        show_json({"name": name, "changed": changed, "inventory": made.inventory, "hosts": rows})
        return
    show_table(["host", "address", "gpus"], [list(row.values()) for row in rows])
    say(f"Inventory: {made.inventory}" if changed else f"No change: lab {name} runs. Inventory: {made.inventory}")


@lab.command()
@NAME
@JSON
def status(name: str, as_json: bool) -> None:
    """Show the hosts: switched on or off, systemd's state, docker's version, GPUs.

    \b
    Example:
      onprem-llm lab status
    """
    from onprem_llm.lab import lifecycle

    rows = lifecycle.status(name)
    if as_json:
        show_json({"name": name, "hosts": rows})
        return
    columns = ["host", "address", "state", "systemd", "docker", "gpus"]
    show_table(columns, [[row[column] for column in columns] for row in rows])


@lab.command()
@NAME
@JSON
def attempts(name: str, as_json: bool) -> None:
    """Show what hosts of a closed lab tried to reach outside, and who tried.

    \b
    Example:
      onprem-llm lab up --closed
      onprem-llm lab attempts
    """
    from dataclasses import asdict

    from onprem_llm.lab import lifecycle
    from onprem_llm.lab.attempts import group

    recorded = lifecycle.attempts(name)
    problems = {host: one.problem for host, one in recorded.items() if one.problem}
    found = group({host: one.attempts for host, one in recorded.items()})
    if as_json:
        show_json({"name": name, "problems": problems, "attempts": [asdict(one) for one in found]})
    elif found:
        rows = [[one.host, one.first[11:19], one.where, one.count, one.who] for one in found]
        show_table(["host", "first (utc)", "outside", "times", "by"], rows)
    elif not problems:
        say(f"Nothing in lab {name} tried to reach the outside.")
    if problems:
        lines = "\n".join(f"{host}: {problem}" for host, problem in problems.items())
        raise OnpremError("what is recorded is not all", details=lines, hint="make the lab anew: lab down, lab up")


@lab.command(context_settings={"ignore_unknown_options": True})
@NAME
@click.argument("host")
@click.argument("command_line", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD...]")
def ssh(name: str, host: str, command_line: tuple[str, ...]) -> None:
    """Step into a host by ssh, as its administrator, or run a command there.

    \b
    Example:
      onprem-llm lab ssh lab-1 -- sudo docker ps
    """
    from onprem_llm.lab import lifecycle

    argv = lifecycle.ssh_argv(name, host, command_line)
    try:
        os.execvp(argv[0], argv)  # ssh takes this terminal over
    except FileNotFoundError:
        raise OnpremError("there is no ssh on this machine", hint="apt-get install openssh-client") from None


@lab.command()
@NAME
@click.option("--images", is_flag=True, help="Remove the cached host images too.")
def down(name: str, images: bool) -> None:
    """Remove the hosts, their volumes and network, the lab's keys and its inventory.

    \b
    Example:
      onprem-llm lab down
    """
    from onprem_llm.lab import image, lifecycle

    existed = lifecycle.down(name, note)
    say(f"Lab {name} is gone." if existed else f"No change: there is no lab {name}.")
    if images:
        gone = image.remove_all()
        say("Host images removed: " + (", ".join(gone) or "none, or still in use"))
    elif existed:
        say("Host images stay for the next lab (--images removes them).")


command = lab
