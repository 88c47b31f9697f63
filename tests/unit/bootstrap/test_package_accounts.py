"""Bootstrap again on hosts whose sources have mirrors' accounts in them, where everybody may read."""

import pytest

APT = "# Written by onprem-llm\nTypes: deb\nURIs: http://us:p%40w@m/d\nSuites: trixie\n"
DNF = "[ours]\nbaseurl=https://us:p%40w@m/$basearch\nenabled=1\n"
BARE = "apt/sources.list.d/onprem-llm-packages.sources"
OTHERS = "apt/sources.list.d/site.sources"


@pytest.fixture
def accounts(role_module, tmp_path, monkeypatch):
    module = role_module("container_engine_accounts")
    monkeypatch.setattr(module.package_source, "ETC", tmp_path / "etc")
    monkeypatch.setattr(module.record, "RECORD", tmp_path / "bootstrap.json")
    return module


@pytest.fixture
def etc(tmp_path):
    def write(name, text):
        path = tmp_path / "etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        return path

    return write


def mode(path):
    return path.stat().st_mode & 0o777


def test_sources_of_ours_are_written_anew_once(accounts, etc, tmp_path):
    nvidia, engine = (etc(f"apt/sources.list.d/onprem-llm{one}.sources", APT) for one in ("-nvidia", ""))
    repository = etc("yum.repos.d/onprem-llm-docker-ce.repo", DNF)
    bare, others = etc(BARE, "Types: deb\nURIs: file:///srv/us:x@y\n"), etc(OTHERS, APT)
    written = [str(path) for path in (nvidia, engine, repository)]
    assert sorted(accounts.mend(True)) == sorted(written)
    assert engine.read_text() == APT
    assert not accounts.record.load()
    assert sorted(accounts.mend(False)) == sorted(written)
    assert accounts.mend(False) == []
    auth = tmp_path / "etc/apt/auth.conf.d/00-onprem-llm.conf"
    assert engine.read_text() == nvidia.read_text() == APT.replace("us:p%40w@", "")
    assert auth.read_text().count("machine http://m/d/ login us password p@w\n") == 2
    assert "baseurl=https://m/$basearch\nusername=us\npassword=p@w\n" in repository.read_text()
    assert [mode(path) for path in (engine, auth, repository)] == [0o644, 0o600, 0o600]
    assert accounts.record.load()["absent"] == [str(auth)], "what uninstall takes away"
    assert (others.read_text(), "us:x@y" in bare.read_text()) == (APT, True)


def test_a_host_without_sources_of_ours_stays_as_it_is(accounts):
    assert accounts.mend(False) == []
    assert not accounts.record.RECORD.exists()


def test_an_account_that_no_file_can_hold_is_said_with_the_file(accounts, etc):
    path = etc("apt/sources.list.d/onprem-llm.sources", APT.replace("p%40w", "se%20cret"))
    with pytest.raises(accounts.PackageError) as refused:
        accounts.mend(False)
    said = (
        "found an account with a blank in the address of the mirror http://m/d, expected NAME:PASSWORD without blanks"
    )
    assert str(refused.value).startswith(f"{path}: {said}")
    assert str(refused.value).endswith("another account, remove this file on the host, and run bootstrap again")
    assert "cret" not in str(refused.value)
    assert "se%20cret" in path.read_text(), "what was there stays"
