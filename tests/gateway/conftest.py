"""The gateway's fixtures: certificates, and one gateway for each file of tests."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import TLS_NAME, Kit


def certificate(folder: Path, name: str, names: str, signer: str | None = None) -> tuple[str, str]:
    """Make NAME.crt and NAME.key below a folder, signed by SIGNER or by itself."""
    paths = str(folder / f"{name}.crt"), str(folder / f"{name}.key")
    by = ["-CA", str(folder / f"{signer}.crt"), "-CAkey", str(folder / f"{signer}.key")] if signer else []
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "9",
    ]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName={names}", "-out", paths[0], "-keyout", paths[1]]
    subprocess.run([*command, *by], check=True, capture_output=True)
    return paths


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    certificate(folder, "ca", "DNS:ca")
    certificate(folder, "engine", f"DNS:{TLS_NAME}", "ca")
    certificate(folder, "gateway", "DNS:gateway", "ca")
    return folder


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Kit]:
    made = Kit(tmp_path_factory.mktemp("gateway"), certificates)
    try:
        made.start()
        yield made
    finally:
        made.stop()
