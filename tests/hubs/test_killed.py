"""A pull that is killed, interrupted or out of disk: what has come stays, and the next run goes on."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hubs.conftest import WANTED, Bench

from onprem_llm.output import human_bytes

FILE = "model-1.safetensors"
# Chosen so that a kill comes before, in and after the large files.
MOMENTS = (0.02, 0.3, 0.55, 0.8)


def parts(bench: Bench) -> int:
    """Bytes that are on the disk of a pull, verified or not."""
    return sum(path.stat().st_size for path in bench.root.rglob("*.partial/**/*") if path.is_file())


def slow(bench: Bench, rate: int = 300_000) -> None:
    bench.server.always.update({FILE: f"slow:{rate}", "model-2.safetensors": f"slow:{rate}"})


def wait_for(bench: Bench, size: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 20
    while parts(bench) < size and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)


def test_killed_again_and_again(bench: Bench) -> None:
    slow(bench)
    whole = sum(len(bench.files[path]) for path in WANTED)
    for moment in MOMENTS:
        process = bench.command("pull", str(bench.source()))
        wait_for(bench, int(whole * moment), process)
        process.kill()
        process.wait()
        assert not [entry for entry in bench.store.entries() if entry.complete]
    bench.server.always.clear()
    came = parts(bench)
    pulled = bench.pull()
    bench.check(pulled)
    assert pulled.fetched <= whole - int(whole * 0.7), (pulled.fetched, came)
    # Every byte came once, but for what a client had in its hands.
    asked = [one for one in bench.server.files_asked if FILE in one.path]
    assert [one.start for one in asked] == sorted(one.start for one in asked)


def test_ctrl_c_ends_at_once_and_leaves_a_part(huggingface: Bench) -> None:
    slow(huggingface, 50_000)
    process = huggingface.command("pull", str(huggingface.source()))
    wait_for(huggingface, 60_000, process)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert process.wait(timeout=10) == 130
    assert time.monotonic() - began < 4
    assert "Interrupted" in process.communicate()[1]
    assert parts(huggingface) >= 50_000
    huggingface.server.always.clear()
    huggingface.check(huggingface.pull())


def test_a_second_pull_meanwhile_is_refused_and_names_the_first(huggingface: Bench) -> None:
    slow(huggingface, 5_000)  # It is killed below, long before its end.
    first = huggingface.command("pull", str(huggingface.source()))
    wait_for(huggingface, 1_000, first)
    second = huggingface.command("pull", str(huggingface.source()))
    _, said = second.communicate(timeout=20)
    assert second.returncode == 6
    assert f"process {first.pid} of " in said
    pruned = huggingface.command("prune", "--all", "--yes")
    out, said = pruned.communicate(timeout=20)
    assert "is being pulled or sent now: left as it is" in said
    assert "Nothing to remove" in out
    # Its owner dies, and with it the lock.
    first.kill()
    first.wait()
    huggingface.server.always.clear()
    huggingface.check(huggingface.pull())


def test_tokens_are_in_no_output_and_in_no_command_line(bench: Bench) -> None:
    slow(bench, 600_000)
    process = bench.command("pull", str(bench.source()), "--json")
    wait_for(bench, 20_000, process)
    line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    out, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert json.loads(out)["pulled"][0]["files"] == len(WANTED)
    assert b"secret" not in line
    assert "secret" not in out + said


def test_a_token_that_hugging_faces_own_login_stored_counts(
    huggingface: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    stored = tmp_path / "home" / "cache" / "huggingface" / "token"
    stored.parent.mkdir(parents=True)
    stored.write_text("hf_stored\n")
    process = huggingface.command("pull", str(huggingface.source()))
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert huggingface.server.asked[0].authorization == "Bearer hf_stored"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 400 kB."""
    folder = tmp_path / "store"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small_is_said_before_anything_comes(huggingface: Bench, small_disk: Path) -> None:
    process = huggingface.command("pull", str(huggingface.source()))
    _, said = process.communicate(timeout=20)
    assert process.returncode == 3, said
    size = human_bytes(sum(len(huggingface.files[path]) for path in WANTED))
    assert f"{size} are to come" in said
    assert "are free in" in said
    assert not huggingface.server.files_asked


def test_a_disk_that_fills_up_meanwhile(huggingface: Bench, small_disk: Path) -> None:
    small = (f"--exclude={FILE}",)
    huggingface.server.faults["model-2.safetensors"] = ["slow:200000"]
    process = huggingface.command("pull", str(huggingface.source()), *small)
    wait_for(huggingface, 50_000, process)
    room = small_disk / "someone-elses"
    with pytest.raises(OSError, match="No space"):
        room.write_bytes(bytes(400_000))
    _, said = process.communicate(timeout=20)
    assert process.returncode == 5, said
    assert "the disk is full" in said
    room.unlink()
    again = huggingface.command("pull", str(huggingface.source()), *small, "--json")
    out, said = again.communicate(timeout=20)
    assert again.returncode == 0, said
    assert json.loads(out)["pulled"][0]["fetched"] < 180_000
