"""Hubs that are slow, cut off, lie or refuse: an honest error or the right bytes, never wrong ones that look right."""

import time
from pathlib import Path

import pytest
from tests.hubs.answers import SIGNATURE
from tests.hubs.conftest import SECRETS, Bench

from onprem_llm.errors import InvalidError, OnpremError, UnreachableError
from onprem_llm.weights.lock import held
from onprem_llm.weights.patience import Patience

FILE = "model-1.safetensors"


def fails(bench: Bench, kind: type[OnpremError] = OnpremError, **more: tuple[str, ...]) -> str:
    """The pull ends with such an error, and nothing that is not verified has a final name."""
    with pytest.raises(kind) as raised:
        bench.pull(**more)
    assert not [entry for entry in bench.store.entries() if entry.complete]
    assert raised.value.hint
    return raised.value.message


def left(bench: Bench) -> set[str]:
    """What is verified of a pull that failed."""
    (entry,) = bench.store.entries()
    return {path.name for path in (entry.partial / "Tiny").rglob("*") if path.is_file()}


def starts(bench: Bench) -> list[int]:
    """At which bytes the file was asked for."""
    return [one.start for one in bench.server.files_asked if FILE in one.path]


def test_a_cut_connection_is_taken_up_where_it_broke(bench: Bench) -> None:
    bench.server.faults[FILE] = ["cut:100000", "cut:70000", "cut:0"]
    bench.check(bench.pull())
    assert starts(bench)[0] == 0
    # A client may lose what it had buffered, but little of it.
    assert all(at > 30_000 for at in starts(bench)[1:])
    assert starts(bench) == sorted(starts(bench))


def test_a_server_that_ignores_ranges_begins_anew(bench: Bench) -> None:
    bench.server.faults[FILE] = ["cut:100000", "norange"]
    bench.check(bench.pull())


def test_a_server_that_sends_less_than_the_range_is_asked_again(bench: Bench) -> None:
    bench.server.faults[FILE] = ["cut:100000"]
    bench.server.always[FILE] = "capped:60000"
    bench.check(bench.pull())
    assert len(starts(bench)) >= 4


def test_a_connection_that_always_breaks_at_the_same_byte_is_given_up(bench: Bench) -> None:
    bench.server.always[FILE] = "norange-cut:100000"
    said = fails(bench)
    assert FILE in said
    assert "are here" in said


def test_a_body_without_a_length_is_read_to_its_end(bench: Bench) -> None:
    bench.server.always.update(dict.fromkeys(bench.files, "nolength"))
    bench.check(bench.pull())


@pytest.mark.parametrize("fault", ["wrong", "short", "long", "html"])
def test_a_lie_is_asked_about_once_more(bench: Bench, fault: str) -> None:
    bench.server.faults[FILE] = [fault]
    bench.check(bench.pull())


@pytest.mark.parametrize(
    ("fault", "found"),
    [("wrong", "found sha256 "), ("short", "{short} bytes"), ("long", "{long} bytes"), ("html", "a web page")],
)
def test_a_lie_told_twice_is_named(bench: Bench, fault: str, found: str) -> None:
    bench.server.always[FILE] = fault
    size = len(bench.files[FILE])
    said = fails(bench)
    assert FILE in said
    assert found.format(short=size - 3, long=size + 4) in said
    assert "expected" in said
    assert FILE not in left(bench)
    # The hub mends its file: only that one is fetched.
    bench.server.always.clear()
    pulled = bench.pull()
    bench.check(pulled)
    assert pulled.fetched <= len(bench.files[FILE]) + len(bench.files["model-2.safetensors"])


def test_a_small_file_is_checked_too(bench: Bench) -> None:
    bench.server.always["config.json"] = "wrong"
    said = fails(bench)
    assert "config.json" in said
    assert ("git's sha1" if bench.name == "huggingface" else "sha256") in said


def test_too_many_requests_wait_as_long_as_the_hub_asks(bench: Bench) -> None:
    bench.server.faults[FILE] = ["status:429 1"]
    began = time.monotonic()
    bench.check(bench.pull())
    assert time.monotonic() - began >= 1


def test_a_hub_that_asks_for_too_much_patience_is_named(bench: Bench) -> None:
    bench.server.always[FILE] = "status:429 3600"
    said = fails(bench)
    assert "429" in said
    assert "3600 s" in said


@pytest.mark.parametrize("status", [401, 403])
def test_refused_access_names_the_token(bench: Bench, status: int) -> None:
    bench.server.always["tree"] = f"status:{status} GatedRepo"
    with pytest.raises(UnreachableError) as raised:
        bench.pull()
    assert str(status) in raised.value.message
    assert ("HF_TOKEN" if bench.name == "huggingface" else "MODELSCOPE_API_TOKEN") in str(raised.value.hint)


def test_a_file_that_is_gone_is_named(bench: Bench) -> None:
    bench.server.always[FILE] = "status:404"
    assert FILE in fails(bench, InvalidError)


def test_a_server_error_is_tried_again(bench: Bench) -> None:
    bench.server.faults[FILE] = ["status:503", "status:500"]
    bench.server.faults["info" if bench.name == "huggingface" else "tree"] = ["status:502"]
    bench.check(bench.pull())


def test_a_login_page_is_no_listing(bench: Bench) -> None:
    bench.server.always["tree"] = "html"
    assert "protocol" in fails(bench)


def test_nobody_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(name, "http://user:hidden@127.0.0.1:9")
    said = fails(bench, UnreachableError)
    assert "127.0.0.1:9" in said
    assert "hidden" not in said


@pytest.mark.parametrize("address", ["http://", "ftp://hub.local", "http://hub.local\n", "http://a b"])
def test_an_address_that_is_none(bench: Bench, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = "HF_ENDPOINT" if bench.name == "huggingface" else "MODELSCOPE_ENDPOINT"
    monkeypatch.setenv(variable, address)
    assert f"{variable}: found" in fails(bench, InvalidError)


def test_a_hung_connection_is_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    if bench.name == "modelscope":
        bench.puller().hubs("modelscope")
        monkeypatch.setattr("modelscope_hub._legacy_api.DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr("onprem_llm.weights.hubs.huggingface.PATIENCE", 1.0)
    bench.server.faults[FILE] = ["hang:5000"]
    bench.check(bench.pull())


@pytest.mark.parametrize(
    "path", ["../evil.json", "/etc/evil.json", "a\\..\\evil.json", "a/../../evil.json", "evil\x1b[2J.json", "a//b.json"]
)
def test_paths_that_leave_the_folder_are_refused(bench: Bench, path: str, tmp_path: Path) -> None:
    entry = {"type": "file", "path": path, "size": 2, "oid": "0" * 40}
    theirs = {"Path": path, "Type": "blob", "Size": 2, "Sha256": "0" * 64}
    bench.server.more = [entry if bench.name == "huggingface" else theirs]
    said = fails(bench, InvalidError)
    assert repr(path) in said
    assert not list(tmp_path.rglob("*evil*"))


def test_no_token_reaches_another_host_a_manifest_or_the_disk(bench: Bench, tmp_path: Path) -> None:
    bench.pull()
    secret = SECRETS["HF_TOKEN" if bench.name == "huggingface" else "MODELSCOPE_API_TOKEN"]
    hub = [one for one in bench.server.asked if one.host.startswith("127.0.0.1")]
    elsewhere = [one for one in bench.server.asked if not one.host.startswith("127.0.0.1")]
    assert all(secret in one.authorization for one in hub)
    assert elsewhere
    assert not [one for one in elsewhere if one.authorization or secret in one.cookie]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(value.encode() in content for value in (*SECRETS.values(), SIGNATURE)), path


def test_the_home_folder_stays_empty_and_nobody_else_is_called(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever is called over TLS is called through this proxy, which answers nobody.
    monkeypatch.setenv("https_proxy", bench.server.url)
    process = bench.command("pull", str(bench.source()))
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert bench.server.called == []
    assert not list((tmp_path / "home").iterdir())


def test_no_signed_address_is_told(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.server.always[FILE] = "status:500"
    said = fails(bench)
    seen = capfd.readouterr()
    assert SIGNATURE not in said + seen.out + seen.err


def test_files_come_in_parallel_but_not_more_than_asked(bench: Bench) -> None:
    bench.files.update({f"model-{n}.safetensors": bench.files[FILE] for n in range(3, 12)})
    bench.server.always.update({f"model-{n}.safetensors": "slow:3000000" for n in range(12)})
    bench.pull()
    assert bench.server.most_at_once == 4


def test_a_file_that_changes_while_it_is_pulled_is_refused(modelscope: Bench) -> None:
    puller = modelscope.puller()
    hub = puller.hubs("modelscope")
    listing = hub.listing("owner/Tiny", "master")
    modelscope.files[FILE] = bytes(len(modelscope.files[FILE]))
    hub.listing = lambda identity, revision: listing  # type: ignore[method-assign]
    puller.hubs = lambda name: hub
    with pytest.raises(OnpremError, match="is not the file that it lists"):
        puller.pull(modelscope.source())


def test_a_hub_without_hashes_is_not_trusted_with_weights(modelscope: Bench) -> None:
    modelscope.server.hashless = True
    assert "no hash" in fails(modelscope, InvalidError)


def test_two_pulls_of_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onprem_llm.weights.lock.TRIES", 2)
    pulled = bench.pull()
    with held(pulled.entry.lock, "x"), pytest.raises(OnpremError, match="is at it now") as raised:
        bench.pull()
    assert raised.value.exit_code == 6
    bench.check(bench.pull())


def test_patience_grows(bench: Bench) -> None:
    bench.server.faults["info" if bench.name == "huggingface" else "tree"] = ["status:503"] * 2
    began = time.monotonic()
    bench.puller(patience=Patience(tries=6, first=0.05)).pull(bench.source())
    assert time.monotonic() - began >= 0.3
