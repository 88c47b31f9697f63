"""Where one host fails the others go on, but for steps of which all hosts must take part."""

from pathlib import Path

import pytest

from onprem_llm.connection import Connection
from onprem_llm.runner import _Task, run_once

PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.assert: {that: inventory_hostname != 'lab-1'}
    - ansible.builtin.file: {path: "{{ folder }}/{{ inventory_hostname }}", state: touch, mode: "0600"}
"""


@pytest.mark.parametrize(("together", "went_on"), [(False, ["lab-2"]), (True, [])])
def test_one_host_fails(tmp_path: Path, together: bool, went_on: list[str]) -> None:
    (tmp_path / "play.yml").write_text(PLAY)
    local = "ansible_connection=local ansible_python_interpreter='{{ ansible_playbook_python }}'"
    (tmp_path / "hosts").write_text(f"lab-1 {local}\nlab-2 {local}\n")
    (tmp_path / "done").mkdir()
    variables = {"folder": str(tmp_path / "done")}
    task = _Task(tmp_path / "play.yml", Connection(tmp_path / "hosts"), None, variables, {}, together=together)
    result = run_once(task)
    assert [failure.host for failure in result.failures] == ["lab-1"]
    assert [path.name for path in (tmp_path / "done").iterdir()] == went_on
