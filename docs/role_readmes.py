"""Write each role's README.md from its meta/argument_specs.yml: `python docs/role_readmes.py`.

Roles without a README, or with one that somebody wrote by hand, are left alone; `--new ROLE` begins one.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from onprem_llm import fast_yaml

ROLES = Path(__file__).resolve().parents[1] / "roles"
MARK = "<!-- Made from meta/argument_specs.yml by docs/role_readmes.py -->"


def made(role: str) -> str:
    """Return the text of a role's README."""
    specs = fast_yaml.read((ROLES / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    parts = [MARK, f"# {role}"]
    for entry, spec in specs.items():
        parts.append(f"{spec['short_description']}." + (f" (tasks_from: {entry})" if entry != "main" else ""))
        parts.extend(_plain(text) for text in _texts(spec.get("description", [])))
        rows = list(_rows(spec.get("options", {})))
        if rows:
            parts.append("\n".join(["| variable | type | default | meaning |", "| --- | --- | --- | --- |", *rows]))
    parts.append("docs/roles.md says how the roles work together.")
    return "\n\n".join(parts) + "\n"


def _rows(options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, option in options.items():
        default = "required" if option.get("required") else _default(option)
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        text = _plain(" ".join(_texts(option["description"])))
        yield f"| `{prefix}{name}` | {kind} | {default} | {text} |"
        yield from _rows(option.get("options", {}), f"{prefix}{name}.")


def _texts(description: str | list[str]) -> list[str]:
    return description if isinstance(description, list) else [description]


def _plain(text: str) -> str:
    """Turn Ansible's markup, C(text) and M(module), into Markdown's."""
    return re.sub(r"\b(?:C|M|O|RV)\(([^)]*)\)", r"`\1`", text)


def _default(option: Mapping[str, Any]) -> str:
    if "default" not in option:
        return "none"
    default = option["default"]
    text = default if isinstance(default, str) else yaml.safe_dump(default, default_flow_style=True).splitlines()[0]
    return f"`{text}`" if text else "empty"


def generated() -> list[str]:
    """Return the roles whose README is made here."""
    readmes = sorted(ROLES.glob("*/README.md"))
    return [readme.parent.name for readme in readmes if readme.read_text().startswith(MARK)]


if __name__ == "__main__":
    for name in {*generated(), *sys.argv[2:]}:
        (ROLES / name / "README.md").write_text(made(name))
