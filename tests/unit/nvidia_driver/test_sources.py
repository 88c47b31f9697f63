"""Where the driver's packages come from: beside the host's own sources, or from the site's mirrors."""

import re
from pathlib import Path

import pytest

from onprem_llm.locking.repositories import REPOSITORIES
from onprem_llm.locking.role_code import defaults

KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"
OWN = "/etc/apt/sources.list.d/debian.sources:1"


def rows(*entries):
    return "\n".join("\t".join(["Packages", *entry]) for entry in entries) + "\nTranslations\tx\ty\tmain\tz\t\n"


DEBIAN = rows(
    ("http://deb.debian.org/debian/", "trixie", "main", OWN, KEY),
    ("http://deb.debian.org/debian-security/", "trixie-security", "main", OWN, ""),
    ("http://elsewhere/debian/", "sid", "main", OWN, KEY),
    ("https://download.docker.com/linux/debian/", "trixie", "stable", OWN, "/etc/apt/keyrings/docker.asc"),
)


def test_components_that_are_missing_stand_beside_main(driver, host):
    assert driver.sources.apt_text(host(), {}, DEBIAN) == (
        f"{driver.sources.MARK}\n\n"
        f"Types: deb\nURIs: http://deb.debian.org/debian-security\nSuites: trixie-security\n"
        f"Components: contrib non-free non-free-firmware\nSigned-By: {KEY}\n\n"
        f"Types: deb\nURIs: http://deb.debian.org/debian\nSuites: trixie\n"
        f"Components: contrib non-free non-free-firmware\nSigned-By: {KEY}\n"
    )


def test_only_what_is_missing(driver, host):
    place = ("http://m/debian/", "trixie")
    known = rows(*[(*place, one, OWN, KEY) for one in ("main", "contrib", "non-free-firmware")])
    assert "Components: non-free\n" in driver.sources.apt_text(host(), {}, known)
    whole = known + rows((*place, "non-free", OWN, KEY))
    assert driver.sources.apt_text(host(), {}, whole) == ""


def test_our_own_file_does_not_count_as_the_hosts(driver, host):
    ours = f"{driver.sources.APT_SOURCES}:3"
    added = ("contrib", "non-free", "non-free-firmware")
    again = DEBIAN + rows(*[("http://deb.debian.org/debian/", "trixie", one, ours, KEY) for one in added])
    assert driver.sources.apt_text(host(), {}, again) == driver.sources.apt_text(host(), {}, DEBIAN)


def test_the_sites_mirrors_alone(driver, host):
    text = driver.sources.apt_text(host(), {"debian": "http://m/d", "debian_security": "http://m/s"}, DEBIAN)
    assert (
        "URIs: http://m/d\nSuites: trixie trixie-updates\nComponents: main contrib non-free non-free-firmware" in text
    )
    assert "URIs: http://m/s\nSuites: trixie-security\n" in text
    assert "deb.debian.org" not in text


def test_ubuntu(driver, host):
    facts = host(os="ubuntu", codename="noble")
    known = rows(
        ("http://archive/ubuntu/", "noble", "main", OWN, ""), ("http://archive/ubuntu/", "noble", "restricted", OWN, "")
    )
    assert "Components: multiverse\n" in driver.sources.apt_text(facts, {}, known)
    text = driver.sources.apt_text(facts, {"ubuntu": "http://m/u"}, known)
    assert "Suites: noble noble-updates noble-security\nComponents: main restricted multiverse\n" in text


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ({"os": "debian", "version": "13"}, "debian13/x86_64"),
        ({"os": "ubuntu", "version": "24.04", "machine": "aarch64"}, "ubuntu2404/sbsa"),
        ({"os": "rocky", "version": "9.6"}, "rhel9/x86_64"),
    ],
)
def test_trees_of_nvidias_repository(driver, host, system, expected):
    assert driver.sources.tree(host(**system)) == expected


def test_nvidias_repository(driver, host):
    text = driver.sources.apt_text(host(), {"cuda": "https://m/cuda"}, DEBIAN)
    assert text.endswith(f"URIs: https://m/cuda/debian13/x86_64/\nSuites: /\nSigned-By: {driver.sources.CUDA_KEY}\n")
    assert "non-free" not in text
    facts = host(os="almalinux", version="9.6")
    assert "baseurl=https://m/cuda/rhel9/x86_64\n" in driver.sources.dnf_text(facts, {"cuda": "https://m/cuda"})
    assert "gpgcheck=1" in driver.sources.dnf_text(facts, {"cuda": "https://m/cuda"})
    assert f"\ngpgkey=file://{driver.sources.DNF_KEY}\n" in driver.sources.dnf_text(facts, {"cuda": "https://m/cuda"})
    assert driver.sources.dnf_text(facts, {}) == ""


@pytest.mark.parametrize(
    ("system", "address", "name"),
    [
        ({}, "https://m/cuda/debian13/x86_64/8793F200.pub", "CUDA_KEY"),
        ({"os": "rocky", "version": "9.6"}, "https://m/cuda/rhel9/x86_64/D42D0685.pub", "DNF_KEY"),
    ],
    ids=["apt", "dnf"],
)
def test_the_key_of_the_hosts_tree(driver, host, system, address, name):
    key = driver.sources.key(host(**system), "https://m/cuda", ["AB"])
    assert (key.address, key.path, key.known) == (address, getattr(driver.sources, name), ["AB"])


def test_the_keys_are_those_that_a_lock_takes():
    assert REPOSITORIES["cuda"].fingerprints == tuple(defaults("nvidia_driver")["nvidia_driver_fingerprints"])


@pytest.mark.parametrize("system", [{}, {"os": "rocky", "version": "9.6"}], ids=["apt", "dnf"])
def test_the_key_is_looked_at_before_and_after_its_repository_is_named(driver, host, tmp_path, monkeypatch, system):
    """With the fingerprints that the role was given; a key that is not the one leaves no repository behind."""
    facts = host(**system)
    part = driver.dnf if system else driver.apt
    name = "DNF_REPOSITORY" if system else "APT_SOURCES"
    monkeypatch.setattr(driver.sources, name, tmp_path / "ours")
    monkeypatch.setattr(part.record, "RECORD", tmp_path / "bootstrap.json")
    monkeypatch.setattr(part, "run", lambda *_: (0, ""))
    monkeypatch.setattr(driver.apt.apt, "refresh", lambda *_: None)
    asked: list[tuple[object, ...]] = []

    def present(key):
        asked.append((key.known, (tmp_path / "ours").exists()))
        if key.known == ["wrong"]:
            raise driver.apt.PackageError("another key")

    monkeypatch.setattr(part.package_key, "present", present)
    kind = part.Dnf if system else part.Apt
    with pytest.raises(driver.apt.PackageError, match="another key"):
        kind(facts, {"cuda": "https://m/cuda"}, None, ["wrong"]).prepare()
    hands = kind(facts, {"cuda": "https://m/cuda"}, None, ["AB"])
    assert [hands.prepare(), hands.prepare()] == [True, False]
    assert asked == [(["wrong"], False), (["AB"], False), (["AB"], True)]


@pytest.mark.parametrize("system", [{}, {"os": "rocky", "version": "9.6"}], ids=["apt", "dnf"])
def test_a_look_names_the_key_where_it_lies_and_leaves_the_host_as_it_is(driver, host, tmp_path, monkeypatch, system):
    part = driver.dnf if system else driver.apt
    folder = tmp_path / "parts"
    folder.mkdir()
    name = "DNF_REPOSITORY" if system else "APT_SOURCES"
    monkeypatch.setattr(driver.sources, name, folder / "ours")
    monkeypatch.setattr(driver.apt, "PARTS", folder)
    monkeypatch.setattr(driver.apt, "run", lambda *_: (0, ""))
    said: list[str] = []
    monkeypatch.setattr(driver.apt.apt, "refresh", lambda *_: said.append(asked_source(driver.apt.apt.scope)))
    monkeypatch.setattr(part.package_key, "present", lambda _, into: into)
    hands = (part.Dnf if system else part.Apt)(host(**system), {"cuda": "https://m/cuda"}, None, ["AB"])
    with hands.aside():
        text = asked_source(hands.scope) if system else said[0]
    assert re.search(r"/onprem-llm-(apt|dnf)-[^/]+/cuda\.asc\n", text)
    assert not list(folder.iterdir())


def asked_source(options):
    """Return our own source of those that apt or dnf is to ask."""
    (parts,) = [word.rpartition("=")[2] for word in options if "sourceparts=" in word or "reposdir=" in word]
    return (Path(parts) / "ours").read_text()


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("nvidia-kernel-dkms", True), ("libcuda1", True), ("libnvidia-ml1", True), ("firmware-nvidia-gsp", True),
        ("linux-image-amd64", True), ("linux-headers-cloud-amd64", True), ("linux-generic-hwe-24.04", True),
        ("linux-modules-nvidia-580-server-open-6.8.0-85-generic", True), ("nvidia-fabricmanager-580", True),
        ("nvidia-container-toolkit", False), ("libnvidia-container1", False),
        ("linux-image-6.12.48+deb13-amd64", False),
        ("linux-libc-dev", False), ("dkms", False),
    ],
)  # fmt: skip
def test_what_is_held(driver, name, held):
    assert driver.apt.holdable(name) is held


@pytest.mark.parametrize(
    ("mirrors", "refreshed"), [({}, [[], []]), ({"debian": "http://m/d"}, [["ours"]])], ids=["own", "mirror"]
)
def test_a_host_that_never_fetched_lists_fetches_them_first(driver, host, tmp_path, monkeypatch, mirrors, refreshed):
    """apt names no index of its sources before; a site's mirror is asked alone, once it is written down."""
    asked: list[list[str]] = []
    monkeypatch.setattr(driver.apt.record, "RECORD", tmp_path / "bootstrap.json")
    monkeypatch.setattr(driver.sources, "APT_SOURCES", tmp_path / "ours")
    monkeypatch.setattr(driver.apt, "run", lambda argv, *_: (0, DEBIAN if asked and argv[1] == "indextargets" else ""))
    monkeypatch.setattr(driver.apt.apt, "refresh", lambda files=(): asked.append([path.name for path in files]))
    assert driver.apt.Apt(host(), mirrors, None).prepare() is True
    assert asked == refreshed
    assert "non-free" in (tmp_path / "ours").read_text()
