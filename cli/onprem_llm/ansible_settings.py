"""The environment of an Ansible run: single variables only, and none that the user's ansible.cfg already decides."""

import configparser
import os
import sys
from pathlib import Path

from onprem_llm.resources import folder

FORKS = 16


def environment(forks: int | None, private: Path) -> dict[str, str]:
    """Return what is added to the user's environment for ansible-playbook. `private` is the run's own folder."""
    settings = {
        # ansible-runner switches the check off where nobody says otherwise.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        # A broken inventory otherwise "succeeds" with no hosts.
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True",
        "ANSIBLE_ROLES_PATH": ":".join(filter(None, (str(folder("roles")), os.environ.get("ANSIBLE_ROLES_PATH")))),
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "ANSIBLE_NOCOWS": "True",
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_DEPRECATION_WARNINGS": "False",
        # Larger results than this are dropped by ansible-runner without a word (bytes); a probe may be large.
        "MAX_EVENT_RES": "50000000",
        "LC_ALL": "C.UTF-8",
        # Nobody sits at a worker: a window that asks for a passphrase would hold the run up.
        "SSH_ASKPASS_REQUIRE": "never",
        "ONPREM_LLM_RUN": str(private),
        "ONPREM_LLM_PROGRESS": str(private / "progress"),
        "PATH": _path(),
    }
    if not _decided("ANSIBLE_PIPELINING", "pipelining") and "ANSIBLE_SSH_PIPELINING" not in os.environ:
        settings["ANSIBLE_PIPELINING"] = "True"
    if not _decided("ANSIBLE_SSH_ARGS", "ssh_args"):
        # Ansible's own default less -C: weights and images do not compress, and -C holds them to 45 MB/s. And a host
        # that says nothing for three minutes is unreachable; the kernel alone gives it a quarter of an hour. Less would
        # end a transfer of hours because a switch starts anew.
        settings["ANSIBLE_SSH_ARGS"] = (
            "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=15 -o ServerAliveCountMax=12"
        )
    if forks is not None:
        settings["ANSIBLE_FORKS"] = str(forks)
    elif not _decided("ANSIBLE_FORKS", "forks"):
        settings["ANSIBLE_FORKS"] = str(FORKS)
    return settings


def log_nothing(private: Path) -> dict[str, str]:
    """Return what keeps results out of the user's log file: this one goes away with the run's folder."""
    return {"ANSIBLE_LOG_PATH": str(private / "log")}


def all_or_none() -> dict[str, str]:
    """Return what ends a run on all hosts where it fails on one.

    Not `any_errors_fatal` of a play: Ansible fills in no template there, and takes any text for true.
    """
    return {"ANSIBLE_ANY_ERRORS_FATAL": "True"}


def _path() -> str:
    """Find ansible-playbook beside our python first: the virtual environment need not be activated."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _decided(variable: str, option: str) -> bool:
    """Say whether the user has set an option, by environment or in the ansible.cfg that Ansible would read."""
    if variable in os.environ:
        return True
    path = _config_file()
    if path is None:
        return False
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(path)
    except (configparser.Error, UnicodeDecodeError):
        return False  # ansible-playbook says what is wrong with it
    return any(parser.has_option(section, option) for section in parser.sections())


def _config_file() -> Path | None:
    """Return the ansible.cfg that counts: Ansible's own order of places."""
    named = os.environ.get("ANSIBLE_CONFIG")
    here = Path.cwd()
    places = [Path(named).expanduser()] if named else []
    # Ansible ignores the one in a folder that everybody can write to.
    if not here.stat().st_mode & 0o002:
        places.append(here / "ansible.cfg")
    places += [Path.home() / ".ansible.cfg", Path("/etc/ansible/ansible.cfg")]
    return next((place for place in places if place.is_file()), None)
