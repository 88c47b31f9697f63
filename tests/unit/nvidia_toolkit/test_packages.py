"""Which version is installed, by what the sources have; and the key that says whose they are."""

import pytest

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


def test_a_keys_fingerprint_is_what_openpgp_says(toolkit):
    from pysequoia import Profile, Tsk

    key = Tsk.generate("us", profile=Profile.RFC4880)
    public = key.extract_certificate()
    for data in (str(public).encode(), bytes(public), str(public).replace("\n", "\r\n").encode()):
        assert toolkit.sources.fingerprints(data) == [public.fingerprint.upper()]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>not found</html>",
        b"\x99",
        b"\x98\x00",
        b"\xc6\xe1\x04",
        b"\xff\xff\xff",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nx\n",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n",
    ],
)
def test_what_is_no_key_has_none(toolkit, data):
    assert toolkit.sources.fingerprints(data) == []


@pytest.fixture(scope="module")
def keys():
    """NVIDIA's key, as it were, and another's."""
    from pysequoia import Profile, Tsk

    return [Tsk.generate(name, profile=Profile.RFC4880).extract_certificate() for name in ("nvidia", "other")]


FORMS = {
    "armored": lambda one, two: str(one).encode() + str(two).encode(),
    "binary": lambda one, two: bytes(one) + bytes(two),
    "binary behind armor": lambda one, two: str(one).encode() + bytes(two),
    "armor behind binary": lambda one, two: bytes(one) + str(two).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_second_key_in_the_mirrors_file_is_not_believed_with_the_first(toolkit, keys, tmp_path, form):
    """apt and dnf would trust whatever that other key signs."""
    (tmp_path / "gpgkey").write_bytes(FORMS[form](*keys))
    path = tmp_path / "keyrings/key.asc"
    with pytest.raises(toolkit.sources.PackageError, match="could install anything"):
        toolkit.sources.fetch_key(tmp_path.as_uri(), path, [keys[0].fingerprint])
    assert not path.exists()


def test_the_right_key_is_written_as_it_came(toolkit, keys, tmp_path):
    (tmp_path / "gpgkey").write_text(str(keys[0]))
    path = tmp_path / "keyrings/key.asc"
    spelled = " ".join(keys[0].fingerprint.lower())
    toolkit.sources.fetch_key(tmp_path.as_uri(), path, [spelled])
    assert path.read_text() == str(keys[0])
    (tmp_path / "gpgkey").unlink()
    toolkit.sources.fetch_key(tmp_path.as_uri(), path, [spelled])


def test_a_file_that_is_there_is_believed_by_its_fingerprints_too(toolkit, keys, tmp_path):
    path = tmp_path / "key.asc"
    for text in (str(keys[1]), f"{keys[0]}{keys[1]}", ""):
        path.write_text(text)
        with pytest.raises(toolkit.sources.PackageError, match=f"at {path}, expected {keys[0].fingerprint}.*Remove it"):
            toolkit.sources.fetch_key(tmp_path.as_uri(), path, [keys[0].fingerprint])


def test_dnfs_locks_are_told_apart(toolkit):
    text = "nvidia-container-toolkit-base-0:1.18.2-1.*\nlibnvidia-container1-0:1.18.2-1.*\n"
    assert toolkit.hands.locked_names(text) == {"nvidia-container-toolkit-base", "libnvidia-container1"}
