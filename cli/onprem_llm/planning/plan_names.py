"""Names in a plan that become paths: one that was edited must not write or remove anything outside of its folders."""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import PurePosixPath

from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.planning.types import Plan, Step
from onprem_llm.rendering.registry import PROJECT as REGISTRY
from onprem_llm.rendering.registry import STORE


def check_names(plan: Plan) -> None:
    """Raise ValueError for a host, project or key that is no plain name, or a file that leaves its folder."""
    for host, projects in plan.files.items():
        check_name(host, "files")
        for project, files in projects.items():
            check_name(project, f"files.{host}")
            for path in files:
                check_path(path, f"files.{host}.{project}")
    for number, step in enumerate(plan.steps):
        _check_step(step, f"steps.{number}")


def _check_step(step: Step, where: str) -> None:
    for host, order in step.orders.items():
        check_name(host, f"{where}.orders")
        _check_order(order, f"{where}.orders.{host}")
    for number, back in enumerate(step.undo):
        _check_step(back, f"{where}.undo.{number}")


def _check_order(order: Mapping[str, object], where: str) -> None:
    named_keys = [name for kind in ("keys", "client_keys") for name in _listed(order.get(kind))]
    named_keys += _mapped(order.get("engine_keys")).values()
    hosts = [order.get("keys_host"), *(_under(order, kind, "ca_host") for kind in ("tls", "engine_tls", "trust"))]
    for name in (*named_keys, *filter(None, [*hosts, order.get("deployment")])):
        check_name(name, where)
    listed = [name for kind in ("drain", "ready", "let_in") for name in _listed(order.get(kind))]
    for server in (*listed, *_mapped(order.get("states"))):
        check_server(server, where)
    if "model_yaml_file" in order:
        check_path(order["model_yaml_file"], f"{where}.model_yaml_file")
    _check_source(order, where)
    gateway = order.get("project")
    if is_mapping(gateway):
        _check_entry(gateway, "name", f"{where}.project")
        check_name(gateway.get("source"), f"{where}.project.source")
    for kind, named in (("projects", "name"), ("weights", "id")):
        for entry in _listed(order.get(kind)):
            if is_mapping(entry):  # weights that are to be removed are absolute paths
                _check_entry(entry, named, f"{where}.{kind}")
    if is_mapping(order.get("trust")):  # docker's folder for this registry has its name
        check_name(_under(order, "trust", "address"), f"{where}.trust.address")
    _check_stores(order, where)
    for number, member in enumerate(_listed(_under(order, "chain", "members"))):
        _check_member(member, f"{where}.chain.members.{number}")


def _check_source(order: Mapping[str, object], where: str) -> None:
    """A schedule's files have a folder of their own in the seam, as Ray Serve's document has."""
    if "token" in order:  # of Ray's, beside the other keys
        check_name(order["token"], f"{where}.token")
    if "source" in order:
        check_name(order["source"], f"{where}.source")
        for path in _paths(order.get("files")):
            check_path(path, f"{where}.files")


def _check_member(member: object, where: str) -> None:
    """Addresses get into what root runs on the hosts of a chain."""
    pair = _listed(member)
    if len(pair) != 2:
        raise ValueError(f"{where}: found {member!r:.60}, expected a host's name and its address")
    check_name(pair[0], where)
    try:
        plain = isinstance(pair[1], str) and "%" not in pair[1] and bool(ip_address(pair[1]))
    except ValueError:
        plain = False
    if not plain:
        raise ValueError(f"{where}: found {pair[1]!r:.60}, expected a plain IP address")


def _check_stores(order: Mapping[str, object], where: str) -> None:
    if "store" in order or _under(order, "tls", "file") is not None:
        _check_registry(order, where)
    if "blobs" in order:
        _check_blobs(_mapped(order.get("blobs")), f"{where}.blobs")


def _check_registry(order: Mapping[str, object], where: str) -> None:
    """What root writes for the registry lies in its project's folder, and what it copies in the store."""
    folders = [_mapped(entry).get("path") for entry in _listed(order.get("projects"))]
    names = [_mapped(entry).get("name") for entry in _listed(order.get("projects"))]
    if names != [REGISTRY]:
        raise ValueError(f"{where}.projects: found {names!r:.60}, expected one project named {REGISTRY}")
    folder = folders[0]
    if not isinstance(folder, str) or not folder.endswith(f"/{REGISTRY}") or not _plain(folder):
        raise ValueError(f"{where}.projects: found {folder!r:.60}, expected an absolute path that ends in /{REGISTRY}")
    store = _mapped(order.get("store"))
    written = {"store.path": store.get("path")} | ({"tls.file": _under(order, "tls", "file")} if "tls" in order else {})
    for kind, path in written.items():
        if not isinstance(path, str) or not path.startswith(f"{folder}/") or not _plain(path):
            raise ValueError(f"{where}.{kind}: found {path!r:.60}, expected a path below {folder}")
    for path in (*_paths(store.get("files")), *_mapped(store.get("links"))):
        check_path(path, f"{where}.store")


def _check_blobs(blobs: Mapping[str, object], where: str) -> None:
    """What hosts pass on for registries lies in the folder of theirs."""
    path = blobs.get("path")
    if not isinstance(path, str) or not path.endswith(f"/{REGISTRY}/{STORE}") or not _plain(path):
        raise ValueError(f"{where}.path: found {path!r:.60}, expected an absolute path ending in /{REGISTRY}/{STORE}")
    for name in _paths(blobs.get("files")):
        check_path(name, f"{where}.files")


def _plain(path: str) -> bool:
    return path.startswith("/") and ".." not in PurePosixPath(path).parts


def _check_entry(entry: Mapping[str, object], named: str, where: str) -> None:
    check_name(entry.get(named), where)
    known = list(_paths(entry.get("files")))
    for path in known:
        check_path(path, f"{where}.files")
    for path in _listed(entry.get("send")):  # read below `source` on the control host
        if path not in known:
            raise ValueError(f"{where}.send: found {path!r:.60}, expected a file that `files` has")


def _under(order: Mapping[str, object], kind: str, key: str) -> object:
    return _mapped(order.get(kind)).get(key)


def _paths(files: object) -> Iterable[object]:
    """Return the paths of a project's files (path -> sum) or of weights (a list with path, size and sum)."""
    if is_mapping(files):
        return list(files)
    return [entry.get("path") for entry in _listed(files) if is_mapping(entry)]


def _listed(value: object) -> list[object]:
    return list(value) if is_list(value) else []


def _mapped(value: object) -> Mapping[str, object]:
    return value if is_mapping(value) else {}


def check_name(name: object, where: str) -> None:
    """Raise ValueError if this is no name of one thing."""
    if not isinstance(name, str) or name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ValueError(f"{where}: found {name!r:.60}, expected a plain name without /")


def check_server(server: object, where: str) -> None:
    """Raise ValueError if this is no deployment/project: it is written on the gateway's command socket."""
    if not isinstance(server, str) or not re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", server):
        raise ValueError(f"{where}: found {server!r:.60}, expected deployment/project")


def check_path(path: object, where: str) -> None:
    """Raise ValueError if this path is not below the folder that it is relative to."""
    if not isinstance(path, str) or not path or path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{where}: found {path!r:.60}, expected a relative path without ..")
