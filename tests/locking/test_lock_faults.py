"""`onprem-llm lock` killed and with a full disk: nothing half-done, and the next run goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onprem_llm.errors import OnpremError
from onprem_llm.spec.lock import read_lock

from .registry import Registry
from .site import Site, made
from .test_images import saved


@pytest.fixture
def site(tmp_path: Path, registry: Registry, cache: Path) -> Site:
    return made(tmp_path / "site", registry)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache on a file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file systems can be mounted here")
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(folder / "cache"))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_the_next_run_goes_on(
    site: Site, small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = site.folder / "images"
    images.mkdir()
    saved(images / "gateway.tar", tag="onprem-llm/gateway:1", text="much " * 100)
    model, more = site.model(), ("--images-dir", str(images))
    with pytest.raises(OnpremError, match=r"cache/blobs/sha256: cannot be written: No space left on device") as raised:
        site.lock(model, more=more)
    assert "ONPREM_LLM_CACHE" in (raised.value.hint or "")
    assert not site.out.exists()
    assert not list((small / "cache/blobs").rglob(".*"))
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(tmp_path / "cache"))
    assert site.lock(model, more=more) == read_lock(site.out)


def test_a_full_disk_for_the_lock_itself(site: Site, small: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(cache))
    out = small / "onprem-llm.lock"
    out.write_text("the one before")
    with (small / "filler").open("wb") as filler:
        subprocess.run(["head", "-c", "1M", "/dev/zero"], stdout=filler, stderr=subprocess.DEVNULL, check=False)
    with pytest.raises(OSError, match=r"No space left on device: .*onprem-llm\.lock"):
        site.lock(site.model(), more=("-o", str(out)))
    assert out.read_text() == "the one before"


def test_killed_while_packages_are_asked_for(site: Site, cache: Path) -> None:
    """The lock of before stays, and who held apt's folder holds nobody up."""
    lock = site.lock(site.model())
    before = site.out.read_bytes()
    words = site.words(site.folder / "tiny.yaml", skip=("wheels",))
    script = "from onprem_llm.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    end = time.monotonic() + 60
    while not list(cache.glob("apt/*/var/lib/apt/lists")) and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert site.out.read_bytes() == before
    again = site.lock(site.folder / "tiny.yaml", skip=("wheels",))
    assert again.images == lock.images
    assert len(again.packages[0].files) > 50
