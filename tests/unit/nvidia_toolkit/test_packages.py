"""Which version is installed, by what the sources have; and the key that says whose they are."""

import pytest

from onprem_llm.locking.repositories import REPOSITORIES
from onprem_llm.locking.role_code import defaults

NAMES = (
    "nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1",
)  # fmt: skip
# As apt-cache madison prints it.
MADISON = """\
nvidia-container-toolkit |   1.18.2-1 | https://mirror.local/stable/deb/amd64  Packages
nvidia-container-toolkit |   1.17.8-1 | https://mirror.local/stable/deb/amd64  Packages
nvidia-container-toolkit-base |   1.18.2-1 | https://mirror.local/stable/deb/amd64  Packages
"""


def offered(*versions, **other):
    return {name: list(other.get(name.replace("-", "_"), versions)) for name in NAMES}


def test_the_newest_that_all_packages_have(toolkit):
    found = toolkit.packages.chosen(offered("1.9.0-1", "1.18.2-1", "1.17.8-1", "1.19.0~rc.1-1"), None)
    assert found.version == "1.18.2"
    assert found.names("=") == [f"{name}=1.18.2-1" for name in NAMES]
    some = offered("1.18.2-1", "1.17.8-1", libnvidia_container1=["1.17.8-1"])
    assert toolkit.packages.chosen(some, None).version == "1.17.8"


def test_a_version_that_is_wished(toolkit):
    assert toolkit.packages.chosen(offered("1.18.2-1", "1.17.8-1"), "1.17.8").names("-")[0] == f"{NAMES[0]}-1.17.8-1"
    with pytest.raises(
        toolkit.packages.ToolkitError, match=r"found nvidia-container-toolkit 1\.18\.2-1.*version 1\.16"
    ):
        toolkit.packages.chosen(offered("1.18.2-1"), "1.16.2")


def test_one_that_is_too_old_to_name_gpus_by_uuid_is_none(toolkit):
    with pytest.raises(toolkit.packages.ToolkitError, match=r"package_mirrors\.nvidia_container_toolkit"):
        toolkit.packages.chosen(offered("1.14.6-1"), None)
    with pytest.raises(toolkit.packages.ToolkitError, match="found no nvidia-container-toolkit in"):
        toolkit.packages.chosen({}, None)


def test_what_apt_prints(toolkit):
    found = toolkit.packages.of_madison(MADISON)
    assert found == {NAMES[0]: ["1.18.2-1", "1.17.8-1"], NAMES[1]: ["1.18.2-1"]}


@pytest.mark.parametrize(
    ("version", "lacks", "wished", "wanted"),
    [
        (None, [], None, True),
        ("1.18.2", [], None, False),
        ("1.15.0", [], None, False),
        ("1.14.6", [], None, True),
        ("1.18.2", ["nvidia-container-runtime-hook"], None, True),
        ("1.18.2", [], "1.18.2", False),
        ("1.18.2", [], "1.17.8", True),
    ],
)
def test_a_good_one_is_left_alone(toolkit, version, lacks, wished, wanted):
    assert toolkit.plan.wants_packages({"toolkit": version, "lacks": lacks}, wished) is wanted


def test_one_that_an_image_can_break_out_of_is_a_warning(toolkit):
    [found] = toolkit.plan.toolkit_findings({"toolkit": "1.17.7"})
    assert (found["level"], "CVE-2025-23266" in found["remedy"]) == ("warning", True)
    [found] = toolkit.plan.toolkit_findings({"toolkit": "1.17.8"})
    assert found["level"] == "ok"


def test_sources(toolkit):
    text = toolkit.sources.apt_text("https://mirror.local/nct", "aarch64")
    assert "URIs: https://mirror.local/nct/stable/deb/arm64/\nSuites: /\n" in text
    assert "Components" not in text
    text = toolkit.sources.dnf_text("https://mirror.local/nct")
    assert "baseurl=https://mirror.local/nct/stable/rpm/$basearch\n" in text
    assert "repo_gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/" in text


def test_the_keys_are_those_that_a_lock_takes():
    known = defaults("nvidia_container_toolkit")["nvidia_container_toolkit_fingerprints"]
    assert REPOSITORIES["nvidia_container_toolkit"].fingerprints == tuple(known)


def test_dnfs_locks_are_told_apart(toolkit):
    text = "nvidia-container-toolkit-base-0:1.18.2-1.*\nlibnvidia-container1-0:1.18.2-1.*\n"
    assert toolkit.hands.locked_names(text) == {"nvidia-container-toolkit-base", "libnvidia-container1"}
