"""How hosts are reached, as Ansible says it of an inventory."""

from pathlib import Path

import pytest

from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError
from onprem_llm.ssh import routes


def test_passwords_that_ansible_knows_are_in_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = tmp_path / "inventory.ini"
    inventory.write_text("here ansible_connection=local ansible_become_password=planted-4711\n")
    monkeypatch.setenv("ANSIBLE_LOG_PATH", str(tmp_path / "ansible.log"))
    assert routes(Connection(inventory))["here"].become_password == "planted-4711"
    logs = [path for path in tmp_path.iterdir() if path != inventory]
    assert not any("planted-4711" in path.read_text() for path in logs)


def test_a_variable_without_a_value_is_named_and_no_traceback(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.ini"
    inventory.write_text('here ansible_connection=local ansible_become_password="{{ nowhere }}"\n')
    with pytest.raises(OnpremError, match="cannot say how these hosts are reached: here") as raised:
        routes(Connection(inventory))
    assert "ansible-inventory" in (raised.value.hint or "")
