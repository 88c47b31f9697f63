"""User text in an order file, and in variables as the runner writes them, stays text; no template is made of it."""

import json
import sys
from pathlib import Path

from onprem_llm.connection import Connection
from onprem_llm.runner import run

# The order is read as the playbooks read it; a variable of a role, a loop and an include lie between it and a task.
PLAYBOOK = """
- name: Echo
  hosts: all
  gather_facts: false
  vars:
    echo_order: "{{ (lookup('ansible.builtin.file', onprem_llm_order_file) | from_json)[inventory_hostname] }}"
  tasks:
    - name: Echo each
      ansible.builtin.include_tasks: echo.yml
      loop: "{{ echo_order.projects }}"
      loop_control: {loop_var: echo_project, label: "{{ echo_project.name }}"}
      vars:
        echo_text: "{{ echo_project.path }}"
        echo_secret: "{{ onprem_llm_secrets[echo_project.name].TOKEN }}"
"""
TASKS = """
- name: Write what came
  ansible.builtin.copy:
    content: "{{ [echo_text, echo_secret] | to_json }}"
    dest: "{{ onprem_llm_seam }}/{{ echo_project.name }}.json"
    mode: "0600"
"""


def test_user_text_is_never_a_template(tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    evil = "/data/{{ lookup('ansible.builtin.pipe', 'touch " + str(mark) + "') }}/m {% raw %} $HOME"
    (tmp_path / "playbook.yml").write_text(PLAYBOOK)
    (tmp_path / "echo.yml").write_text(TASKS)
    order = {"local": {"projects": [{"name": "tiny-0", "path": evil}]}}
    (tmp_path / "1.json").write_text(json.dumps(order))
    inventory = tmp_path / "inventory.ini"
    inventory.write_text(f"local ansible_connection=local ansible_python_interpreter={sys.executable}\n")
    result = run(
        str(tmp_path / "playbook.yml"),
        Connection(inventory=inventory),
        variables={"onprem_llm_seam": str(tmp_path), "onprem_llm_order_file": str(tmp_path / "1.json")},
        secrets={"onprem_llm_secrets": {"tiny-0": {"TOKEN": evil}}},
    )
    assert not result.failures
    assert json.loads((tmp_path / "tiny-0.json").read_text()) == [evil, evil]
    assert not mark.exists()
