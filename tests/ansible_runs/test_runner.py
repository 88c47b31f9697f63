"""Real runs on this machine (ansible_connection=local): what a run returns, hides, and leaves behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from onprem_llm import runner
from onprem_llm.errors import InvalidError
from onprem_llm.runner import Connection, run

PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Return what came
      ansible.builtin.debug:
        var: onprem_llm
      vars:
        onprem_llm: {text: "{{ text }}", number: "{{ number }}", secret_is_there: "{{ secret | length }}"}
    - name: Fail on one host
      ansible.builtin.fail:
        msg: as told
      when: inventory_hostname == "b"
"""

LONG = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Take long
      ansible.builtin.command: sleep 4711
"""


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "folder", lambda _: tmp_path)
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    (tmp_path / "long.yml").write_text(LONG)
    path = tmp_path / "inventory.ini"
    hosts = [f"{name} ansible_connection=local ansible_python_interpreter={sys.executable}" for name in "ab"]
    path.write_text("\n".join(hosts) + "\n")
    return path


def test_text_stays_text_and_a_failure_is_in_the_result(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "{{ lookup('pipe', 'touch ran') }} $HOME ${x}"
    temporary = inventory.parent / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(temporary))
    result = run("play.yml", Connection(inventory), variables={"text": text, "number": 7}, secrets={"secret": "s3cr3t"})
    assert result.hosts == ("a", "b")
    assert result.returned["a"] == {"text": text, "number": 7, "secret_is_there": 6}
    assert not (inventory.parent / "ran").exists(), "a variable's text was run as a template"
    assert [(failure.host, failure.message) for failure in result.failures] == [("b", "as told")]
    assert list(temporary.iterdir()) == [], "a run leaves its files behind"


def test_a_limit_that_matches_nothing_names_itself_and_the_inventory(inventory: Path) -> None:
    with pytest.raises(InvalidError, match=r"inventory\.ini: no host matches the limit “nix”"):
        run("play.yml", Connection(inventory, limit="nix"))


def test_a_broken_inventory_does_not_succeed_with_no_hosts(inventory: Path) -> None:
    broken = inventory.parent / "broken.yml"
    broken.write_text("all:\n  hosts: [\n")
    with pytest.raises(InvalidError, match=r"broken\.yml: ansible cannot read this inventory") as caught:
        run("play.yml", Connection(broken))
    assert "broken.yml" in (caught.value.details or "")


def sleepers() -> set[str]:
    """Return the processes that long.yml starts; one that another run left is not ours."""
    found = subprocess.run(["pgrep", "-f", "^sleep 4711"], capture_output=True, text=True, check=False)
    return set(found.stdout.split())


def test_ctrl_c_leaves_no_process(inventory: Path) -> None:
    # In the background of a script it is ignored, and Python then sets no handler: this would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = sleepers()

    def press() -> None:
        began = time.monotonic()
        while sleepers() <= before and time.monotonic() - began < 60:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        run("long.yml", Connection(inventory))
    ended = time.monotonic()
    while not sleepers() <= before:
        assert time.monotonic() - ended < 5
