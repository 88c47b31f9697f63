"""What `make check` lints: all that could come out otherwise than when it last passed, and nothing else."""

import re
from pathlib import Path

import pytest
from tests import lint
from tests.scenarios import ROOT

FILES = {
    "roles/parts/module_utils/parts_text.py": "A = 1\n",
    "roles/parts/tasks/main.yml": "- name: Nothing\n  ansible.builtin.debug:\n",
    "roles/send/meta/main.yml": "dependencies:\n  - role: parts\n",
    "roles/send/library/send_file.py": "from ansible.module_utils.parts_text import A\n",
    "roles/send/tasks/main.yml": "- name: Send\n  send_file: {path: a}\n",
    "roles/serve/tasks/main.yml": "- name: Serve\n  ansible.builtin.debug:\n",
    "playbooks/sent.yml": "- hosts: all\n  tasks:\n    - ansible.builtin.import_role:\n        name: send\n",
    "playbooks/both.yml": "- import_playbook: sent.yml\n- hosts: all\n  roles: [serve]\n",
    "playbooks/by_module.yml": "- hosts: all\n  tasks:\n    - send_file:\n        path: a\n",
    "molecule/default/converge.yml": "- ansible.builtin.import_playbook: ../../playbooks/by_module.yml\n",
    "molecule/run.sh": "true\n",
    ".ansible-lint": "profile: production\n",
    ".yamllint": "extends: default\n",
}
SENDS = {"roles/send", "playbooks/sent.yml", "playbooks/both.yml", "playbooks/by_module.yml", "molecule/default"}


class Made:
    """A tree that passed once, and what is linted of it after that."""

    def __init__(self, root: Path) -> None:
        self.root, self.linted, self.status = root / "tree", [list[str]()], 0
        self.cache = root / "cache" / "passed.json"
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def lint(self, names: list[str]) -> int:
        self.linted.append(names)
        return self.status

    def run(self, everything: bool = False) -> set[str] | None:
        """Return what was linted, or None where ansible-lint was not started."""
        before = len(self.linted)
        assert lint.run(self.root, self.cache, everything, self.lint) == (self.status if self.linted[before:] else 0)
        return set(self.linted[-1]) if self.linted[before:] else None


EVERYTHING = set(lint.FOLDERS)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    tree = Made(tmp_path)
    assert tree.run() == EVERYTHING
    assert tree.run() is None
    return tree


@pytest.mark.parametrize(
    ("name", "linted"),
    [
        ("roles/serve/tasks/main.yml", {"roles/serve", "playbooks/both.yml"}),
        ("roles/send/library/send_file.py", SENDS),
        ("roles/parts/module_utils/parts_text.py", SENDS | {"roles/parts"}),
        ("playbooks/sent.yml", {"playbooks/sent.yml", "playbooks/both.yml"}),
        ("playbooks/by_module.yml", {"playbooks/by_module.yml", "molecule/default"}),
        ("molecule/run.sh", {"molecule/run.sh"}),
        (".ansible-lint", EVERYTHING),
        (".yamllint", EVERYTHING),
    ],
)
def test_a_change_is_linted_with_all_that_leads_to_it(made: Made, name: str, linted: set[str]) -> None:
    made.write(name, FILES[name] + "# more\n")
    assert made.run() == linted
    assert made.run() is None
    made.write(name, FILES[name])
    assert made.run() is None


def test_new_and_lost_files_count(made: Made) -> None:
    made.write("roles/serve/defaults/main.yml", "a: 1\n")
    assert made.run() == {"roles/serve", "playbooks/both.yml"}
    (made.root / "roles/serve/defaults/main.yml").rename(made.root / "roles/serve/defaults/other.yml")
    assert made.run() == {"roles/serve", "playbooks/both.yml"}
    # A role that was named before it was there.
    made.write("playbooks/later.yml", "- hosts: all\n  roles: [later]\n")
    assert made.run() == {"playbooks/later.yml"}
    made.write("roles/later/tasks/main.yml", "[]\n")
    assert made.run() == {"playbooks/later.yml", "roles/later"}


def test_another_version_or_variable_lints_everything(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = lint.packages()
    assert any(one.startswith("ansible-lint ") for one in packages)
    monkeypatch.setenv("ANSIBLE_LINT_NODEPS", "1")
    assert made.run() == EVERYTHING
    monkeypatch.setattr(lint, "packages", lambda: (*packages, "another 1.0"))
    assert made.run() == EVERYTHING
    assert made.run() is None


def test_what_failed_is_linted_until_it_passes(made: Made) -> None:
    made.write("playbooks/sent.yml", "- hosts: [\n")
    made.status = 2
    assert made.run() == made.run() == {"playbooks/sent.yml", "playbooks/both.yml"}
    made.status = 0
    assert made.run() == {"playbooks/sent.yml", "playbooks/both.yml"}


def test_what_changed_while_it_was_linted_has_not_passed(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def changing(names: list[str]) -> int:
        made.write("playbooks/sent.yml", "- hosts: more\n")
        return 0

    made.write("playbooks/sent.yml", "- hosts: some\n")
    assert lint.run(made.root, made.cache, False, changing) == 0
    assert made.run() == {"playbooks/sent.yml", "playbooks/both.yml"}


def test_all_is_all_and_a_spoilt_memory_is_none(made: Made) -> None:
    assert made.run(everything=True) == EVERYTHING
    made.cache.write_text('{"half": ')
    assert made.run() == EVERYTHING
    assert made.run() is None


def test_each_role_that_a_playbook_here_names_is_followed() -> None:
    known = lint.units(ROOT)
    before = lint.keys(ROOT, "")
    leads = lint._leads(known)
    named = 0
    for unit, files in known.items():
        for path in (one for one in files if one.suffix == ".yml"):
            for role in re.findall(r"_role:\n\s+name: (\w+)$|^\s+- role: (\w+)$", path.read_text(), re.MULTILINE):
                assert f"roles/{''.join(role)}" in leads[unit], path
                named += 1
    assert named > 50
    assert len(set(before.values())) == len(before) > 50
