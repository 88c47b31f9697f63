"""Where one host fails the others go on, but for steps of which all hosts must take part."""

from pathlib import Path

import pytest

from onprem_llm.connection import Connection
from onprem_llm.run_events import RunResult
from onprem_llm.runner import _Task, run, run_once

PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.assert: {that: inventory_hostname != 'lab-1'}
    - ansible.builtin.file: {path: "{{ folder }}/{{ inventory_hostname }}", state: touch, mode: "0600"}
"""

LOCAL = "ansible_connection=local ansible_python_interpreter='{{ ansible_playbook_python }}'"


@pytest.mark.parametrize(("together", "went_on"), [(False, ["lab-2"]), (True, [])])
def test_one_host_fails(tmp_path: Path, together: bool, went_on: list[str]) -> None:
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "hosts").write_text(f"lab-1 {LOCAL}\nlab-2 {LOCAL}\n")
    (tmp_path / "done").mkdir()
    variables = {"folder": str(tmp_path / "done")}
    task = _Task(tmp_path / "play.yml", Connection(tmp_path / "hosts"), None, variables, {}, together=together)
    result = run_once(task)
    assert [failure.host for failure in result.failures] == ["lab-1"]
    assert [path.name for path in (tmp_path / "done").iterdir()] == went_on


@pytest.mark.parametrize("together", [False, True])
def test_all_take_part_once_a_person_has_let_one_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """A host whose key is unknown ended the run on the others, too: they are not done yet when it is let in."""
    monkeypatch.setattr("onprem_llm.runner.folder", lambda _: tmp_path)
    inventory, done = tmp_path / "hosts", tmp_path / "done"
    first = "tasks:\n    - ansible.builtin.ping:\n"
    (tmp_path / "play.yml").write_text(PLAY.replace("lab-1", "nobody").replace("tasks:\n", first))
    inventory.write_text(f"lab-1 ansible_host=127.0.0.1 ansible_port=9 ansible_user=nobody\nlab-2 {LOCAL}\n")
    done.mkdir()

    def confirmed(result: RunResult, *_: object) -> tuple[RunResult, tuple[str, ...]]:
        inventory.write_text(f"lab-1 {LOCAL}\nlab-2 {LOCAL}\n")
        return result, ("lab-1",)

    monkeypatch.setattr("onprem_llm.access.open_up", confirmed)
    result = run("play.yml", Connection(inventory), variables={"folder": str(done)}, together=together)
    assert result.failures == ()
    assert {path.name: result.changed[path.name] for path in done.iterdir()} == {"lab-1": 1, "lab-2": 1}
