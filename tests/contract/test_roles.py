"""Playbooks against roles: what one maps, the other declares, and nothing is decided twice."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from onprem_llm.planning.types import StepKind
from onprem_llm.spec.site import Site

ROOT = Path(__file__).resolve().parents[2]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


@functools.cache
def read(path: Path) -> Any:
    """Read YAML: once, and by libyaml where it is there, since each file is asked for again and again."""
    return LOADER(path.read_text(encoding="utf-8")).get_single_data()


def specs(role: str) -> dict[str, Any]:
    path = ROOT / "roles" / role / "meta" / "argument_specs.yml"
    assert path.is_file(), f"{role} has no meta/argument_specs.yml"
    specs: dict[str, Any] = read(path)["argument_specs"]
    return specs


def uses(node: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield role, entry point and variables of every import_role and include_role."""
    if isinstance(node, list):
        for item in node:
            yield from uses(item)
    elif isinstance(node, dict):
        for kind in ("ansible.builtin.import_role", "ansible.builtin.include_role"):
            if kind in node:
                entry = str(node[kind].get("tasks_from", "main")).removesuffix(".yml")
                yield node[kind]["name"], entry, node.get("vars", {})
        for value in node.values():
            yield from uses(value)


def playbooks() -> list[Path]:
    return sorted((ROOT / "playbooks").glob("*.yml"))


@pytest.mark.parametrize("playbook", playbooks(), ids=lambda path: path.name)
def test_playbooks_map_what_roles_declare(playbook: Path) -> None:
    for role, entry, variables in uses(read(playbook)):
        declared = specs(role)
        assert entry in declared, f"{playbook.name}: {role} declares no entry point {entry}"
        options = declared[entry].get("options", {})
        unknown = [name for name in variables if name.startswith(f"{role}_") and name not in options]
        assert not unknown, f"{playbook.name}: {role} does not declare {unknown}"
        needed = {name for name, option in options.items() if option.get("required")}
        assert needed <= set(variables), f"{playbook.name}: {role} needs {needed - set(variables)}"


@pytest.mark.parametrize("role", ROLES)
def test_roles_declare_prefixed_variables_only(role: str) -> None:
    for entry in specs(role).values():
        assert all(name.startswith(f"{role}_") for name in entry.get("options", {}))
    defaults = ROOT / "roles" / role / "defaults" / "main.yml"
    if defaults.is_file():
        names = read(defaults) or {}
        assert all(name.startswith(f"{role}_") for name in names), role


@pytest.mark.parametrize("role", ROLES)
def test_roles_never_read_the_sites_settings(role: str) -> None:
    """The site's settings have one reader, Python; a role that read them too would be a second master."""
    for path in (ROOT / "roles" / role).rglob("*.yml"):
        assert "onprem_llm_site" not in path.read_text(encoding="utf-8"), path


def test_site_settings_and_role_variables_are_disjoint() -> None:
    settings = set(Site.model_fields)
    names = {name for role in ROLES for entry in specs(role).values() for name in entry.get("options", {})}
    assert not settings & names


@pytest.mark.parametrize("role", ROLES)
def test_every_role_says_what_it_is(role: str) -> None:
    assert (ROOT / "roles" / role / "README.md").is_file()


def test_only_the_probe_reads_site_settings_in_playbooks() -> None:
    for path in playbooks():
        read = re.findall(r"onprem_llm_site[^)]*\)\)?\.(\w+)", path.read_text(encoding="utf-8"))
        assert set(read) <= {"data_root", "weights_dir"}, path


@pytest.mark.parametrize("kind", get_args(StepKind))
def test_every_step_is_documented_with_its_roles(kind: str) -> None:
    playbook = read(ROOT / f"playbooks/{kind}.yml")
    row = re.search(
        rf"^\| `{kind}\.yml` \| (.*?) \|", (ROOT / "docs/roles.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert row, f"docs/roles.md has no row {kind}.yml"
    assert {role for role, _, _ in uses(playbook)} <= set(re.findall(r"`([a-z_]+)`", row[1]))


def modules_parts(role: str) -> Iterator[tuple[Path, str]]:
    """Yield file and name of every module_utils of ours that a role's modules import."""
    ours = {path.stem for path in (ROOT / "roles").glob("*/module_utils/*.py")}
    for path in sorted((ROOT / "roles" / role).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ansible.module_utils"):
                names = {str(node.module).rpartition(".")[2], *(alias.name for alias in node.names)}
                yield from ((path, name) for name in sorted(names & ours))


@pytest.mark.parametrize("role", ROLES)
def test_roles_that_stand_alone_find_what_they_import(role: str) -> None:
    """Ansible finds the parts in the role and its dependencies; a play with other roles in it hides a lack."""
    meta = ROOT / "roles" / role / "meta" / "main.yml"
    depends = read(meta)["dependencies"] if meta.is_file() else []
    folders = [ROOT / "roles" / name for name in (role, *(one["role"] for one in depends))]
    for path, name in modules_parts(role):
        assert any((folder / "module_utils" / f"{name}.py").is_file() for folder in folders), f"{path}: {name}"
    for plugin in (ROOT / "roles" / role / "action_plugins").glob("*.py"):
        for name in re.findall(r'action_loader\.get\("(\w+)"', plugin.read_text(encoding="utf-8")):
            assert any((folder / "action_plugins" / f"{name}.py").is_file() for folder in folders), f"{plugin}: {name}"


@pytest.mark.parametrize("role", ROLES)
def test_roles_depend_only_on_roles_without_tasks(role: str) -> None:
    """Each dependency runs before the role, in every play that has it."""
    meta = ROOT / "roles" / role / "meta" / "main.yml"
    for one in read(meta)["dependencies"] if meta.is_file() else []:
        assert not (ROOT / "roles" / one["role"] / "tasks").exists(), one


def test_no_play_says_by_a_template_whether_all_hosts_must_take_part() -> None:
    """Ansible fills in none there: whatever stands in it is true, for everybody."""
    plays = [play for path in playbooks() for play in read(path)]
    assert plays
    assert not [play["name"] for play in plays if isinstance(play.get("any_errors_fatal"), str)]
