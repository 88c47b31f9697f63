"""A role's own code, for what bootstrap decides on a host and a lock must decide before it."""

import importlib
from types import ModuleType

import yaml

from onprem_llm.json_values import is_mapping
from onprem_llm.resources import folder

SHARED = "module_parts"


def module_utils(role: str, name: str) -> ModuleType:
    """Import a module of a role's module_utils, or of those that all roles share, as Ansible would on a host."""
    import ansible.module_utils

    for one in (role, SHARED):
        path = str(folder("roles") / one / "module_utils")
        if path not in ansible.module_utils.__path__:
            ansible.module_utils.__path__.append(path)
    return importlib.import_module(f"ansible.module_utils.{name}")


def defaults(role: str) -> dict[str, object]:
    """Return a role's defaults, as they stand in its file."""
    value: object = yaml.safe_load((folder("roles") / role / "defaults" / "main.yml").read_text(encoding="utf-8"))
    return dict(value) if is_mapping(value) else {}
