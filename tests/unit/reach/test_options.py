"""How a command is told to reach hosts: the inventory, passwords that are asked once, or not at all."""

import stat
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from onprem_llm.ansible_settings import environment
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, UsageError
from onprem_llm.options import connection_options, find_inventory
from onprem_llm.private_files import password_arguments, private_folder


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ONPREM_LLM_INVENTORY", raising=False)
    for name in ("ANSIBLE_CONFIG", "ANSIBLE_FORKS", "ANSIBLE_PIPELINING", "ANSIBLE_SSH_PIPELINING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@click.command()
@connection_options(argument=True)
def command(connection: Connection) -> Connection:
    return connection


def made(*arguments: str) -> Connection:
    result = CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    if result.exception:
        raise result.exception
    connection: Connection = result.return_value
    return connection


def test_the_inventory_is_named_or_from_the_variable_or_beside_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("inventory.ini", "variable.ini", "named.ini"):
        (tmp_path / name).touch()
    assert made().inventory == tmp_path / "inventory.ini"
    monkeypatch.setenv("ONPREM_LLM_INVENTORY", "variable.ini")
    assert made().inventory == tmp_path / "variable.ini"
    assert made("-i", "named.ini").inventory == tmp_path / "named.ini"
    assert made("named.ini").inventory == tmp_path / "named.ini"


def test_two_inventories_are_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(UsageError, match="twice"):
        made("a", "-i", "a")


def test_a_missing_inventory_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=str(tmp_path / "nix.ini")):
        find_inventory(Path("nix.ini"))


@pytest.mark.parametrize("option", ["--ask-become-pass", "--ask-pass", "--ask-vault-pass"])
def test_a_password_without_a_terminal_is_an_error_with_another_way(option: str, tmp_path: Path) -> None:
    (tmp_path / "inventory.ini").touch()
    with pytest.raises(UsageError, match="no terminal") as caught:
        made(option)
    assert caught.value.hint


def test_passwords_reach_ansible_as_files_that_only_we_can_read() -> None:
    connection = Connection(Path("/i"), become_password="b3", ssh_password="s3", vault_password="v3")
    with private_folder() as folder:
        words = password_arguments(connection, folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert [Path(path).read_text().strip() for path in words[1::2]] == ["b3", "s3", "v3"]
        assert {stat.S_IMODE(Path(path).stat().st_mode) for path in words[1::2]} == {0o600}
        assert not {"b3", "s3", "v3"} & set(words)
    assert not folder.exists()


def test_no_password_shows_in_a_traceback() -> None:
    shown = repr(Connection(Path("/i"), become_password="b3", ssh_password="s3", vault_password="v3"))
    assert not any(secret in shown for secret in ("b3", "s3", "v3"))


def test_the_environment_never_switches_host_key_checking_off_and_names_no_ansible_cfg(tmp_path: Path) -> None:
    settings = environment(None, tmp_path)
    assert settings["ANSIBLE_HOST_KEY_CHECKING"] == "True"
    assert settings["ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED"] == "True"
    assert "ANSIBLE_CONFIG" not in settings


def test_what_the_users_ansible_cfg_says_counts(tmp_path: Path) -> None:
    assert environment(None, tmp_path)["ANSIBLE_FORKS"] == "16"
    (tmp_path / "ansible.cfg").write_text("[defaults]\nforks = 3\n[ssh_connection]\npipelining = False\n")
    settings = environment(None, tmp_path)
    assert "ANSIBLE_FORKS" not in settings
    assert "ANSIBLE_PIPELINING" not in settings
    assert environment(7, tmp_path)["ANSIBLE_FORKS"] == "7"
