"""A stand-in mirror of NVIDIA's repository libnvidia-container, signed, with packages under the real names."""

import hashlib
import shutil
from pathlib import Path

from tests.driver.kit import ROOT, AptRepository

from onprem_llm.package_signing import sign_repository, site_key

STAND_IN = ROOT / "cli/onprem_llm/lab/gpu/nvidia-ctk"
NAMES = (
    "libnvidia-container-tools", "libnvidia-container1", "nvidia-container-toolkit", "nvidia-container-toolkit-base",
)  # fmt: skip
RUNTIME = b'#!/bin/sh\nexec runc "$@"\n'
NOTHING = b"#!/bin/sh\nexit 0\n"
# What the real package's script does.
POSTINST = (
    "#!/bin/sh\nset -e\n/usr/bin/nvidia-ctk --quiet config --config-file=/etc/nvidia-container-runtime/config.toml "
    "--in-place\n"
)


def files(version: str) -> dict[str, dict[str, bytes]]:
    """Return {package: {path: content}}; what each real package has of programs (its .install and .spec)."""
    return {
        "libnvidia-container1": {},
        "libnvidia-container-tools": {},
        "nvidia-container-toolkit-base": {
            "/usr/bin/nvidia-ctk": STAND_IN.read_bytes(), "/usr/bin/nvidia-ctk.version": version.encode(),
            "/usr/bin/nvidia-cdi-hook": NOTHING, "/usr/bin/nvidia-container-runtime": RUNTIME,
        },
        "nvidia-container-toolkit": {"/usr/bin/nvidia-container-runtime-hook": NOTHING},
    }  # fmt: skip


def mirror(folder: Path, *versions: str) -> str:
    """Make the mirror for apt, and return the fingerprint of its key."""
    tree = folder / "mirror/stable/deb/amd64"
    made = AptRepository(folder / "made")
    made.folder.mkdir()
    for version in versions:
        depends = {
            "nvidia-container-toolkit": f"nvidia-container-toolkit-base (= {version}-1), libnvidia-container-tools",
            "libnvidia-container-tools": "libnvidia-container1",
        }
        for name, content in files(version).items():
            postinst = POSTINST if name.endswith("-base") else ""
            made.add(name, f"{version}-1", depends.get(name, ""), content, postinst)
    tree.mkdir(parents=True)
    for package in made.folder.glob("*.deb"):
        shutil.copy(package, tree)
    index = "\n".join(made.index).encode()
    (tree / "Packages").write_bytes(index)
    total = hashlib.sha256(index).hexdigest()
    (tree / "Release").write_text(
        f"Origin: stand-in\nDate: Sun, 01 Nov 2026 00:00:00 UTC\nSHA256:\n {total} {len(index)} Packages\n"
    )
    sign_repository(tree, folder / "site")
    shutil.copy(tree / "key.asc", folder / "mirror/gpgkey")
    return _fingerprint(folder / "site")


def signed_index(index: Path, folder: Path) -> str:
    """Sign dnf's index beside it, write gpgkey, and return the key's fingerprint; the key is made in `folder`."""
    from pysequoia import SignatureMode, Tsk, sign

    key = Tsk.from_bytes(site_key(folder / "site").read_bytes())
    signature = sign(key.signer(), index.read_bytes(), mode=SignatureMode.DETACHED)
    index.with_name(f"{index.name}.asc").write_bytes(signature)
    (folder / "gpgkey").write_text(str(key.extract_certificate()))
    return _fingerprint(folder / "site")


def _fingerprint(site: Path) -> str:
    from pysequoia import Tsk

    return Tsk.from_bytes(site_key(site).read_bytes()).extract_certificate().fingerprint.upper()
