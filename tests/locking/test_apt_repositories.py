"""Repositories beside a system's archive, through the real apt: NVIDIA's, on a stand-in mirror with a stand-in key."""

import functools
import hashlib
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.made_rpms import Key

from onprem_llm.errors import InvalidError
from onprem_llm.locking import apt_root, repositories
from onprem_llm.locking.packages import APT_ARCHIVES, Packages, Release
from onprem_llm.locking.repositories import REPOSITORIES, System

NOBLE = System("ubuntu", "24.04", "noble", "amd64")
PACKAGE = "nvidia-driver-cuda"


@dataclass(frozen=True)
class Mirror:
    """A mirror of NVIDIA's repository for Ubuntu 24.04, and who signs it."""

    address: str
    folder: Path
    key: Key
    fingerprint: str


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    folder = tmp_path_factory.mktemp("mirror")
    key = Key(tmp_path_factory.mktemp("keyring") / "home").make()
    tree = folder / "cuda/ubuntu2404/x86_64"
    (tree / "work/DEBIAN").mkdir(parents=True)
    control = f"Package: {PACKAGE}\nVersion: 580.95.05-1\nArchitecture: amd64\nMaintainer: us <us@example.com>\n"
    control += "Description: stand-in\n"
    (tree / "work/DEBIAN/control").write_text(control)
    deb = tree / f"{PACKAGE}_580.95.05-1_amd64.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(tree / "work"), str(deb)], check=True, stdout=-3)
    data = deb.read_bytes()
    index = f"{control}Filename: ./{deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    (tree / "Packages").write_text(index)
    sums = f"{hashlib.sha256(index.encode()).hexdigest()} {len(index)} Packages"
    (tree / "Release").write_text(f"Origin: NVIDIA\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {sums}\n")
    key.gpg("--clearsign", "--output", str(tree / "InRelease"), str(tree / "Release"))
    (tree / "3bf863cc.pub").write_bytes(key.public.read_bytes())

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (fingerprint,) = repositories.fingerprints(key.public.read_bytes())
        yield Mirror(f"http://127.0.0.1:{server.server_port}/cuda", folder, key, fingerprint)
        server.shutdown()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(tmp_path / "cache"))


def root_of(mirror: Mirror, folder: Path, given: dict[str, str]) -> apt_root.AptRoot:
    """Return an apt that has this repository alone."""
    cuda = REPOSITORIES["cuda"]
    key = repositories.key_file(cuda, NOBLE, mirror.address, given, folder / "keys")
    root = apt_root.AptRoot(folder / "apt", "ubuntu 24.04 (amd64)")
    root.prepare("amd64", repositories.apt_paragraph(cuda, NOBLE, mirror.address, key))
    return root


def test_what_the_given_key_signs_is_offered(mirror: Mirror, tmp_path: Path) -> None:
    root = root_of(mirror, tmp_path, {"cuda": str(mirror.key.public)})
    root.update()
    assert "Candidate: 580.95.05-1" in root.run(["apt-cache", "policy", PACKAGE], "a driver")


def test_the_mirrors_key_is_taken_where_its_fingerprint_is_known(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidError, match=f"found {mirror.fingerprint}, expected EB693B3035CD5710") as raised:
        root_of(mirror, tmp_path, {})
    assert "--package-key cuda=FILE" in (raised.value.hint or "")
    known = replace(REPOSITORIES["cuda"], fingerprints=(mirror.fingerprint,))
    monkeypatch.setitem(REPOSITORIES, "cuda", known)
    root_of(mirror, tmp_path, {}).update()


def test_what_another_signed_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    stranger = Key(tmp_path / "stranger").make()
    root = root_of(mirror, tmp_path, {"cuda": str(stranger.public)})
    with pytest.raises(InvalidError) as raised:
        root.update()
    assert "not signed" in (raised.value.details or "") or "signatures" in (raised.value.details or "")


def test_a_mirror_without_a_key_is_told(tmp_path: Path) -> None:
    cuda = REPOSITORIES["cuda"]
    with pytest.raises(InvalidError, match=r"http://127\.0\.0\.1:9/cuda/ubuntu2404/x86_64/3bf863cc\.pub: no key"):
        repositories.key_file(cuda, NOBLE, "http://127.0.0.1:9/cuda", {}, tmp_path)


def test_a_locks_apt_has_the_repositories_that_are_named(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the archive, with its key; those of the RHEL family have nothing for it."""
    written: list[str] = []
    monkeypatch.setattr(apt_root.AptRoot, "prepare", lambda _, architecture, sources: written.append(sources))
    keys = {"cuda": str(mirror.key.public), "ubuntu": str(mirror.key.public)}
    mirrors = {"ubuntu": "http://m/ubuntu", "cuda": mirror.address, "rocky": "http://m/rocky"}
    with Packages(mirrors, keys=keys)._root(Release("ubuntu", "24.04", "noble", "amd64", ()), with_driver=True):
        pass
    (text,) = written
    assert f"URIs: {mirror.address}/ubuntu2404/x86_64/\nSuites: /\nSigned-By: {mirror.key.public}\n" in text
    assert "URIs: http://m/ubuntu\n" in text
    assert text.count(f"Signed-By: {mirror.key.public}") == 2
    assert "rocky" not in text


@pytest.mark.parametrize(
    ("system", "address"),
    [
        (NOBLE, "m/ubuntu2404/x86_64/3bf863cc.pub"),
        (System("debian", "12", "bookworm", "amd64"), "m/debian12/x86_64/3bf863cc.pub"),
        (System("debian", "13", "trixie", "amd64"), "m/debian13/x86_64/8793F200.pub"),
        (System("rocky", "9.6", "", "arm64"), "m/rhel9/sbsa/D42D0685.pub"),
    ],
)
def test_each_system_has_its_folder_and_key(system: System, address: str) -> None:
    cuda = REPOSITORIES["cuda"]
    pattern = cuda.dnf_key if system.os == "rocky" else cuda.apt_key
    assert f"m/{pattern.format_map(system.words)}" == address


def test_the_command_line_knows_every_repository() -> None:
    from onprem_llm.commands.lock import MIRRORS

    assert set(MIRRORS) == {*APT_ARCHIVES, *REPOSITORIES}
