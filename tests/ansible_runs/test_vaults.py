"""The site's variables in a rehearsal: real vaults, read by Ansible; what is secret and not needed is nowhere."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from ansible import constants
from ansible.parsing.vault import VaultLib, VaultSecret

from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.prove import site_inventory, site_variables, vault_passwords
from onprem_llm.prove.site_variables import Variables, variables
from onprem_llm.prove.tool import Tool

PASSWORD = "word\n"
BESIDE = str(Path(sys.executable).parent)


def ansible(program: str, *words: str) -> str:
    environment = {**os.environ, "PATH": f"{BESIDE}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"}
    # No limit: how long Ansible takes is the machine's matter, and it has nobody to ask (stdin).
    done = subprocess.run(
        [program, *words], capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def encrypted() -> tuple[str, str]:
    """A wholly encrypted file's text and a single encrypted value, by what ansible-vault itself encrypts with."""
    vault = VaultLib([("default", VaultSecret(PASSWORD.strip().encode()))])
    whole = vault.encrypt("vault_user: bob-of-the-vault\nvault_root_password: n3ver-written\n").decode()
    value = vault.encrypt("t0ken").decode()
    return whole, f"!vault |\n{textwrap.indent(value, ' ' * 10)}"


def made_site(at: Path, encrypted: tuple[str, str]) -> Connection:
    """Write an inventory with a wholly encrypted file and a single encrypted value."""
    folder = at / "group_vars" / "all"
    folder.mkdir(parents=True)
    (at / "inventory.ini").write_text("[gpu]\na ansible_host=10.0.0.1 ansible_password=hidden\nb\n")
    password = at / "password"
    password.write_text(PASSWORD)
    vault, value = encrypted
    (folder / "vault.yml").write_text(vault)
    (folder / "site.yml").write_text(
        "onprem_llm_site:\n  registry:\n    username: '{{ user_of_registry }}'\n    pattern: !unsafe '{{ raw }}'\n"
        f"    password: {value}\n"
        "user_of_registry: '{{ vault_user | lower }}'\nraw: 1\ncompose_project_absent: []\ncolour: red\n"
    )
    return Connection(at / "inventory.ini", vault_password_files=(password,))


@pytest.fixture
def site(tmp_path: Path, encrypted: tuple[str, str]) -> Connection:
    return made_site(tmp_path, encrypted)


# What Ansible says of a site that nobody changes is asked once: its start is most of what a test here takes.
@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, encrypted: tuple[str, str]) -> Variables:
    return variables(made_site(tmp_path_factory.mktemp("site"), encrypted))


@pytest.fixture(scope="module")
def without_password(tmp_path_factory: pytest.TempPathFactory, encrypted: tuple[str, str]) -> Variables:
    """What Ansible says without a password of the single encrypted value, where no whole file is encrypted."""
    connection = made_site(tmp_path_factory.mktemp("site"), encrypted)
    (connection.inventory.parent / "group_vars" / "all" / "vault.yml").unlink()
    with pytest.MonkeyPatch.context() as patched:
        for name in vault_passwords.NAMES:
            patched.delenv(name, raising=False)
        return site_variables._all(Connection(connection.inventory))


def test_what_settings_name_comes_along_and_secrets_that_nothing_names_do_not(found: Variables) -> None:
    assert found.keys() == {"a", "b"}
    assert found["a"]["user_of_registry"] == "{{ vault_user | lower }}"
    assert found["a"]["vault_user"] == "bob-of-the-vault"
    assert "n3ver-written" not in str(found)
    assert not found["a"].keys() & {"ansible_password", "ansible_host", "colour", "vault_root_password"}


def test_an_encrypted_value_stays_encrypted_on_the_disk_and_ansible_reads_it(
    site: Connection, found: Variables, tmp_path: Path
) -> None:
    reach = {name: {"ansible_connection": "local"} for name in "ab"}
    data, _ = site_inventory.inventory_data({"a": (), "b": ()}, found, reach, tmp_path, "10.213.0.0/24")
    path = site_inventory.write(data, tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert "t0ken" not in path.read_text()
    read = ["-m", "ansible.builtin.debug", "-a", "msg={{ onprem_llm_site.registry }}"]
    said = ansible("ansible", "-i", str(path), "a", *read, "--vault-password-file", str(site.vault_password_files[0]))
    for text in ('"password": "t0ken"', '"username": "bob-of-the-vault"', '"pattern": "{{ raw }}"'):
        assert text in said
    # A second time, too.
    assert site_inventory.write(data, tmp_path) == path


def test_an_encrypted_setting_without_a_password_is_refused_by_name(
    site: Connection, without_password: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in vault_passwords.NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(site_variables, "_all", lambda _: without_password)
    with pytest.raises(InvalidError, match="onprem_llm_site of host a is encrypted") as error:
        variables(Connection(site.inventory))
    assert "--vault-password-file" in str(error.value.hint)


def open_passwords(folder: Path) -> str:
    """Return what a command of the rehearsal, run in `folder`, reads from the files that hold vaults' passwords."""
    code = (
        "import os, sys; names = sys.argv[1].split(); values = [os.environ.get(name) for name in names]\n"
        "print(*[open(value.rpartition('@')[2]).read() for value in values if value])"
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("onprem_llm.prove.tool.PROGRAM", [sys.executable, "-c", code])
        return Tool(folder, lambda text: None)("ANSIBLE_VAULT_PASSWORD_FILE ANSIBLE_VAULT_IDENTITY_LIST").stdout.strip()


@pytest.fixture
def elsewhere(site: Connection, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Begin beside the inventory, with nothing of the vault in the environment; return a folder to run commands in."""
    for name in vault_passwords.NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(site.inventory.parent)
    monkeypatch.setenv("HERE", str(site.inventory.parent))
    (made := site.inventory.parent / "work").mkdir()
    return made


@pytest.mark.parametrize("value", ["password", "./password", "$HERE/password", "{{CWD}}/password"])
def test_a_password_file_named_in_the_environment_is_found_from_every_folder(
    site: Connection, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", value)
    # Ansible itself means that file, and so does what runs elsewhere.
    meant = constants.config.get_config_value("DEFAULT_VAULT_PASSWORD_FILE")
    assert Path(meant).samefile(site.vault_password_files[0])
    assert Path(vault_passwords.taken(os.environ, Path.cwd())[vault_passwords.FILE]).samefile(meant)
    assert open_passwords(elsewhere) == PASSWORD.strip()


def test_a_password_file_named_in_the_environment_serves_for_reading(
    site: Connection, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", "{{CWD}}/password")
    assert variables(Connection(site.inventory)).keys() == {"a", "b"}


@pytest.mark.parametrize("value", ["{}/password", "one@{}/password"])
def test_identities_with_absolute_paths_are_taken(
    site: Connection, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ANSIBLE_VAULT_IDENTITY_LIST", value.format(site.inventory.parent))
    assert variables(Connection(site.inventory)).keys() == {"a", "b"}
    assert open_passwords(elsewhere) == PASSWORD.strip()


@pytest.mark.parametrize(
    ("value", "asked_anew"), [("password", False), ("one@password", False), ("one@{0}/password, two@password", True)]
)
def test_identities_that_a_command_elsewhere_could_not_use_are_refused_before(
    site: Connection,
    without_password: Variables,
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    asked_anew: bool,
) -> None:
    monkeypatch.setenv("ANSIBLE_VAULT_IDENTITY_LIST", value.format(site.inventory.parent))
    if not asked_anew:
        monkeypatch.setattr(site_variables, "_all", lambda _: without_password)
    (site.inventory.parent / "group_vars" / "all" / "vault.yml").unlink()
    with pytest.raises(InvalidError, match="is encrypted") as error:
        variables(Connection(site.inventory))
    assert "ANSIBLE_VAULT_IDENTITY_LIST" in str(error.value.hint)
    assert open_passwords(elsewhere) == ""


def test_a_file_that_cannot_be_decrypted_is_an_error(site: Connection) -> None:
    with pytest.raises(InvalidError, match="cannot read it") as error:
        variables(Connection(site.inventory))
    assert "vault" in str(error.value.details)


def test_an_inventory_that_takes_too_long_is_an_error(site: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = site.inventory.parent / "slow.sh"
    slow.write_text("#!/bin/sh\nexec sleep 20\n")
    slow.chmod(0o700)
    monkeypatch.setattr(site_variables, "TIMEOUT_S", 1)
    with pytest.raises(InvalidError) as error:
        variables(Connection(slow))
    assert error.value.details == "it did not end in 1 s"
