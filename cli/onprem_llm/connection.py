"""How one command reaches the hosts: the inventory and what a person typed to get in."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Connection:
    """How this run reaches hosts; made once a command, from its options. Passwords never show in a repr."""

    inventory: Path
    """Absolute; a file or a folder, any inventory that Ansible reads."""
    limit: str | None = None
    become_password: str | None = field(default=None, repr=False)
    ssh_password: str | None = field(default=None, repr=False)
    vault_password: str | None = field(default=None, repr=False)
    vault_password_files: tuple[Path, ...] = ()
    private_key: Path | None = None
    skip_unreachable: bool = False
    """Hosts that do not answer are left out; what they run stays what the book says."""
    may_be_silent: tuple[str, ...] = ()
    """Hosts whose silence is no error: they are being declared lost."""
    forks: int | None = None
    """None: what ansible.cfg says, else 16."""
