"""Packages as a bundle brings them, with the real apt-get: signed, and with no mirror in reach."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Protocol

import pytest
from tests.offline.apt_host import Host, Repository
from tests.unit.bootstrap.conftest import role_module  # noqa: F401 - a fixture

from onprem_llm.errors import InvalidError
from onprem_llm.package_signing import site_key

TOOL = {"onprem-llm-part": "onprem-llm-part 1.0\n", "onprem-llm-tool": "onprem-llm-tool 1.0\n"}
Place = Callable[[], None]


@pytest.fixture
def placed(repository: Repository, host: Host, role_module: Callable[[str], ModuleType]) -> Place:  # noqa: F811
    """The host with what the role puts there; a call puts what the repository has become."""
    module = role_module("package_repository")

    def place() -> None:
        host.place(repository, module)

    place()
    return place


class Install(Protocol):
    """What bootstrap installs on a host; without `source` it was not told of the packages."""

    def __call__(self, host: Host, source: bool = True) -> list[str]: ...


@pytest.fixture
def install(role_module: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:  # noqa: F811
    """What bootstrap does with order.packages, once the role has run."""
    module = role_module("container_engine_packages")
    monkeypatch.setattr(module.record, "RECORD", tmp_path / "bootstrap.json")

    def run(host: Host, source: bool = True) -> list[str]:
        options = {"mirrors": {}, "extra": ["onprem-llm-tool"], "engine": False}
        found: list[str] = module.by_apt({**options, "source": str(host.source) if source else None}, False)
        return found

    return run


def test_packages_are_installed_and_nobody_else_is_asked(repository: Repository, host: Host, install: Install) -> None:
    host.role(repository)
    lists = sorted((host.root / "var/lib/apt/lists").rglob("*"))

    assert install(host) == ["onprem-llm-tool"]

    assert host.installed() == TOOL
    assert host.mirror.asked == 0
    assert sorted((host.root / "var/lib/apt/lists").rglob("*")) == lists
    assert install(host) == []


def test_without_the_source_the_mirror_is_asked_and_nothing_is_had(
    repository: Repository, host: Host, install: Install
) -> None:
    """That the test above could fail: the same host, where bootstrap was not told of the packages."""
    host.source.parent.mkdir(exist_ok=True)
    assert install(host, False) == []
    assert host.mirror.asked
    assert host.installed() == {}


def test_a_second_run_sends_nothing_and_damage_is_mended(repository: Repository, host: Host) -> None:
    assert host.role(repository) == 2
    assert host.role(repository) == 0

    tool = host.packages / "pool/onprem-llm-tool_1.0_all.deb"
    tool.write_bytes(tool.read_bytes()[:-1] + b"x")
    (host.packages / "pool/left-over_1.0_all.deb").write_text("from an older bundle")
    link = host.packages / "key.asc"
    link.unlink()
    link.symlink_to("/etc/hostname")

    assert host.role(repository) == 2
    for one in repository.files():
        assert (host.packages / one["path"]).read_bytes() == (repository.folder / one["path"]).read_bytes()
    assert not (host.packages / "pool/left-over_1.0_all.deb").exists()
    assert not link.is_symlink()


def test_a_later_bundle_with_the_same_dates_is_seen(
    repository: Repository, host: Host, install: Install, placed: Place
) -> None:
    install(host)
    repository.fill("2.0").sign()
    placed()
    for package in (host.root / "opt").iterdir():
        package.unlink()
    shutil.rmtree(host.root / "var/lib/dpkg/info")
    (host.root / "var/lib/dpkg/info").mkdir()
    (host.root / "var/lib/dpkg/status").write_text("")

    install(host)

    assert host.installed() == {name: text.replace("1.0", "2.0") for name, text in TOOL.items()}


def test_what_does_not_belong_there_goes_and_what_a_link_leads_to_stays(host: Host, placed: Place) -> None:
    """A host that was upgraded has its former release's packages, which nobody asks for any more."""
    whole = sorted(host.packages.rglob("*"))
    outside = host.root / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (host.packages / "pool/link").symlink_to(outside)
    (host.packages / "link").symlink_to(outside)
    (host.packages / "pool/empty/er").mkdir(parents=True)
    (host.packages / "debian-12-amd64/pool").mkdir(parents=True)
    (host.packages / "debian-12-amd64/pool/old_1_all.deb").touch()

    placed()

    assert sorted(host.packages.rglob("*")) == whole
    assert (outside / "precious").exists()


def test_a_folder_of_it_that_is_a_link_is_named(
    repository: Repository,
    host: Host,
    placed: Place,
    role_module: Callable[[str], ModuleType],  # noqa: F811
) -> None:
    (host.packages / "pool").rename(host.root / "elsewhere")
    (host.packages / "pool").symlink_to(host.root / "elsewhere")
    with pytest.raises(ValueError, match="/pool is a link, expected a folder: remove it"):
        role_module("package_repository").missing(host.packages, repository.files())


def altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def another_key(host: Host, other: Repository) -> None:
    for name in ("InRelease", "Packages"):
        shutil.copy(other.folder / name, host.packages / name)


@pytest.mark.parametrize("what", ["InRelease", "Packages", "key", "unsigned", "package"])
def test_what_was_altered_is_refused(
    repository: Repository, host: Host, install: Install, placed: Place, tmp_path: Path, what: str
) -> None:
    """Altered after it was sent, on the host: before that, its sha256 is compared."""
    if what in {"InRelease", "Packages"}:
        altered(host.packages / what)
    elif what == "key":
        another_key(host, Repository(tmp_path / "other").fill().sign())
    elif what == "unsigned":
        (host.packages / "InRelease").unlink()
        shutil.copy(repository.folder / "Release", host.packages / "Release")
    else:
        altered(host.packages / "pool/onprem-llm-tool_1.0_all.deb")

    with pytest.raises(Exception, match="Load the bundle again") as refused:
        install(host)

    assert type(refused.value).__name__ == "PackageError"
    assert host.installed() == {}


def test_the_source_names_its_key_and_never_trusts(host: Host, placed: Place) -> None:
    text = host.source.read_text()
    assert "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n" in text
    assert "trusted" not in text.lower()
    assert "PRIVATE" not in text
    assert oct(host.source.stat().st_mode & 0o777) == "0o644"


def test_removing_takes_the_source_and_the_packages_and_leaves_the_rest(repository: Repository, host: Host) -> None:
    host.role(repository)
    assert host.role(repository, "remove") == 1
    assert not host.packages.exists()
    assert list(host.source.parent.iterdir()) == []
    assert (host.root / "etc/apt/sources.list").exists()
    assert host.role(repository, "remove") == 0


def test_the_key_is_made_once_and_for_us_alone(repository: Repository, tmp_path: Path) -> None:
    key = site_key(repository.site)
    before = key.read_bytes()
    assert oct(key.stat().st_mode & 0o777) == "0o600"
    signed = (repository.folder / "InRelease").read_bytes()
    repository.sign()
    assert key.read_bytes() == before
    assert (repository.folder / "InRelease").read_bytes() == signed
    other = Repository(repository.site, "debian-12-amd64").fill().sign()
    assert (other.folder / "key.asc").read_bytes() == (repository.folder / "key.asc").read_bytes()
    assert b"PRIVATE" not in (repository.folder / "key.asc").read_bytes()


def test_a_key_that_is_none_is_named(repository: Repository) -> None:
    site_key(repository.site).write_text("nonsense")
    with pytest.raises(InvalidError, match=r"private/packages\.pgp: this is no OpenPGP key"):
        repository.sign()
