"""Pulls through the real client packages, from hubs that behave."""

from tests.hubs.conftest import WANTED, Bench


def test_a_pull_brings_what_is_safe_and_verifies_it(bench: Bench) -> None:
    pulled = bench.pull()
    bench.check(pulled)
    assert pulled.fetched == sum(len(bench.files[path]) for path in WANTED)
    assert pulled.manifest.commit_is == ("commit" if bench.name == "huggingface" else "listing")
    assert any("pickled weights" in note and "pytorch_model.bin" in note for note in pulled.notes)
    assert any("convert.py" in note for note in pulled.notes)


def test_a_second_pull_fetches_nothing(bench: Bench) -> None:
    bench.pull()
    before = len(bench.server.files_asked)
    again = bench.pull()
    assert again.fetched == 0
    assert len(bench.server.files_asked) == before
    bench.check(again)
