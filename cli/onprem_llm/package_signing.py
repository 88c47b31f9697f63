"""The site's signature under its package repositories: apt takes OpenPGP, and nothing unsigned (docs/adr/0012).

The key is made when it is first needed and never leaves the control host. Hosts get its public half over SSH, by
bootstrap: a lost key is replaced by removing the file, loading again, and bootstrapping again.
"""

import os
from pathlib import Path

from onprem_llm.errors import InvalidError
from onprem_llm.private_files import write_private

KEY = "private/packages.pgp"
PUBLIC = "key.asc"
RELEASE, SIGNED = "Release", "InRelease"
REPOMD, SIGNATURE = "repodata/repomd.xml", "repodata/repomd.xml.asc"  # what dnf reads
OWNER = "onprem-llm package repository"


def sign_repository(folder: Path, site: Path) -> bool:
    """Sign `Release` in `folder` as `InRelease` and put `key.asc` beside it; False where both are so already.

    A repository for dnf has a signature beside its index instead.

    `site` is the site's folder, which has the key. InvalidError where there is nothing to sign or the key is none.
    """
    from pysequoia import SignatureMode, Tsk, sign

    by_dnf = (folder / REPOMD).is_file()
    release, signed = (folder / REPOMD, folder / SIGNATURE) if by_dnf else (folder / RELEASE, folder / SIGNED)
    try:
        data = release.read_bytes()
    except OSError as error:
        raise InvalidError(f"{release}: nothing to sign: {error.strerror}", hint="load the bundle again") from None
    path = site_key(site)
    try:
        key = Tsk.from_bytes(path.read_bytes())
        signer = key.signer()
    except Exception as error:  # pysequoia raises bare exceptions of its own
        raise InvalidError(
            f"{path}: this is no OpenPGP key that can sign: {error}",
            hint="remove it and load again: a new one is made, and bootstrap brings it to the hosts",
        ) from None
    public = str(key.extract_certificate())
    if (_is_detached if by_dnf else _is_signed)(signed, data, public):
        return _write(folder / PUBLIC, public.encode())
    _write(signed, sign(signer, data, mode=SignatureMode.DETACHED if by_dnf else SignatureMode.CLEAR))
    _write(folder / PUBLIC, public.encode())
    return True


def site_key(site: Path) -> Path:
    """Return the file of the site's key, made where there is none."""
    from pysequoia import Profile, Tsk

    path = site / KEY
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Version 4 of OpenPGP: what gpgv on Debian 12 and Ubuntu reads, and sqv on Debian 13.
        key = Tsk.generate(OWNER, profile=Profile.RFC4880)
        made = write_private(path.with_name(f".{path.name}-{os.getpid()}"), str(key))
        try:
            path.hardlink_to(made)
        except FileExistsError:
            pass  # another load was first
        except OSError:  # a file system without hard links
            made.replace(path)
        finally:
            made.unlink(missing_ok=True)
    return path


def _is_signed(signed: Path, data: bytes, public: str) -> bool:
    """Tell whether a signed text is this one, by this key."""
    from pysequoia import Cert, verify

    try:
        found = verify(bytes=signed.read_bytes(), store=lambda _: [Cert.from_bytes(public.encode())])
    except Exception:  # not there, damaged, or by another key
        return False
    # What ends a line before the signature belongs to neither.
    return found.bytes is not None and found.bytes.rstrip(b"\r\n") == data.rstrip(b"\r\n")


def _is_detached(signature: Path, data: bytes, public: str) -> bool:
    """Tell whether a signature is that of these bytes, by this key."""
    from pysequoia import Cert, Sig, verify

    try:
        verify(bytes=data, store=lambda _: [Cert.from_bytes(public.encode())], signature=Sig.from_file(str(signature)))
    except Exception:  # not there, damaged, or by another key
        return False
    return True


def _write(path: Path, data: bytes) -> bool:
    if path.is_file() and path.read_bytes() == data:
        return False
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.chmod(0o644)
    partial.replace(path)
    return True
