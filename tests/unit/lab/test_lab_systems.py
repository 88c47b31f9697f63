"""Which systems hosts can have, where their packages come from, and what is said where that is not known."""

import base64
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from onprem_llm.errors import OnpremError, UsageError
from onprem_llm.lab import dnf_root_file_system, hosts, image, lifecycle, root_file_systems, state
from onprem_llm.lab.mirrors import ARMOUR, Given, Mirror, apt_sources, find_mirror, is_known
from onprem_llm.lab.state import Host
from onprem_llm.lab_systems import NAMES, SYSTEMS, System
from onprem_llm.main import cli

TRIXIE, BOOKWORM, NOBLE, ROCKY = (SYSTEMS[name] for name in ("debian-13", "debian-12", "ubuntu-24.04", "rocky-9"))
DEB822 = """\
# a comment
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""
LINES = """\
deb https://vendor.example/linux/debian bookworm stable
deb https://other.example/debian bookworm main
deb [arch=amd64] http://mirror.example/debian bookworm main contrib
deb http://mirror.example/debian bookworm-updates main
deb http://mirror.example/debian-security bookworm-security main
deb https://vendor.example/apt stable main
"""


@pytest.fixture(autouse=True)
def _keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has Debian's keys, and nothing in its environment names a mirror."""
    for system in SYSTEMS.values():
        monkeypatch.delenv(system.mirror_variable, raising=False)
        monkeypatch.delenv(system.key_variable, raising=False)
    there = {TRIXIE.keyring}
    real = Path.is_file
    monkeypatch.setattr(
        Path, "is_file", lambda path: str(path) in there or ("keyrings" not in str(path) and real(path))
    )


@pytest.mark.parametrize(("name", "text"), [("sources.list.d/debian.sources", DEB822), ("sources.list", LINES)])
def test_a_mirror_is_the_machines_own(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text, "utf-8")
    for system in (TRIXIE, BOOKWORM):
        found = find_mirror(system, etc_apt=tmp_path)
        security = "http://mirror.example/debian-security"
        assert found == Mirror("http://mirror.example/debian", security, str(tmp_path))
        assert f"Suites: {system.suite}-security\n" in apt_sources(system, found)
        assert f"Signed-By: {system.keyring}\n" in apt_sources(system, found)


def test_an_ubuntu_machine_has_ubuntus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sources.list").write_text(
        "deb http://cloud.example/ubuntu noble main restricted\ndeb http://cloud.example/ubuntu noble-updates main\n"
        "deb http://security.example/ubuntu noble-security main\n"
    )
    (tmp_path / "keys.gpg").write_bytes(b"keys")
    monkeypatch.setenv(NOBLE.key_variable, str(tmp_path / "keys.gpg"))
    found = find_mirror(NOBLE, etc_apt=tmp_path)
    assert (found.main, found.security) == ("http://cloud.example/ubuntu", "http://security.example/ubuntu")
    with pytest.raises(OnpremError, match=r"debian-12: this machine knows no mirror of Debian 12"):
        find_mirror(BOOKWORM, etc_apt=tmp_path)


@pytest.mark.parametrize("system", SYSTEMS.values(), ids=NAMES)
def test_a_machine_that_knows_no_mirror_is_told_how_to_name_one(tmp_path: Path, system: System) -> None:
    with pytest.raises(OnpremError) as raised:
        find_mirror(system, etc_apt=tmp_path)
    assert f"{system.mirror_variable}, nor --mirror" in raised.value.message
    assert f"lab up --os {system.name} --mirror URL, or {system.mirror_variable}=http" in (raised.value.hint or "")


def test_the_command_line_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(BOOKWORM.mirror_variable, "http://second.example/debian/")
    assert find_mirror(BOOKWORM, etc_apt=tmp_path) == Mirror(
        "http://second.example/debian", "http://second.example/debian-security", "ONPREM_LLM_DEBIAN_MIRROR"
    )
    found = find_mirror(BOOKWORM, Given("http://first.example/debian"), tmp_path)
    assert (found.main, found.named_by) == ("http://first.example/debian", "--mirror")


@pytest.mark.parametrize(
    ("address", "said"),
    [("http://me:hunter2@mirror.example/ubuntu", "a password in the address"), ("mirror.example", "http://")],
)
def test_an_address_that_will_not_do_is_refused(address: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        find_mirror(NOBLE, Given(address))
    assert "hunter2" not in f"{raised.value.message}{raised.value.hint}"


def test_keys_that_are_not_here_are_asked_for_and_given_ones_stand_in_the_hosts_sources(tmp_path: Path) -> None:
    given = Given("http://mirror.example/ubuntu")
    with pytest.raises(OnpremError, match=r"ubuntu-archive-keyring\.gpg is not on this machine") as raised:
        find_mirror(NOBLE, given)
    assert "--mirror-key FILE, or ONPREM_LLM_UBUNTU_KEY=FILE" in (raised.value.hint or "")
    key = bytes(range(256))
    (tmp_path / "key.gpg").write_bytes(key)
    text = apt_sources(NOBLE, find_mirror(NOBLE, Given(given.mirror, tmp_path / "key.gpg")))
    assert "Components: main restricted universe multiverse\nSigned-By:\n -----BEGIN PGP" in text
    inside = text.split(" .\n")[1].split(" -----END")[0]
    assert base64.b64decode(inside) == key
    (tmp_path / "key.asc").write_text(f"{ARMOUR}\n\nAAAA\n{ARMOUR.replace('BEGIN', 'END')}\n")
    text = apt_sources(NOBLE, find_mirror(NOBLE, Given(given.mirror, tmp_path / "key.asc")))
    assert "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA\n -----END" in text


def test_prove_makes_only_what_this_machine_can(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not is_known(ROCKY)
    monkeypatch.setenv(BOOKWORM.mirror_variable, "http://mirror.example/debian")
    assert is_known(BOOKWORM)


def test_each_system_and_mirror_has_an_image_of_its_own(tmp_path: Path) -> None:
    here = Mirror("http://mirror.example/x", "http://mirror.example/x", "--mirror", b"key")
    names = [image.tag(one.name, False, image.recipe(one, here)) for one in SYSTEMS.values()]
    there = Mirror("http://other.example/x", "http://mirror.example/x", "--mirror", b"key")
    names += [image.tag(one.name, False, image.recipe(one, there)) for one in SYSTEMS.values()]
    assert len(set(names)) == 2 * len(NAMES)
    assert names[1].startswith("onprem-llm/lab-host:debian-12-")


@pytest.mark.parametrize("name", ["debian-12", "rocky-9"])
def test_ready_hosts_are_of_systems_that_have_an_engine(name: str) -> None:
    with pytest.raises(UsageError, match="no Docker Engine and Compose that bootstrap takes"):
        image.system_of(name, True)
    assert image.system_of(name, False).name == name


def test_a_system_that_nobody_knows_is_refused_with_those_that_are() -> None:
    done = CliRunner().invoke(cli, ["lab", "up", "--os", "debian-11"])
    assert done.exit_code == 2
    assert all(f"'{name}'" in done.output for name in NAMES)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (
            "E: The repository 'http://m/x noble InRelease' is not signed.",
            "--mirror-key FILE, or ONPREM_LLM_UBUNTU_KEY",
        ),
        ("W: GPG error: NO_PUBKEY 871920D1991BC93C", "--mirror-key FILE, or ONPREM_LLM_UBUNTU_KEY"),
        ("Err:1 http://m/x noble InRelease\nE: Could not connect to m:80", "--mirror URL, or ONPREM_LLM_UBUNTU_MIRROR"),
    ],
)
def test_what_a_mirror_did_wrong_is_told_with_its_address(
    said: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(root_file_systems.os, "geteuid", lambda: 0)
    mirror = Mirror("http://m/x", "http://m/x", "--mirror")
    with pytest.raises(OnpremError) as raised:
        root_file_systems.carry_out(["sh", "-c", f'echo "{said}" >&2; exit 1'], NOBLE, mirror)
    assert raised.value.message == "ubuntu-24.04: sh could not make hosts from http://m/x (named by --mirror)"
    assert raised.value.details == said
    assert hint in (raised.value.hint or "")


def test_dnf_is_told_of_no_repository_but_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror("http://m/rocky", "http://m/rocky", "--mirror", b"the key")
    files = dnf_root_file_system.repository(ROCKY, mirror)
    text = files["repository/lab.repo"].decode()
    assert "baseurl=http://m/rocky/9/AppStream/$basearch/os/\nenabled=1\ngpgcheck=1\n" in text
    called: list[list[str]] = []

    def run(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        called.append(argv)
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(root_file_systems, "ensure_tool", lambda *_: None)
    monkeypatch.setattr(dnf_root_file_system, "ensure_tool", lambda *_: None)
    monkeypatch.setattr(dnf_root_file_system.os, "mknod", lambda path, *_: Path(path).touch())
    monkeypatch.setattr(dnf_root_file_system.os, "geteuid", lambda: 0)
    monkeypatch.setattr(subprocess, "run", run)
    dnf_root_file_system.make(ROCKY, mirror, files, tmp_path / "base.tar")
    (dnf, tar) = called
    assert {"--releasever=9", "--noplugins", "--setopt=module_platform_id=platform:el9"} <= set(dnf)
    assert any(one.startswith("--setopt=reposdir=/") for one in dnf)
    assert dnf[dnf.index("install") + 1 :] == list(ROCKY.base)
    assert tar[0] == "tar"


@pytest.mark.parametrize(("limit", "said"), [("128\n", "inotify instances"), ("8192\n", ""), (None, "")])
def test_a_host_that_ends_at_once_may_lack_inotify_instances(tmp_path: Path, limit: str | None, said: str) -> None:
    if limit is not None:
        (tmp_path / "limit").write_text(limit)
    hint = hosts._why_not_booted(Host("os-1", "10.213.0.11", None), tmp_path / "limit")
    assert "docker start --attach os-1 shows why" in hint
    assert ("fs.inotify.max_user_instances" in hint) is bool(said)


def test_a_lab_that_has_no_mirror_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(lifecycle.engine, "client", lambda: None)
    wanted = lifecycle.Wanted("lab", 1, (), "rocky-9", False, tmp_path / "inventory.ini", None, None)
    with pytest.raises(OnpremError, match="knows no mirror of Rocky Linux 9"):
        lifecycle.up(wanted, print)
    assert state.load("lab") is None
    assert not (tmp_path / "inventory.ini").exists()
