"""The options by which every command that touches hosts is told how to reach them."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, UsageError

R = TypeVar("R")

DEFAULT_INVENTORY = "inventory.ini"
VARIABLE = "ONPREM_LLM_INVENTORY"


def connection_options(
    *, limit: bool = True, argument: bool = False, optional: bool = False
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Add the options and hand the command one `connection` made from them.

    `limit=False` leaves --limit out; `argument=True` takes the inventory as an argument too; `optional=True` hands over
    None where no inventory is named and the default is not there.
    """

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(command)
        def wrapper(
            *args: object,
            inventory: Path | None,
            inventory_argument: Path | None = None,
            limit: str | None = None,
            skip_unreachable: bool,
            ask_become_pass: bool,
            ask_pass: bool,
            private_key: Path | None,
            ask_vault_pass: bool,
            vault_password_file: tuple[Path, ...],
            forks: int | None,
            **kwargs: object,
        ) -> R:
            if inventory and inventory_argument:
                raise UsageError("the inventory is named twice: as an argument and with -i", hint="name it once")
            if optional and not (inventory or inventory_argument or has_default_inventory()):
                return command(*args, connection=None, **kwargs)
            connection = Connection(
                inventory=find_inventory(inventory or inventory_argument),
                limit=limit,
                skip_unreachable=skip_unreachable,
                ssh_password=_ask("SSH password", "--ask-pass", ask_pass),
                become_password=_ask("sudo password", "--ask-become-pass", ask_become_pass),
                vault_password=_ask("Vault password", "--ask-vault-pass", ask_vault_pass),
                vault_password_files=tuple(path.absolute() for path in vault_password_file),
                private_key=private_key.expanduser().absolute() if private_key else None,
                forks=forks,
            )
            return command(*args, connection=connection, **kwargs)

        options = [*([_ARGUMENT] if argument else []), *_OPTIONS, *([_LIMIT] if limit else [])]
        for option in reversed(options):
            wrapper = option(wrapper)
        return wrapper

    return decorate


def find_inventory(named: Path | None) -> Path:
    """Return the absolute path of the inventory: as named, else $ONPREM_LLM_INVENTORY, else ./inventory.ini.

    Raises InvalidError where it is not there.
    """
    from_variable = os.environ.get(VARIABLE)
    path = (named or Path(from_variable or DEFAULT_INVENTORY)).expanduser().absolute()
    if path.exists():
        return path
    where = "" if named else f" (from {VARIABLE})" if from_variable else " (the default)"
    raise InvalidError(
        f"{path}: no such inventory{where}",
        hint="name one with -i FILE; a file with one line a host is enough: server-1 ansible_host=192.0.2.11",
    )


def has_default_inventory() -> bool:
    """Tell whether an inventory is found where none is named; a variable that names a missing one is an error later."""
    return bool(os.environ.get(VARIABLE)) or Path(DEFAULT_INVENTORY).exists()


# The variables by which Ansible itself takes a password without a terminal.
WITHOUT_TERMINAL = {
    "--ask-become-pass": "set ANSIBLE_BECOME_PASSWORD_FILE to a file, or ansible_become_password in a vault",
    "--ask-pass": "set ANSIBLE_CONNECTION_PASSWORD_FILE to a file, or use a key",
    "--ask-vault-pass": "use --vault-password-file FILE",
}


def _ask(what: str, option: str, wanted: bool) -> str | None:
    if not wanted:
        return None
    if not sys.stdin.isatty():
        raise UsageError(f"{option}: there is no terminal to ask on", hint=WITHOUT_TERMINAL[option])
    answer: str = click.prompt(what, hide_input=True, err=True)
    return answer


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_LIMIT = click.option("--limit", "-l", metavar="PATTERN", help="Only these hosts or groups, as Ansible writes them.")
_ARGUMENT = click.argument("inventory_argument", metavar="[INVENTORY]", required=False, type=click.Path(path_type=Path))
_OPTIONS = [
    click.option(
        "--inventory", "-i", type=click.Path(path_type=Path), metavar="PATH",
        help=f"The hosts: a file or folder that Ansible reads.  [default: ${VARIABLE} or ./{DEFAULT_INVENTORY}]",
    ),
    click.option("--skip-unreachable", is_flag=True, help="Leave out hosts that do not answer."),
    click.option("--ask-become-pass", "-K", is_flag=True, help="Ask for sudo's password."),
    click.option("--ask-pass", "-k", is_flag=True, help="Ask for the SSH password."),
    click.option("--private-key", type=_FILE, metavar="FILE", help="The SSH key, where ssh does not find it."),
    click.option("--ask-vault-pass", is_flag=True, help="Ask for the password of ansible-vault."),
    click.option("--vault-password-file", type=_FILE, multiple=True, metavar="FILE", help="Read it there; repeatable."),
    click.option(
        "--forks", type=click.IntRange(1), metavar="N",
        help="Hosts at a time.  [default: as in ansible.cfg, or 16]",
    ),
]  # fmt: skip

# What --locked is without a file: the one that lies beside model.yaml.
BESIDE = Path("onprem-llm.lock beside model.yaml")
locked_option = click.option(
    "--locked", type=click.Path(path_type=Path), metavar="[FILE]", is_flag=False, flag_value=str(BESIDE),
    help="Use this lock's images, weights and model.yaml, and nothing else.  [FILE: onprem-llm.lock beside it]",
)  # fmt: skip


def no_model_yaml(verb: str, wanted: str, locked: Path | None) -> UsageError:
    """Return the error of a command without the model.yaml that is `wanted`: --locked may have taken it."""
    if locked is None or locked == BESIDE:
        return UsageError(f"name {wanted}", hint=f"onprem-llm {verb} --help")
    taken = f"--locked has taken {locked} for its lock: onprem-llm {verb} {locked} --locked"
    return UsageError(f"name {wanted}", hint=taken)
