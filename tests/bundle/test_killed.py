"""kill -9 in each phase: what is left is never called whole, and the next run goes on. Two at once; Ctrl-C."""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.bundle.kit import MB, Bench, Connected, tree, weights_files

Reached = Callable[[], bool]


@pytest.fixture
def heavy(bench: Bench, tmp_path: Path) -> Bench:
    """A machine whose weights take a while."""
    return Bench(tmp_path, Connected(tmp_path / "here", weights=weights_files(10 * MB)).make(), bench.keys)


def kill_when(process: subprocess.Popen[str], reached: Reached) -> bool:
    """Kill it once something is so; tell whether it was killed before it ended."""
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if reached():
            process.kill()
            break
    process.wait(timeout=60)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def blobs(folder: Path, count: int) -> Reached:
    return lambda: sum(1 for _ in folder.glob("**/blobs/sha256/*")) >= count


def has(folder: Path, pattern: str) -> Reached:
    def reached() -> bool:
        # A folder may get its own name while glob looks into it.
        with contextlib.suppress(FileNotFoundError):
            return next(folder.glob(pattern), None) is not None
        return False

    return reached


def creating(bench: Bench, out: Path, *more: object) -> subprocess.Popen[str]:
    return bench.start("create", "--lock", bench.here.lock, "-o", out, "--sign-key", bench.keys.key, *more)


def loading(bench: Bench, to: Path, *folders: Path) -> subprocess.Popen[str]:
    return bench.start("load", *folders, "--to", to, "--allowed-signers", bench.keys.allowed)


def test_create_killed_again_and_again(heavy: Bench) -> None:
    heavy.create(heavy.root / "reference")
    out = heavy.root / "bundle"
    moments = [has(out, ".creating"), blobs(out, 1), has(out, "**/*.partial"), blobs(out, 8), blobs(out, 20),
               has(out, "oci-layout"), has(out, "manifest.json*")]  # fmt: skip
    killed = 0
    for reached in moments:
        if not kill_when(creating(heavy, out), reached):
            continue
        killed += 1
        if not (out / "manifest.json").exists():
            assert "its creation was cut off" in heavy.verify(out, status=3)
        elif not (out / "manifest.json.sig").exists():
            assert "unsigned" in heavy.verify(out, status=3)
    assert killed >= 4
    heavy.create(out)
    subprocess.run(["diff", "-r", heavy.root / "reference", out], check=True)
    heavy.verify(out)


def test_load_killed_again_and_again(heavy: Bench) -> None:
    bundle, site = heavy.root / "bundle", heavy.root / "site"
    heavy.create(bundle)
    heavy.load(bundle, to=heavy.root / "reference")
    moments = [has(site, "site.json"), blobs(site, 1), has(site, "**/*.partial"), blobs(site, 15),
               has(site, "weights/.*.new/**/*"), has(site, "weights/[!.]*"), has(site, "index.json"),
               has(site, "bundles/*")]  # fmt: skip
    killed = 0
    for reached in moments:
        if kill_when(loading(heavy, site, bundle), reached):
            killed += 1
            # Views have their names only once they are whole.
            for view in (site / "weights").glob("[!.]*"):
                assert tree(view / "Tiny") == tree(heavy.here.model)
    assert killed >= 4
    heavy.load(bundle, to=site)
    found, expected = tree(site), tree(heavy.root / "reference")
    # Each site has a key of its own.
    own = ("reports/", "private/", "packages/debian-13-amd64/InRelease", "packages/debian-13-amd64/key.asc")
    assert {n: s for n, s in found.items() if not n.startswith(own)} == {
        n: s for n, s in expected.items() if not n.startswith(own)
    }


def test_volumes_killed_again_and_again(heavy: Bench) -> None:
    size = ("--volume-size", "7MB")
    heavy.create(heavy.root / "reference", *size)
    out = heavy.root / "bundle"
    killed = 0
    for reached in (
        has(out, ".parts-*"),
        has(out, "vol-*/**/*.partial"),
        blobs(out, 12),
        has(out, "vol-*/manifest.json"),
    ):
        killed += kill_when(creating(heavy, out, *size), reached)
        assert heavy.run("verify", out, "--allowed-signers", heavy.keys.allowed, status=3)
    assert killed >= 2
    heavy.create(out, *size)
    subprocess.run(["diff", "-r", heavy.root / "reference", out], check=True)
    site = heavy.root / "site"
    for volume in sorted(out.iterdir(), reverse=True):
        kill_when(loading(heavy, site, volume), has(site, "**/*.parts.jsonl"))
    assert not list(site.glob("weights/[!.]*"))
    heavy.load(out, to=site)
    assert tree(next(site.glob("weights/*/Tiny"))) == tree(heavy.here.model)
    assert not [path for path in (site / "blobs" / "sha256").iterdir() if len(path.name) != 64]


def test_two_loads_at_once_and_a_dead_owner(heavy: Bench) -> None:
    bundle, site = heavy.root / "bundle", heavy.root / "site"
    heavy.create(bundle)
    first = loading(heavy, site, bundle)
    while not (site / "site.json").exists():
        assert first.poll() is None
    # It stands still with the lock in its hands, as one on a slow disk.
    first.send_signal(signal.SIGSTOP)
    said = heavy.load(bundle, to=site, status=6)
    assert f"process {first.pid} of " in said
    assert "is at it now" in said
    first.kill()
    first.wait()
    first.communicate()
    heavy.load(bundle, to=site)


def test_two_creates_at_once(heavy: Bench) -> None:
    out = heavy.root / "bundle"
    first = creating(heavy, out)
    while not (out / ".creating").exists():
        assert first.poll() is None
    first.send_signal(signal.SIGSTOP)
    assert f"process {first.pid} of " in heavy.create(out, status=6)
    first.send_signal(signal.SIGCONT)
    assert first.wait(timeout=60) == 0
    first.communicate()
    heavy.verify(out)


def test_ctrl_c_ends_at_once(heavy: Bench) -> None:
    out = heavy.root / "bundle"
    process = creating(heavy, out)
    while not blobs(out, 1)():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) in {130, 0}
    assert "Traceback" not in process.communicate()[1]
    heavy.create(out)
    heavy.verify(out)


def test_the_beginning_of_another_bundle_is_not_mixed_in(heavy: Bench) -> None:
    out = heavy.root / "bundle"
    assert kill_when(creating(heavy, out), blobs(out, 3))
    lock = json.loads(heavy.here.lock.read_bytes())
    lock["expires"] = "2030-01-01"
    from onprem_llm.spec.lock import Lock

    heavy.here.lock.write_bytes(Lock.model_validate_json(json.dumps(lock)).data)
    assert "holds the beginning of another bundle" in heavy.create(out, status=6)
