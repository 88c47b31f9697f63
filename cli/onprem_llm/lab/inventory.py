"""The inventory that `lab up` writes: one that Ansible and every command here take as any other."""

from pathlib import Path

from onprem_llm.errors import OnpremError
from onprem_llm.lab.state import USER, Lab
from onprem_llm.whole_files import write_whole

MARK = "# Written by `onprem-llm lab up` for lab "


def text(lab: Lab) -> str:
    """Return the inventory of `lab`."""
    width = max((len(host.name) for host in lab.hosts), default=0)
    hosts = "\n".join(f"{host.name:<{width}} ansible_host={host.address}" for host in lab.hosts)
    with_gpus = [host.name for host in lab.hosts if host.gpus]
    gpu_group = "\n[gpu]\n" + "\n".join(with_gpus) + "\n" if with_gpus else ""
    variables = "\n".join(f"{name}={value}" for name, value in connection(lab).items())
    return f"""{MARK}{lab.name}; `onprem-llm lab down --name {lab.name}` removes it.
[rehearsal]
{hosts}
{gpu_group}
[rehearsal:vars]
{variables}
"""


def connection(lab: Lab) -> dict[str, str]:
    """Return the variables by which Ansible reaches every host of `lab`."""
    # Quoted twice: once for the ini file, once for the shell-like splitting of ssh arguments.
    arguments = f"-o 'UserKnownHostsFile=\"{lab.known_hosts}\"' -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    return {
        "ansible_user": USER,
        "ansible_ssh_private_key_file": str(lab.key),
        "ansible_ssh_common_args": arguments,
        "ansible_python_interpreter": "/usr/bin/python3",
    }


def owner(path: Path) -> str | None:
    """Return the lab that the inventory at `path` was written for; None if somebody else wrote it."""
    first = path.read_text("utf-8", errors="replace").partition("\n")[0]
    return first.removeprefix(MARK).partition(";")[0] if first.startswith(MARK) else None


def check_writable(path: Path, lab: str) -> None:
    """Raise OnpremError if a file is at `path` that `lab up` did not write for this lab."""
    if not path.parent.is_dir():
        raise OnpremError(f"{path}: there is no folder {path.parent}", hint="name another with --inventory PATH")
    if not path.exists():
        return
    found = owner(path) if path.is_file() else None
    if found != lab:
        what = "not written by `lab up`" if found is None else f"the inventory of lab {found}"
        raise OnpremError(
            f"{path}: it exists and is {what}; it stays as it is", hint="name another with --inventory PATH"
        )


def write(lab: Lab) -> bool:
    """Write the inventory, whole: half of one would be nobody's; return whether that changed anything."""
    path = Path(lab.inventory)
    wanted = text(lab)
    if path.is_file() and path.read_text("utf-8") == wanted:
        return False
    write_whole(path, wanted.encode())
    return True


def remove(lab: Lab) -> bool:
    """Remove the inventory if it is still this lab's; return whether it was."""
    path = Path(lab.inventory)
    if not path.is_file() or owner(path) != lab.name:
        return False
    path.unlink()
    return True
