"""What to do about the failures of ssh, sudo and Ansible that people meet: patterns with a remedy each."""

import re
from collections.abc import Sequence
from pathlib import Path

from onprem_llm.errors import InvalidError, OnpremError

# The first that matches counts. {host} is the name in the inventory.
REMEDIES = (
    (
        r"IDENTIFICATION HAS CHANGED!|Host key for .* has changed",
        "the key of {host} is not the one that known_hosts has. If the host was reinstalled, compare the new "
        "fingerprint on its console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then remove the old key with "
        "ssh-keygen -R",
    ),
    (
        r"No .* host key is known",
        "the key of {host} is not in known_hosts: run the command on a terminal to see and confirm it",
    ),
    (
        r"[Mm]issing sudo password|sudo: a password is required",
        "sudo on {host} asks for a password: add --ask-become-pass (-K)",
    ),
    (
        r"[Ii]ncorrect sudo password|Sorry, try again|incorrect password attempt",
        "sudo on {host} did not take the password: run again and type it",
    ),
    (
        r"not in the sudoers|is not allowed to (run|execute)|may not run sudo",
        "the user that logs in on {host} may not use sudo: add it to the sudo group there, or set ansible_user",
    ),
    (
        r"sudo: (command )?not found|sudo: not found|sudo: No such file",
        "there is no sudo on {host}: install it (apt-get install sudo), or log in as root with ansible_user=root",
    ),
    (
        r"No python interpreters found|python3?: (command )?not found|python3?: No such file|interpreter.*not found",
        "there is no Python 3 on {host}: apt-get install python3 (or dnf install python3), or set "
        "ansible_python_interpreter to where it is",
    ),
    (
        r"has a passphrase|incorrect passphrase|passphrase for key",
        "the key is protected by a passphrase: load it with ssh-add, or run the command on a terminal to be asked",
    ),
    (
        r"Permission denied \(|Too many authentication failures|Authentication failed|Invalid/incorrect password",
        "{host} does not take the key or the password: check ansible_user and --private-key, or add --ask-pass (-k)",
    ),
    (r"No space left on device", "a disk of {host} is full: make space there (df -h)"),
)
# What ssh says of the way to a host. A program on a host that was reached may use the same words of something else.
ON_THE_WAY = (
    (
        r"Could not resolve hostname|Name or service not known",
        "the name does not resolve: set ansible_host for {host} in the inventory, or check the name",
    ),
    (
        r"Connection refused",
        "nothing listens there: is sshd running on {host}, and on the port that ansible_port says?",
    ),
    (
        r"Connection timed out|Operation timed out|No route to host|Network is unreachable|Timeout .* waiting",
        "{host} does not answer: is it on, is ansible_host right, is a firewall in between?",
    ),
    (
        r"by UNKNOWN port",
        "the way to {host} leads over another host (ProxyJump), and it ends there: try to log in to that one by hand",
    ),
    (
        r"Connection closed|Connection reset|kex_exchange_identification",
        "sshd on {host} hung up: look at its log (journalctl -u ssh) and at MaxStartups, or use fewer --forks",
    ),
    (
        r"Timeout, server .* not responding|Data could not be sent to remote host|to the host via ssh:\s*$",
        "{host} went silent: is it still on, and its network? Look at it (journalctl), then run the command again",
    ),
)

VAULT = re.compile(r"no vault secrets|[Dd]ecryption failed|vault password")
NO_HOSTS = re.compile(
    r"no hosts to target|[Nn]o inventory was parsed|hosts list is empty|no hosts matched|Could not match"
)
PARSE = re.compile(r"inventory|[Ff]ailed to parse|YAML parsing")


def remedy(message: str, host: str, *, reached: bool = False) -> str | None:
    """Return what to do about a failure, None where nothing is known. `reached`: it is the host itself that said it."""
    for pattern, text in REMEDIES if reached else REMEDIES + ON_THE_WAY:
        if re.search(pattern, message):
            return text.format(host=host)
    return None


def not_begun(talk: Sequence[str], inventory: Path, limit: str | None) -> OnpremError:
    """Say why a run had no hosts or never began, from what ansible-playbook wrote."""
    text = "\n".join(line for line in talk if line.strip())
    flat = " ".join(text.split())
    if VAULT.search(flat):
        return InvalidError(
            f"{inventory}: a file of the inventory is encrypted with ansible-vault and cannot be read",
            details=text,
            hint="add --ask-vault-pass, or --vault-password-file FILE",
        )
    if limit and re.search(r"Could not match|no hosts to target|no hosts matched", flat):
        return InvalidError(
            f"{inventory}: no host matches the limit “{limit}”",
            details=text,
            hint=f"see which hosts there are: ansible-inventory -i {inventory} --graph",
        )
    if "ERROR" in flat and PARSE.search(flat) and not re.search(r"no hosts to target", flat):
        return InvalidError(
            f"{inventory}: ansible cannot read this inventory", details=text, hint="mend the line that is named above"
        )
    if not flat or NO_HOSTS.search(flat):
        return InvalidError(
            f"{inventory}: there are no hosts in this inventory",
            details=text or None,
            hint="name at least one host: a line `server-1 ansible_host=192.0.2.11` is enough",
        )
    return OnpremError("ansible-playbook ended before it did anything", details=text)
