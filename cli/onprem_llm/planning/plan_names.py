"""Names in a plan that become paths: one that was edited must not write or remove anything outside of its folders."""

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.planning.types import Plan


def check_names(plan: Plan) -> None:
    """Raise ValueError for a host, project or key that is no plain name, or a file that leaves its folder."""
    for host, projects in plan.files.items():
        check_name(host, "files")
        for project, files in projects.items():
            check_name(project, f"files.{host}")
            for path in files:
                check_path(path, f"files.{host}.{project}")
    for number, step in enumerate(plan.steps):
        for host, order in step.orders.items():
            check_name(host, f"steps.{number}.orders")
            _check_order(order, f"steps.{number}.orders.{host}")


def _check_order(order: Mapping[str, object], where: str) -> None:
    for name in (*_listed(order.get("keys")), *filter(None, [order.get("keys_host"), order.get("deployment")])):
        check_name(name, where)
    if "model_yaml_file" in order:
        check_path(order["model_yaml_file"], f"{where}.model_yaml_file")
    for kind, named in (("projects", "name"), ("weights", "id")):
        for entry in _listed(order.get(kind)):
            if is_mapping(entry):  # weights that are to be removed are absolute paths
                check_name(entry.get(named), f"{where}.{kind}")
                for path in _paths(entry.get("files")):
                    check_path(path, f"{where}.{kind}.files")


def _paths(files: object) -> Iterable[object]:
    """Return the paths of a project's files (path -> sum) or of weights (a list with path, size and sum)."""
    if is_mapping(files):
        return list(files)
    return [entry.get("path") for entry in _listed(files) if is_mapping(entry)]


def _listed(value: object) -> list[object]:
    return list(value) if is_list(value) else []


def check_name(name: object, where: str) -> None:
    """Raise ValueError if this is no name of one thing."""
    if not isinstance(name, str) or name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ValueError(f"{where}: found {name!r:.60}, expected a plain name without /")


def check_path(path: object, where: str) -> None:
    """Raise ValueError if this path is not below the folder that it is relative to."""
    if not isinstance(path, str) or not path or path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{where}: found {path!r:.60}, expected a relative path without ..")
