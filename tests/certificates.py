"""Certificates for tests, by the openssl command."""

import subprocess
from pathlib import Path


def certificate(folder: Path, name: str, names: str, signer: str | None = None) -> tuple[str, str]:
    """Make NAME.crt and NAME.key below a folder, signed by SIGNER or by itself; return their paths."""
    paths = str(folder / f"{name}.crt"), str(folder / f"{name}.key")
    by = ["-CA", str(folder / f"{signer}.crt"), "-CAkey", str(folder / f"{signer}.key")] if signer else []
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9",
        "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}", "-out", paths[0], "-keyout", paths[1],
    ]  # fmt: skip
    subprocess.run([*command, *by], check=True, capture_output=True)
    return paths
