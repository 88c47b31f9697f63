"""Mirrors that want an account: the real apt signs in, and what everybody on the host may read has none."""

import base64
import functools
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from tests.offline.apt_host import Host, Repository
from tests.unit.bootstrap.conftest import role_module  # noqa: F401 - a fixture
from tests.unit.nvidia_toolkit.conftest import toolkit  # noqa: F401 - a fixture

from onprem_llm.locking.repositories import fingerprints

# Each folder has an account of its own; one begins as another does, one is inside another.
ACCOUNTS = {"tool": "us:s3cret/@'\"#;$basearch=%", "tool-more": "them:0ther", "tool/inner": "token:"}


@dataclass
class Guarded:
    """A server that shows a folder to who signs in for it; `refused`: what somebody asked for with another account."""

    folder: Path
    port: int = 0
    refused: list[str] = field(default_factory=list)

    def address(self, name: str) -> str:
        """The mirror's address as a site writes it."""
        user, _, password = ACCOUNTS[name].partition(":")
        account = f"{user}:{urllib.parse.quote(password, safe='')}" if password else user
        return f"http://{account}@127.0.0.1:{self.port}/{name}"


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    made = Guarded(tmp_path / "mirror")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            name = max((one for one in ACCOUNTS if self.path.startswith(f"/{one}/")), key=len)
            wanted = "Basic " + base64.b64encode(ACCOUNTS[name].encode()).decode()
            if self.headers.get("Authorization") == wanted:
                super().do_GET()
            else:
                made.refused.append(self.path)
                self.send_error(401)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(made.folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        made.port = server.server_port
        yield made
        server.shutdown()


def public(root: Path) -> Iterator[Path]:
    """Yield the files of a host that others than root may read."""
    yield from (path for path in root.rglob("*") if path.is_file() and path.stat().st_mode & 0o044)


def test_a_role_installs_from_a_mirror_with_an_account(
    guarded: Guarded,
    host: Host,
    toolkit: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Repository(tmp_path / "site")
    (made.folder / "pool").mkdir(parents=True)
    names = toolkit.packages.NAMES
    made._index("\n".join(made._package(name, "1.18.2-1", "") for name in names))
    made.sign()
    tree = guarded.folder / "tool/stable/deb/amd64"
    tree.parent.mkdir(parents=True)
    made.folder.rename(tree)
    (guarded.folder / "tool/gpgkey").write_bytes((tree / "key.asc").read_bytes())
    hands = toolkit.hands
    monkeypatch.setattr(hands.record, "RECORD", tmp_path / "bootstrap.json")
    monkeypatch.setattr(hands.sources, "APT_SOURCES", host.root / "etc/apt/sources.list.d/ours.sources")
    monkeypatch.setattr(hands.sources, "APT_KEY", host.root / "etc/apt/keyrings/ours.asc")
    known = fingerprints((tree / "key.asc").read_bytes())
    options = {"source": None, "mirrors": {hands.MIRROR: guarded.address("tool")}, "fingerprints": sorted(known)}
    apt = hands.Apt("x86_64", options)
    apt.prepare()
    assert apt.offered() == {name: ["1.18.2-1"] for name in names}
    apt.install(toolkit.packages.chosen(apt.offered(), None))
    assert set(host.installed()) == set(names)
    account = host.root / "etc/apt/auth.conf.d/00-onprem-llm.conf"
    assert account.stat().st_mode & 0o777 == 0o600
    assert [str(path) for path in public(host.root) if b"s3cret" in path.read_bytes()] == []
    assert str(account) in hands.record.load()["absent"]
    assert guarded.refused == []


def test_each_of_a_servers_folders_has_its_own_account(
    guarded: Guarded,
    host: Host,
    role_module: Callable[[str], ModuleType],  # noqa: F811
    tmp_path: Path,
) -> None:
    source, apt = role_module("onprem_llm_package_source"), role_module("onprem_llm_apt")
    paragraphs = []
    for number, name in enumerate(ACCOUNTS):
        made = Repository(tmp_path / "site", name)
        (made.folder / "pool").mkdir(parents=True)
        made._index(made._package(f"onprem-llm-{number}", "1.0", ""))
        made.sign()
        (guarded.folder / name).parent.mkdir(parents=True, exist_ok=True)
        made.folder.rename(guarded.folder / name)
        address, key = guarded.address(name), guarded.folder / name / "key.asc"
        paragraphs.append(f"Types: deb\nURIs: {address}/\nSuites: /\nSigned-By: {key}\n")
    host.source.unlink(missing_ok=True)
    # A file for each, as each role has its own; the host's entry for the whole server is another one's.
    sources = [host.source.with_name(f"ours{number}.sources") for number in range(len(paragraphs))]
    assert [source.write_apt(*each) for each in zip(sources, paragraphs, strict=True)] == [True] * len(sources)
    source.auth_of(host.source).with_name("mirror.conf").write_text(
        f"machine http://127.0.0.1:{guarded.port} login host password own\n"
    )
    apt.refresh()
    names = [f"onprem-llm-{number}" for number in range(len(ACCOUNTS))]
    assert [policy.candidate for policy in apt.policies(names).values()] == ["1.0"] * len(names)
    assert guarded.refused == []
