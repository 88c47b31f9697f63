"""Signatures by `ssh-keygen -Y`, which every host has: who signed what, and whether the reader trusts that key."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.errors import InvalidError, OnpremError

# A signature for one purpose is none for another.
BUNDLE, REPORT, PROOF = "onprem-llm-bundle", "onprem-llm-report", "onprem-llm-proof"
_GOOD = re.compile(r'Good "[^"]+" signature for (?P<who>.+) with (?P<kind>\S+) key (?P<key>SHA256:\S+)')
_REASONS = {
    "incorrect signature": "the signature is not of these bytes: something was altered after it was signed",
    "has expired": "the key's time in the allowed signers is over (valid-before)",
    "not yet valid": "the key's time in the allowed signers has not begun (valid-after)",
    "not permitted for use in signature namespace": "the allowed signers let this key sign other things alone",
    "parse signature": "the signature is damaged",
    "armor": "the signature is damaged",
}


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose key it was, as the allowed signers name its owner, and its fingerprint."""

    principal: str
    key: str


def sign(data: bytes, key: Path, namespace: str) -> bytes:
    """Return the signature; `key` is a private key, or a public one whose private one an agent holds."""
    if not key.is_file():
        raise InvalidError(f"{key}: no such key", hint="make one: ssh-keygen -t ed25519 -f KEY")
    ended = _ssh_keygen("sign", "-f", str(key), "-n", namespace, data=data)
    if ended.returncode or b"SSH SIGNATURE" not in ended.stdout:
        raise OnpremError(
            f"{key}: ssh-keygen could not sign with it",
            details=_indented(ended.stderr),
            hint="for a key with a passphrase and no terminal: ssh-add KEY, and name KEY.pub",
        )
    return ended.stdout


def key_of(data: bytes, signature: Path, namespace: str) -> str | None:
    """Return the fingerprint of the key that signed `data`, whoever it is of; None where nobody did."""
    if signature.is_symlink() or not signature.is_file():
        return None
    ended = _ssh_keygen("check-novalidate", "-n", namespace, "-s", str(signature), data=data)
    good = re.search(r"SHA256:\S+", ended.stdout.decode("utf-8", "replace"))
    return good[0] if good and ended.returncode == 0 else None


def public_line(key: Path) -> tuple[str, str]:
    """Return who the key says it is of, and the line of allowed signers for it."""
    public = key if key.suffix == ".pub" else key.with_name(key.name + ".pub")
    if public.is_file():
        text = public.read_text(encoding="utf-8", errors="replace")
    else:
        text = subprocess.run(["ssh-keygen", "-y", "-f", str(key)], capture_output=True, text=True, check=False).stdout
    kind, _, rest = text.strip().partition(" ")
    blob, _, comment = rest.partition(" ")
    who = comment if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9@._+-]*", comment) else "onprem-llm"
    return who, f'{who} namespaces="{BUNDLE},{REPORT},{PROOF}" {kind} {blob}'


def verify(data: bytes, signature: Path, allowed: Path, namespace: str, what: str) -> tuple[Signer, bytes]:
    """Say who signed `data`, and return the signature; InvalidError where nobody did whom `allowed` names."""
    if not allowed.is_file():
        raise InvalidError(
            f"{allowed}: no file of allowed signers",
            hint='carry it apart from the bundle; a line each: NAME namespaces="onprem-llm-bundle" ssh-ed25519 AAAA…',
        )
    if signature.is_symlink() or not signature.is_file():
        raise InvalidError(
            f"{what}: unsigned: {signature.name} is not there",
            hint="sign it where it was made: onprem-llm bundle create --lock LOCK -o DIR --sign-key KEY",
        )
    # What is verified is read once: a medium may give other bytes the second time.
    with tempfile.TemporaryDirectory(prefix="onprem-llm-") as folder:
        copy = Path(folder) / "sig"
        copy.write_bytes(signature.read_bytes()[:65536])
        return _verify(data, copy, allowed, namespace, what), copy.read_bytes()


def _verify(data: bytes, signature: Path, allowed: Path, namespace: str, what: str) -> Signer:
    found = _ssh_keygen("find-principals", "-s", str(signature), "-f", str(allowed))
    said = found.stderr
    names = found.stdout.decode("utf-8", "replace").splitlines() if found.returncode == 0 else []
    for name in names:
        ended = _ssh_keygen(
            "verify", "-f", str(allowed), "-I", name, "-n", namespace, "-s", str(signature), data=data
        )  # fmt: skip
        good = _GOOD.search(ended.stdout.decode("utf-8", "replace"))
        if ended.returncode == 0 and good:
            return Signer(name, good["key"])
        said = ended.stderr + ended.stdout
    raise _refused(said.decode("utf-8", "replace"), what, allowed)


def _refused(said: str, what: str, allowed: Path) -> InvalidError:
    why = next((reason for sign, reason in _REASONS.items() if sign in said), None)
    return InvalidError(
        f"{what}: {why or f'signed by a key that {allowed} does not name'}",
        details=_indented(said.encode()),
        hint="get the bundle, or the line of its signer, from those who made it, by another way than the bundle came",
    )


def _ssh_keygen(verb: str, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["ssh-keygen", "-Y", verb, *arguments], input=data, capture_output=True, check=False)
    except FileNotFoundError:
        raise OnpremError("ssh-keygen is missing", hint="install OpenSSH's client (openssh-client)") from None


def _indented(said: bytes) -> str:
    return "\n".join(f"  {line}" for line in said.decode("utf-8", "replace").strip().splitlines()[:6])
