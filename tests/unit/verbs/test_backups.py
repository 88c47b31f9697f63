"""A backup on its way from the host: what is not whole gets no name."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onprem_llm import backups
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError, UnreachableError
from onprem_llm.output import PlainProgress
from onprem_llm.run_events import RunResult
from onprem_llm.spec.site import Site
from onprem_llm.ssh import Route

SENT = b"as it was saved"
HERE = Connection(Path("inventory.ini"))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand for the host: `data` is what arrives of it, `rm` what its removal there raises."""
    saved = {"size": len(SENT), "sha256": hashlib.sha256(SENT).hexdigest()}
    state: dict[str, Any] = {"data": SENT, "rm": None}

    def stream(route: Route, argv: list[str]) -> Iterator[bytes]:
        if argv[0] == "rm" and state["rm"]:
            raise state["rm"]
        yield from [state["data"]] if argv[0] == "cat" else []

    monkeypatch.setattr(backups, "run", lambda *_, **__: RunResult(("h",), {"h": {"backup": saved}}, {}, ()))
    monkeypatch.setattr(backups, "routes", lambda *_: {"h": Route("h", True, "h", None, None, None, ())})
    monkeypatch.setattr(backups, "stream_route", stream)
    return state


def test_one_that_changed_on_its_way_leaves_no_file(host: dict[str, Any], tmp_path: Path) -> None:
    host["data"] = SENT[:-1]
    with pytest.raises(OnpremError, match=r"found 14 bytes of sha256 .*, expected 15 of"):
        backups.make("h", Site(), tmp_path / "b.tar.gz", HERE, PlainProgress())
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_removed_there_is_said_and_hides_nothing(
    host: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host["rm"] = UnreachableError("h: ssh could not connect")
    with pytest.raises(InvalidError, match="no backup that can be read"):  # SENT is no archive
        backups.make("h", Site(), tmp_path / "b.tar.gz", HERE, PlainProgress())
    assert "/srv/onprem-llm/backup, which holds keys, could not be removed: h: ssh" in capsys.readouterr().err
