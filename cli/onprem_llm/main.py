"""The command line: a group that imports a command only when it is used, and the one place where errors become text."""

import difflib
import importlib
import os
import signal
import sys
from types import FrameType

import click

from onprem_llm import __version__
from onprem_llm.errors import DeclinedError, ExitCode, OnpremError

# The short helps stand here so that `--help` imports nothing else; a unit test compares them with the commands' own.
COMMANDS = {
    "bootstrap": "Prepare every host: checks, container engine, GPU driver.",
    "check": "Look at GPUs, drivers, lines between hosts; compare with an earlier report.",
    "facts": "Facts of hosts: export, collect-script, show.",
    "weights": "Weights of models: pull, verify, list, prune.",
    "fit": "Say whether a model fits into the memory of hosts' GPUs.",
    "lock": "Write down everything that deployments need, for hosts of known facts.",
    "bundle": "Bundles to carry behind the door: create, inspect, verify, load.",
    "deploy": "Bring a model to the hosts and start it.",
    "plan": "Show what deploy would do, and change nothing.",
    "status": "Show what runs where.",
    "scale": "Run more or fewer replicas of a deployment.",
    "rollback": "Go back to an earlier revision of a deployment.",
    "restart": "Restart the replicas of a deployment, one after another.",
    "top": "Show what every replica does now, live.",
    "history": "Show the revisions of a deployment.",
    "diff": "Show what two revisions of a deployment differ in.",
    "events": "Show what was changed, when, by whom, with what result.",
    "logs": "Show the log of a deployment.",
    "chat": "Ask a deployment a question and stream the answer.",
    "down": "Remove what deploy made.",
    "host": "Hosts: drain, undrain, replace, remove.",
    "gateway": "The gateway host: move it.",
    "cluster": "The Ray cluster: up, status, add, drain, down.",
    "backup": "Save book, keys, CA and chats into a file.",
    "restore": "Put a backup back, onto a new gateway host too.",
    "key": "Keys of clients: create, list, revoke, usage.",
    "tls": "The root certificate for clients; renew certificates.",
    "uninstall": "Reverse bootstrap: packages, files, units and rules as before.",
    "prove": "Rehearse a bundle on hosts with no way out.",
    "lab": "Make rehearsal hosts on the local docker engine.",
}


class LazyGroup(click.Group):
    """A click group whose commands live in `onprem_llm.commands.<name>`, as `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"onprem_llm.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say which command a mistyped one is like."""
        if args[0] not in COMMANDS and (like := difflib.get_close_matches(args[0], COMMANDS)):
            ctx.fail(f"No such command '{args[0]}'. Did you mean {' or '.join(like)}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="onprem-llm")
def cli() -> None:
    """From bare metal to a private LLM service, without the internet, in two commands.

    \b
    Example:
      onprem-llm bootstrap inventory.ini
      onprem-llm deploy model.yaml
    """


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; every error that a user can act on ends here."""
    # A stop by systemd or a shell's `timeout` cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    # So does a terminal that is closed; under nohup it is ignored, and stays so.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        sys.exit(cli.main(standalone_mode=False))
    except click.exceptions.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except DeclinedError as answer:  # no error: it was asked for
        click.echo(answer.message, err=True)
        sys.exit(answer.exit_code)
    except OnpremError as error:
        _show(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # `onprem-llm … | head` closes our stdout; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.OK)
    except OSError as error:
        # A file or folder of this machine: its name and the reason are in the text.
        _show(OnpremError(str(error), hint="mend what is said above (rights, space) and run the command again"))
        sys.exit(ExitCode.FAILED)


def _show(error: OnpremError) -> None:
    click.secho("Error: ", fg="red", nl=False, err=True)
    click.echo(error.message, err=True)
    if error.details:
        click.echo(error.details, err=True)
    if error.hint:
        click.secho("What to do: ", fg="yellow", nl=False, err=True)
        click.echo(error.hint, err=True)
