"""Sources of apt and dnf, and where the accounts of their mirrors are. Real ones: tests/offline, tests/dnf."""

import pytest

PARAGRAPH = "Types: deb\nURIs: {}\nSuites: trixie\n"
REPOSITORY = "[ours]\nbaseurl={}\nenabled=1\n"


@pytest.fixture
def part(role_module):
    return role_module("onprem_llm_package_source")


def mode(path):
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("http://us:pw@m/debian", "machine http://m/debian/ login us password pw\n"),
        ("https://us:p%40%2F@m:8443/a/b/", "machine https://m:8443/a/b/ login us password p@/\n"),
        ("http://us:p@w@m", "machine http://m/ login us password p@w\n"),
        ("http://token@[fd00::1]:80/d", "machine http://[fd00::1]:80/d/ login token\n"),
        # apt writes other characters in its own way: the folder above counts.
        ("http://us:pw@m/a/b~c/d", "machine http://m/a/ login us password pw\n"),
    ],
)
def test_a_line_of_apts_says_who_signs_in_where(part, address, line):
    bare, account = part.split(address)
    assert (account.line, "@" in bare) == (line, False)


@pytest.mark.parametrize("address", ["http://m/debian", "file:///srv/us@x", "https://m/a@b"])
def test_an_address_without_an_account_stays(part, address):
    assert part.split(address) == (address, None)


@pytest.mark.parametrize("account", ["us:pass%20word", "us:a%0Ab", "u%09s:pw", ":pw", ""])
def test_an_account_that_no_file_can_hold_is_refused(part, account, tmp_path):
    for write, text in ((part.write_apt, PARAGRAPH), (part.write_dnf, REPOSITORY)):
        with pytest.raises(part.PackageError, match=r"found an account with.* mirror http://m/d, expected") as refused:
            write(tmp_path / "lists" / "ours.sources", text.format(f"http://{account}@m/d"))
        assert "word" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_an_account_of_apts_comes_and_goes(part, tmp_path):
    source, auth = tmp_path / "sources.list.d/ours.sources", tmp_path / "auth.conf.d/00-onprem-llm.conf"
    assert part.auth_of(source) == auth
    texts = [PARAGRAPH.format(one) for one in ("http://m/d", "http://us:one@m/d", "http://us:two@m/d", "http://m/d")]
    assert [part.write_apt(source, text) for text in texts for _ in range(2)] == [True, False] * 4
    assert source.read_text() == PARAGRAPH.format("http://m/d")
    assert not auth.exists()
    part.write_apt(source, texts[2])
    assert source.read_text() == PARAGRAPH.format("http://m/d")
    assert auth.read_text() == "# ours.sources\nmachine http://m/d/ login us password two\n"
    assert (mode(source), mode(auth)) == (0o644, 0o600)


def test_a_source_that_was_written_with_the_account_in_it_is_mended(part, tmp_path):
    source = tmp_path / "sources.list.d/ours.sources"
    source.parent.mkdir()
    source.write_text(PARAGRAPH.format("http://us:one@m/d"))
    assert part.write_apt(source, PARAGRAPH.format("http://us:one@m/d")) is True
    assert "one" not in source.read_text()


def test_the_innermost_folder_counts_and_each_line_stands_once(part):
    addresses = ["http://a:1@m/d", "http://a:1@m/d", "http://b:2@m/d/inner", "http://c:3@m/more"]
    lines = part.netrc("", "ours", [part.split(one)[1] for one in addresses]).splitlines()
    assert [line.split()[1] for line in lines[1::2]] == ["http://m/d/inner/", "http://m/more/", "http://m/d/"]


def test_the_innermost_folder_of_all_sources_counts_and_each_changes_its_own(part, tmp_path):
    outer, inner = tmp_path / "lists/a.sources", tmp_path / "lists/b.sources"

    def lines():
        return part.auth_of(outer).read_text().splitlines()

    part.write_apt(outer, PARAGRAPH.format("http://us:1@m"))
    part.write_apt(inner, PARAGRAPH.format("http://them:2@m/docker"))
    of_inner, of_outer = ["# b.sources", "machine http://m/docker/ login them password 2"], ["# a.sources"]
    assert lines() == [*of_inner, *of_outer, "machine http://m/ login us password 1"]
    assert part.write_apt(outer, PARAGRAPH.format("http://us:3@m")) is True
    assert lines() == [*of_inner, *of_outer, "machine http://m/ login us password 3"]
    part.write_apt(outer, PARAGRAPH.format("http://m"))
    assert lines() == of_inner
    part.write_apt(inner, PARAGRAPH.format("http://m/docker"))
    assert not part.auth_of(inner).exists()


def test_an_account_of_dnfs_is_in_a_file_of_roots_alone(part, tmp_path):
    path = tmp_path / "ours.repo"
    assert part.write_dnf(path, REPOSITORY.format("http://m/$basearch")) is True
    assert (path.read_text(), mode(path)) == (REPOSITORY.format("http://m/$basearch"), 0o644)
    text = REPOSITORY.format("http://us:p%2Fw@m/$basearch")
    assert [part.write_dnf(path, text) for _ in range(2)] == [True, False]
    assert path.read_text() == "[ours]\nbaseurl=http://m/$basearch\nusername=us\npassword=p/w\nenabled=1\n"
    assert mode(path) == 0o600


def test_what_dnf_would_take_for_a_variable_is_refused(part, tmp_path):
    with pytest.raises(part.PackageError, match=r"found a \$ before a letter in the account of the mirror http://m/d,"):
        part.write_dnf(tmp_path / "ours.repo", REPOSITORY.format("http://us:p$arch@m/d"))
    assert list(tmp_path.iterdir()) == []
