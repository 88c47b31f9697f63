"""Which packages make up an engine, told from what apt says on real systems."""

import os

import pytest

from onprem_llm.locking.repositories import REPOSITORIES
from onprem_llm.locking.role_code import defaults

DEBIAN_13 = {"docker.io": "26.1.5+dfsg1-9+b4", "docker-compose": "2.26.1-4", "docker-cli": "26.1.5+dfsg1-9+b4"}
DEBIAN_12 = {"docker.io": "20.10.24+dfsg1-1+deb12u1", "docker-compose": "1.29.2-3"}
UBUNTU_2404 = {"docker.io": "24.0.7-0ubuntu4", "docker-compose-v2": "2.24.6+ds1-0ubuntu2", "docker-compose": "1.29.2-6"}
DOCKER_CE = {
    "docker-ce": "5:28.5.1-1~debian.12~bookworm",
    "docker-ce-cli": "5:28.5.1-1~debian.12~bookworm",
    "containerd.io": "1.7.28-1",
    "docker-compose-plugin": "2.40.0-1~debian.12~bookworm",
}


@pytest.fixture
def apt(role_module, monkeypatch):
    """The apt part, over a host that `offer` describes."""
    module = role_module("container_engine_apt")

    def offer(candidates, installed=()):
        def run(argv, timeout=30):
            text = ""
            for name in argv[4:]:
                if name in candidates:
                    here = candidates[name] if name in installed else "(none)"
                    text += f"{name}:\n  Installed: {here}\n  Candidate: {candidates[name]}\n  Version table:\n"
                    text += f"     {candidates[name]} 500\n        500 http://mirror trixie/main amd64 Packages\n"
            return 0, text

        monkeypatch.setattr(role_module("onprem_llm_apt"), "run", run)

    module.offer = offer
    return module


def chosen(apt, engine=False, extra=()):
    return apt.packages(engine, (24, 0), (2, 20), list(extra))


def test_debian_13(apt):
    apt.offer({**DEBIAN_13, "rsync": "3.4.1"})
    assert chosen(apt, extra=["rsync"]) == ["docker.io", "docker-compose", "docker-cli", "rsync"]


def test_ubuntu_takes_compose_v2_and_not_the_old_script(apt):
    apt.offer(UBUNTU_2404)
    assert chosen(apt) == ["docker.io", "docker-compose-v2"]


def test_docker_ce_wins_where_its_repository_is_configured(apt):
    apt.offer({**DEBIAN_12, **DOCKER_CE})
    assert chosen(apt) == ["docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin"]


def test_docker_io_that_is_installed_stays(apt):
    apt.offer({**DEBIAN_13, **DOCKER_CE}, installed=["docker.io"])
    assert chosen(apt, engine=True)[0] == "docker.io"


def test_debian_12_alone_will_not_do(apt):
    apt.offer(DEBIAN_12)
    with pytest.raises(apt.PackageError) as caught:
        chosen(apt)
    assert "docker.io 20.10.24" in str(caught.value)
    assert "docker-compose 1.29.2" in str(caught.value)
    assert "onprem_llm_site.package_mirrors.docker" in str(caught.value)


def test_no_source_at_all(apt):
    apt.offer({})
    with pytest.raises(apt.PackageError, match="neither docker-ce nor docker"):
        chosen(apt)


def test_an_engine_put_there_by_hand_gets_compose_alone(apt):
    apt.offer(UBUNTU_2404)
    assert chosen(apt, engine=True) == ["docker-compose-v2"]


def test_an_extra_package_that_no_source_has_is_left_out(apt):
    apt.offer(DEBIAN_13)
    assert "rsync" not in chosen(apt, extra=["rsync"])


def test_what_is_missing(apt, role_module):
    apt.offer(DEBIAN_13, installed=["docker.io"])
    assert role_module("onprem_llm_apt").missing(["docker.io", "docker-compose"]) == ["docker-compose"]


def test_sources_on_debian(apt):
    mirrors = {
        "debian": "http://m/debian",
        "debian_security": "http://m/security",
        "ubuntu": "http://m/u",
        "docker": "http://m/ce",
    }
    text = apt.sources_text(mirrors, "debian", "trixie")
    assert "URIs: http://m/debian\nSuites: trixie trixie-updates\nComponents: main\n" in text
    assert "URIs: http://m/security\nSuites: trixie-security\n" in text
    assert "URIs: http://m/ce/linux/debian\nSuites: trixie\nComponents: stable\n" in text
    assert "http://m/u" not in text
    assert text.count("Types: deb") == 3


def test_sources_on_ubuntu(apt):
    text = apt.sources_text({"ubuntu": "http://m/u", "debian_security": "http://m/s"}, "ubuntu", "noble")
    assert "Suites: noble noble-updates noble-security\nComponents: main universe\n" in text
    assert "http://m/s" not in text


def test_dockers_key(apt, role_module, tmp_path, monkeypatch):
    """It is looked at also where the source is there already: whoever changed it could install anything."""
    asked = []
    monkeypatch.setattr(apt, "DOCKER_KEY", tmp_path / "docker.asc")
    monkeypatch.setattr(apt, "SOURCES", tmp_path / "onprem-llm.sources")
    monkeypatch.setattr(apt, "present", asked.append)
    old = os.umask(0o077)
    try:
        changes = [apt.write_sources({"docker": "https://m/ce"}, "debian", "trixie", ["AB"]) for _ in range(2)]
    finally:
        os.umask(old)
    assert changes == [True, False]
    assert [(key.address, key.path, key.whose, key.known) for key in asked] == [
        ("https://m/ce/linux/debian/gpg", tmp_path / "docker.asc", "docker's repository", ["AB"])
    ] * 2
    assert apt.SOURCES.stat().st_mode & 0o777 == 0o644


def test_dockers_keys_are_those_that_a_lock_takes():
    assert REPOSITORIES["docker"].fingerprints == tuple(defaults("container_engine")["container_engine_fingerprints"])


def test_repository_of_the_rhel_family(role_module):
    dnf = role_module("container_engine_dnf")
    assert "baseurl=https://m/ce/linux/centos/$releasever/$basearch/stable" in dnf.repository_text(
        "https://m/ce", "rocky"
    )
    text = dnf.repository_text("https://m/ce", "rhel")
    assert "baseurl=https://m/ce/linux/rhel/" in text
    assert f"\ngpgkey=file://{dnf.KEY}\n" in text


def test_the_repository_of_the_rhel_family_comes_after_its_key(role_module, tmp_path, monkeypatch):
    dnf = role_module("container_engine_dnf")
    asked = []
    monkeypatch.setattr(dnf, "REPOSITORY", tmp_path / "docker.repo")
    monkeypatch.setattr(dnf, "present", lambda key: asked.append((key.address, key.path, dnf.REPOSITORY.exists())))
    assert [dnf.write_repository({"docker": "https://m/ce"}, "rocky", ["AB"]) for _ in range(2)] == [True, False]
    address = "https://m/ce/linux/centos/gpg"
    assert asked == [(address, dnf.KEY, False), (address, dnf.KEY, True)]
    assert dnf.write_repository({"debian": "https://m"}, "rocky", ["AB"]) is False


def test_an_extra_package_that_no_repository_has_is_left_out_and_a_failing_dnf_leaves_out_none(
    role_module, monkeypatch
):
    dnf = role_module("onprem_llm_dnf")
    said = {"iperf3": (1, "Error: No matching Packages to list"), "nftables": (1, "Cannot download repomd.xml")}
    monkeypatch.setattr(dnf, "run", lambda argv, *_: said.get(argv[-1], (0, "rsync.x86_64 3.2")))
    assert dnf.offered(["iperf3", "nftables", "rsync"]) == ["nftables", "rsync"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Docker version 26.1.5+dfsg1, build a72d7cd", (26, 1, 5)),
        ("5:28.5.1-1~debian.12~bookworm", (28, 5, 1)),
        ("v2.40.0", (2, 40, 0)),
        ("", ()),
    ],
)
def test_versions(role_module, text, numbers):
    assert role_module("onprem_llm_command").numbers(text) == numbers


HELD = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 12 (apt)"
FULL = "E: You don't have enough free space in /var/cache/apt/archives/."
DEVICE_FULL = "E: Write error - write (28: No space left on device)"


@pytest.mark.parametrize("source", [None, "/etc/apt/sources.list.d/onprem-llm-packages.sources"], ids=["own", "bundle"])
@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (HELD, "Wait until that process has ended"),
        (FULL, "Make room on the host, in the folder that apt names or with `apt-get clean`"),
        (DEVICE_FULL, "Make room on the host"),
        ("E: dpkg was interrupted, you must manually run 'dpkg --configure -a'", "Run `dpkg --configure -a`"),
    ],
)
def test_what_is_no_fault_of_the_packages_sends_nobody_to_the_bundle(role_module, monkeypatch, source, said, remedy):
    apt, apt_get = role_module("onprem_llm_apt"), role_module("onprem_llm_apt_get")
    monkeypatch.setattr(apt_get, "LOCK_WAIT_S", -1)
    monkeypatch.setattr(apt_get, "run", lambda *_: (100, f"Reading package lists...\n{said}\n"))
    with apt.only(source), pytest.raises(apt_get.PackageError) as refused:
        apt.install(["docker.io"])
    assert said in str(refused.value)
    assert remedy in str(refused.value)
    assert "bootstrap again" in str(refused.value)
    assert "bundle" not in str(refused.value)
    assert "mirrors" not in str(refused.value)
