"""Disks that are too small, fill up, take no large files or have no links: said clearly, and the next run goes on."""

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.bundle.kit import MB, Bench, Connected, tree, weights_files

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="small file systems are mounted as root")


@pytest.fixture
def heavy(bench: Bench, tmp_path: Path) -> Bench:
    return Bench(tmp_path, Connected(tmp_path / "here", weights=weights_files(10 * MB)).make(), bench.keys)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Make file systems of a size; they are gone after the test."""
    mounted: list[Path] = []

    def make(size: str) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill a disk to its last byte."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(64 * 1024))
    yield
    filler.unlink()


def stopped_at(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Hold a process at a moment. It runs for milliseconds at a time: all that we wait for may take no longer."""
    until = time.monotonic() + 60
    while True:
        process.send_signal(signal.SIGSTOP)
        if reached():
            return
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        process.send_signal(signal.SIGCONT)
        time.sleep(0.003)


def test_create_on_a_disk_that_is_too_small(heavy: Bench, small: Callable[[str], Path]) -> None:
    disk = small("20m")
    said = heavy.create(disk / "bundle", status=3)
    assert "are to be written, and 2" in said
    assert not list(disk.rglob("*.partial"))
    assert sum(path.stat().st_size for path in disk.rglob("*") if path.is_file()) < 1000


def test_create_on_a_disk_that_fills_up(heavy: Bench, small: Callable[[str], Path]) -> None:
    disk = small("60m")
    out = disk / "bundle"
    process = heavy.start("create", "--lock", heavy.here.lock, "-o", out, "--sign-key", heavy.keys.key)
    stopped_at(process, lambda: any(out.glob("blobs/sha256/[!.]*")))
    with full(disk):
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 5, said
        assert "No space left on device while writing the bundle" in said
        assert "it goes on from there" in said
        assert "Traceback" not in said
        assert "its creation was cut off" in heavy.verify(out, status=3)
    heavy.create(out)
    heavy.verify(out)


def test_load_on_a_disk_that_is_too_small(heavy: Bench, small: Callable[[str], Path]) -> None:
    disk = small("20m")
    heavy.create(heavy.root / "bundle")
    said = heavy.load(heavy.root / "bundle", to=disk / "site", status=3)
    assert "are needed, and 2" in said
    assert not list((disk / "site").rglob("blobs/sha256/?*"))


def test_load_on_a_disk_that_fills_up(heavy: Bench, small: Callable[[str], Path]) -> None:
    disk = small("60m")
    site, bundle = disk / "site", heavy.root / "bundle"
    heavy.create(bundle)
    process = heavy.start("load", bundle, "--to", site, "--allowed-signers", heavy.keys.allowed)
    stopped_at(process, lambda: any(site.glob("blobs/sha256/[!.]*")))
    with full(disk):
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 5, said
        assert "No space left on device while loading" in said
        assert not list(site.glob("weights/*"))
    heavy.load(bundle, to=site)
    assert tree(next(site.glob("weights/*/Tiny"))) == tree(heavy.here.model)


def foreign(bundle: Path, how: str) -> None:
    """Let somebody else write to a bundle's blobs."""
    for blob in (bundle / "blobs/sha256").iterdir():
        if how == "owner":
            os.chown(blob, 65534, 65534)
        else:
            blob.chmod(0o664 if how == "group" else 0o646)


@pytest.mark.parametrize("how", ["owner", "group", "others"])
def test_what_others_may_write_to_is_copied(bench: Bench, bundle: Path, how: str) -> None:
    """A link would let them change what was verified, long after."""
    foreign(bundle, how)
    site = bench.root / "site"
    bench.load(bundle, to=site)
    before = tree(site)
    for blob in (bundle / "blobs/sha256").iterdir():
        with blob.open("r+b") as stream:
            stream.write(b"altered")
    assert tree(site) == before


def test_copies_of_what_others_may_write_to_are_counted(heavy: Bench, small: Callable[[str], Path]) -> None:
    disk = small("50m")
    heavy.create(disk / "bundle")
    foreign(disk / "bundle", "owner")
    said = heavy.load(disk / "bundle", to=disk / "site", status=3)
    assert "are needed, and" in said
    assert not list((disk / "site").rglob("blobs/sha256/?*"))
    for blob in (disk / "bundle/blobs/sha256").iterdir():
        os.chown(blob, os.geteuid(), os.getegid())
    heavy.load(disk / "bundle", to=disk / "site")


def test_another_disk_gets_the_same_bundle(heavy: Bench, small: Callable[[str], Path]) -> None:
    """Copies there, links here."""
    disk = small("80m")
    heavy.create(heavy.root / "bundle")
    heavy.create(disk / "bundle")
    subprocess.run(["diff", "-r", heavy.root / "bundle", disk / "bundle"], check=True)


def test_files_larger_than_the_file_system_takes(heavy: Bench, small: Callable[[str], Path]) -> None:
    out = small("80m") / "bundle"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * MB, limits[1]))
    try:
        process = heavy.start("create", "--lock", heavy.here.lock, "-o", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 5, said
    assert "File too large" in said
    assert "--volume-size 4GB" in said


def test_a_source_that_changed_since_the_lock(heavy: Bench) -> None:
    path = heavy.here.model / "model-1.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    said = heavy.create(heavy.root / "bundle", status=5)
    assert str(path) in said
    assert "found 1000" in said
    assert not (heavy.root / "bundle" / "manifest.json").exists()
    path.write_bytes(data)
    heavy.create(heavy.root / "bundle")
    heavy.verify(heavy.root / "bundle")


def test_a_site_without_hard_links_gets_copies_that_were_counted(
    heavy: Bench, small: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and exFAT have none; tests/faults tries a real one."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    heavy.create(heavy.root / "bundle")
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setattr(os, "link", refuse)
    disk = small("60m")
    said = heavy.load(heavy.root / "bundle", to=disk / "site", status=3)
    assert "of it copies: this file system has no hard links" in said
    roomy = small("120m") / "site"
    heavy.load(heavy.root / "bundle", to=roomy)
    weights = next(roomy.glob("weights/*/Tiny"))
    assert tree(weights) == tree(heavy.here.model)
    assert {path.stat().st_nlink for path in weights.rglob("*") if path.is_file()} == {1}
    with full(roomy.parent):
        os.truncate(roomy.parent / "filler", (roomy.parent / "filler").stat().st_size - 400_000)  # for its report
        assert "nothing new" in heavy.load(heavy.root / "bundle", to=roomy)
