"""What has come of a file stays, whatever the hub says next; and a hub that asks for time gets it."""

import time
from pathlib import Path

import pytest
from tests.hubs.conftest import Bench
from tests.hubs.places import flip

from onprem_llm.errors import OnpremError, UnreachableError
from onprem_llm.weights.lock import held
from onprem_llm.weights.patience import Patience

FILE = "model-1.safetensors"


def cut_off(bench: Bench) -> Path:
    """A pull that ended with 250000 bytes of a file; return these."""
    bench.server.faults[FILE] = ["cut:250000"]
    bench.server.always[FILE] = "status:403"
    with pytest.raises(OnpremError):
        bench.pull()
    # Files that were asked for at the same time may have left parts, too, and an empty one begins like any file.
    came = {one: one.read_bytes() for one in bench.root.rglob("*.part")}
    (part,) = [one for one, data in came.items() if len(data) > 150_000 and bench.files[FILE].startswith(data)]
    bench.server.files_asked.clear()
    return part


@pytest.mark.parametrize("fault", ["html", "html-nolength", "text", "status:416", "range", "short", "norange-cut:1000"])
def test_a_bad_answer_costs_nothing_of_what_is_here(bench: Bench, fault: str) -> None:
    part = cut_off(bench)
    before = part.read_bytes()
    bench.server.always[FILE] = fault
    with pytest.raises(OnpremError, match=FILE) as raised:
        bench.pull()
    assert raised.value.hint
    assert part.read_bytes() == before
    assert not list(part.parent.glob("*.anew"))
    bench.server.always.clear()
    bench.server.files_asked.clear()
    pulled = bench.pull()
    bench.check(pulled)
    assert [one.start for one in bench.server.files_asked if FILE in one.path] == [len(before)]
    assert pulled.fetched <= len(bench.files[FILE]) - len(before) + len(bench.files["model-2.safetensors"])


def test_a_server_without_ranges_that_gets_further_is_gone_on_with(bench: Bench) -> None:
    part = cut_off(bench)
    bench.server.faults[FILE] = ["norange-cut:280000"]
    bench.server.always[FILE] = "status:403"
    with pytest.raises(OnpremError):
        bench.pull()
    assert part.read_bytes() == bench.files[FILE][: part.stat().st_size]
    assert part.stat().st_size > 250_000


def test_bytes_that_are_too_many_begin_anew(bench: Bench) -> None:
    bench.server.always["config.json"] = "nolength"
    bench.server.faults["config.json"] = ["nolength-long"]
    bench.check(bench.pull())


def test_a_window_of_requests_is_waited_for_and_is_no_try(huggingface: Bench) -> None:
    huggingface.server.faults[FILE] = ["status:429 t=0"] * 2
    began = time.monotonic()
    puller = huggingface.puller(patience=Patience(tries=2, first=0.01))
    huggingface.check(puller.pull(huggingface.source()))
    assert time.monotonic() - began >= 2


def test_a_window_that_never_opens_is_given_up(huggingface: Bench) -> None:
    huggingface.server.always["tree"] = "status:429 t=1"
    with pytest.raises(UnreachableError, match="429, and asks to wait 2 s"):
        huggingface.puller(patience=Patience(named=1)).pull(huggingface.source())


def test_a_listing_that_hangs_or_fails_is_asked_for_as_often_as_is_told(
    huggingface: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("onprem_llm.weights.hubs.huggingface.PATIENCE", 0.3)
    for fault in ("hang", "status:503"):
        huggingface.server.always["tree"] = fault
        huggingface.server.asked.clear()
        with pytest.raises(UnreachableError):
            huggingface.pull()
        asked = [one for one in huggingface.server.asked if "/tree/" in one.path]
        assert len(asked) == 2  # half as many tries as for a file
        assert "asked again in" in capfd.readouterr().err


def test_a_branch_that_moved_after_a_kill_does_not_cost_what_had_come(bench: Bench) -> None:
    part = cut_off(bench)
    there = part.stat().st_size
    bench.files["config.json"] = b'{"architectures": ["Other"]}'
    bench.server.revisions["main"] = "e" * 40
    bench.server.always.clear()
    pulled = bench.pull()
    bench.check(pulled)
    asked = [one for one in bench.server.files_asked if FILE in one.path]
    assert [one.start for one in asked] == [there]
    (note,) = [text for text in pulled.notes if "cut off" in text]
    assert str(part.parent.parent) in note
    assert "weights prune" in note


def test_verified_files_of_a_cut_off_pull_are_linked(bench: Bench) -> None:
    bench.server.always["model-2.safetensors"] = "status:404"
    puller = bench.puller()
    puller.workers = 1  # the largest file comes first
    with pytest.raises(OnpremError):
        puller.pull(bench.source())
    (other,) = [path for path in bench.root.rglob("model-1.safetensors") if ".partial" in str(path)]
    bench.server.always.clear()
    bench.server.files_asked.clear()
    pulled = bench.pull(include=("*.json", "*.safetensors"))
    assert not [one for one in bench.server.files_asked if FILE in one.path]
    assert other.samefile(pulled.entry.weights() / FILE)


def test_a_damaged_file_of_another_commit_does_not_cost_what_had_come(bench: Bench) -> None:
    first = bench.pull()
    flip(first)
    bench.files["config.json"] = b'{"architectures": ["Other"]}'
    bench.server.revisions["main"] = "e" * 40
    part = cut_off(bench)
    there = part.stat().st_size
    bench.server.always.clear()
    bench.check(bench.pull())
    assert [one.start for one in bench.server.files_asked if FILE in one.path] == [there]


def test_what_a_pull_at_work_has_is_left_to_it(bench: Bench) -> None:
    part = cut_off(bench)
    (entry,) = bench.store.entries()
    bench.server.always.clear()
    with held(entry.lock, "x"):
        pulled = bench.pull(include=("*.json", "*.safetensors"))
    assert part.exists()
    assert not [text for text in pulled.notes if "cut off" in text]
