"""A bundle with a file of 5 GiB on a FAT disk: cut into parts, kill -9 in the middle, loaded by volumes from there.

The disk is a loop device with a real FAT32 on it. Where the kernel has no vfat, fusefat drives it: the same file
system, another driver.
"""

import hashlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.bundle.kit import Bench, Connected, Keys, weights_files

GIB = 1024**3
LARGE = 5 * GIB
NAME = "model-9.safetensors"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A FAT32 of 6 GiB on a loop device."""
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as stream:
        stream.truncate(6 * GIB)
    tools(("mkfs.vfat", "dosfstools"))
    subprocess.run(["mkfs.vfat", "-F", "32", image], check=True, capture_output=True)
    device = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        if subprocess.run(["mount", "-t", "vfat", device, folder], check=False, capture_output=True).returncode:
            tools(("fusefat", "fusefat"))
            subprocess.run(["fusefat", "-o", "rw+", device, folder], check=True, capture_output=True)
        print(f"FAT32 by {said('findmnt', '-no', 'FSTYPE', str(folder))}")
        yield folder
    finally:
        subprocess.run(["umount", folder], check=False)
        subprocess.run(["losetup", "-d", device], check=False)


def said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def tools(*wanted: tuple[str, str]) -> None:
    missing = [package for tool, package in wanted if not shutil.which(tool)]
    if missing:
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A machine with weights of 5 GiB: holes, and something to tell the parts apart."""
    here = Connected(tmp_path / "here", weights=weights_files(100_000), packages=(), pythons=(), images=0)
    here.large = {NAME: LARGE}
    return Bench(tmp_path, here.make(), Keys(tmp_path / "keys").make())


def digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while data := stream.read(2**22):
            found.update(data)
    return found.hexdigest()


def test_a_file_of_5_gib_on_a_fat_disk(bench: Bench, disk: Path, tmp_path: Path) -> None:
    out = disk / "bundle"
    arguments = ("create", "--lock", bench.here.lock, "-o", out, "--sign-key", bench.keys.key, "--volume-size", "4GB")
    process = bench.start(*arguments)
    while not list(out.glob("vol-001/**/*.partial")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(3)
    process.kill()
    process.communicate()
    assert "its creation was cut off" in bench.verify(out, status=3)
    bench.run(*arguments)
    assert "nothing to do" in bench.run(*arguments)
    folders = sorted(path for path in out.iterdir() if path.is_dir())
    assert [path.name for path in folders] == ["vol-001", "vol-002"]
    sizes = [sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) for folder in folders]
    assert all(size <= 4_000_000_000 for size in sizes), sizes
    bench.verify(out)
    # The wrong order, each by itself.
    site = tmp_path / "site"
    assert "Still to come: vol-001" in bench.load(folders[1], to=site)
    bench.load(folders[0], to=site)
    found = next(site.glob(f"weights/*/Tiny/{NAME}"))
    assert found.stat().st_size == LARGE
    assert digest(found) == digest(bench.here.model / NAME)
    assert not [path for path in (site / "blobs" / "sha256").iterdir() if len(path.name) != 64]
    part = max(folders[1].glob("blobs/sha256/*"), key=lambda path: path.stat().st_size)
    with part.open("r+b") as stream:
        stream.write(b"another")
    assert NAME in bench.verify(folders[1], status=5)
