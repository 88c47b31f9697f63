"""What tests start on loopback: a free port, and the real docker-registry of Debian's package."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onprem_llm.caches import cache_folder

# Looked up before a test gives itself another cache.
UNPACKED = cache_folder() / "tests" / "docker-registry"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def docker_registry() -> str:
    """Return the program; unpacked, not installed, where the machine has none: the package would start a service."""
    found = shutil.which("docker-registry")
    if found:
        return found
    program = UNPACKED / "usr/bin/docker-registry"
    if not program.exists():
        UNPACKED.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=UNPACKED.parent) as scratch:
            _unpack("docker-registry", Path(scratch)).rename(UNPACKED)
    return str(program)


def _unpack(package: str, scratch: Path) -> Path:
    """Fetch a package of this machine's mirror, and return the folder with its files."""
    # apt drops root's rights for downloads, and then must be able to write.
    apt = ["apt-get", "-q", "-o", "APT::Sandbox::User=root"]
    subprocess.run([*apt, "update"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*apt, "download", package], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
    (archive,) = scratch.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", archive, scratch / "files"], check=True)
    return scratch / "files"


@contextmanager
def serving(config: Path, port: int) -> Iterator[str]:
    """Serve with a configuration of ours; yield the address. What the registry says is in registry.log beside it."""
    said = config.parent / "registry.log"
    with said.open("wb") as log:
        process = subprocess.Popen([docker_registry(), "serve", str(config)], stdout=log, stderr=log)
    try:
        _wait_for(process, port, said)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    """Return once something listens on the port; a process that ended, or 60 seconds of silence, is an error."""
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"docker-registry does not listen on port {port}: {said.read_text()}")
