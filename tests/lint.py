"""ansible-lint over what has changed since it last passed; `--all` runs it over everything.

    python -m tests.lint [--all]

What is linted at once and remembered: a role, a playbook, a molecule scenario. It counts as changed when a byte of it
has, or of anything that it leads to (roles it names, their roles, whose modules and files it uses), or ansible-lint's
settings, or a version of a package here. What passed is kept by digest in $ONPREM_LLM_CACHE/check. `make test`, and so
CI, lints everything: nothing rests on what was remembered.
"""

import argparse
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path

import yaml
from tests.scenarios import CACHE, ROOT

FOLDERS = ("playbooks", "roles", "molecule")
# Files at the top that ansible-lint, Ansible or yamllint read, and a person's own.
SETTINGS = (".ansible-lint*", ".yamllint*", ".config/*", "*.yml", "*.yaml", "ansible.cfg")
OWN_SETTINGS = (Path("~/.ansible.cfg"), Path("/etc/ansible/ansible.cfg"), Path("~/.config/yamllint/config"))
VARIABLES = ("ANSIBLE_", "YAMLLINT_", "XDG_CONFIG_HOME")
PROVIDES = ("library", "module_utils", "filter_plugins", "lookup_plugins", "action_plugins")
UTILITY = re.compile(r"module_utils\.(\w+)")
REMEMBERED = 2000
LOADER = getattr(yaml, "CLoader", yaml.Loader)

Unit = tuple[Path, ...]


def units(root: Path) -> dict[str, Unit]:
    """Map what is linted at once ("roles/gateway", "playbooks/apply.yml") to its files."""
    found: dict[str, Unit] = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).iterdir()):
            files = path.rglob("*") if path.is_dir() else [path]
            taken = tuple(sorted(one for one in files if one.is_file() and "__pycache__" not in one.parts))
            if taken:
                found[f"{folder}/{path.name}"] = taken
    return found


@functools.cache
def packages() -> tuple[str, ...]:
    """Return Python and its packages, with their versions; they are read once a process, which takes a while."""
    return (sys.version, *sorted(f"{one.metadata['Name']} {one.version}" for one in distributions()))


def common(root: Path) -> str:
    """Return the digest of all that every result rests on: settings, variables, Python and its packages."""
    files = [path for pattern in SETTINGS for path in sorted(root.glob(pattern)) if path.is_file()]
    own = [path.expanduser() for path in OWN_SETTINGS]
    variables = sorted(item for item in os.environ.items() if item[0].startswith(VARIABLES))
    said = json.dumps([packages(), variables])
    return digest([said.encode(), *_contents(root, [*files, *(path for path in own if path.is_file())])])


def digest(parts: Iterable[bytes]) -> str:
    """Return one digest of several texts, each with its length so that none runs into the next."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def _contents(root: Path, files: Iterable[Path]) -> Iterator[bytes]:
    for path in files:
        yield os.path.relpath(path, root).encode()
        yield str(path.stat().st_mode).encode()
        yield path.read_bytes()


def keys(root: Path, base: str) -> dict[str, str]:
    """Map each unit to the digest of it and of all that it leads to, on top of `base`."""
    known = units(root)
    own = {name: digest(_contents(root, files)) for name, files in known.items()}
    leads = _leads(known)
    found = {}
    for name in known:
        reached, left = {name}, [name]
        while left:
            new = leads[left.pop()] - reached
            reached |= new
            left += new
        found[name] = digest(part.encode() for one in (name, *sorted(reached)) for part in (base, one, own[one]))
    return found


def _leads(known: dict[str, Unit]) -> dict[str, set[str]]:
    """Map each unit to those that it names: too many where a word is a role's name too, never too few."""
    owner = {path.resolve(): name for name, files in known.items() for path in files}
    roles = {Path(name).name: name for name in known if name.startswith("roles/")}
    parts: dict[str, set[str]] = {}
    for path, name in owner.items():
        if path.parent.name in PROVIDES:
            parts.setdefault(path.stem, set()).add(name)
    leads: dict[str, set[str]] = {}
    for name, files in known.items():
        found = leads[name] = set()
        for path in files:
            scalars, names = _words(path)
            found |= {roles[word] for word in scalars & roles.keys()}
            found |= {one for word in names & parts.keys() for one in parts[word]}
            # A relative path of a file: import_playbook, include_tasks, vars_files.
            beside = {(path.parent / word).resolve() for word in scalars if word.endswith((".yml", ".yaml"))}
            found |= {owner[one] for one in beside & owner.keys()}
    return leads


def _words(path: Path) -> tuple[set[str], set[str]]:
    """Return the values that may name a role or a file, and the words that may name a module or a part of one."""
    if path.suffix == ".py":
        return set(), set(UTILITY.findall(path.read_text(errors="replace")))
    if path.suffix not in (".yml", ".yaml"):
        return set(), set()
    text = path.read_text(errors="replace")
    try:
        tokens = [token.value for token in yaml.scan(text, LOADER) if isinstance(token, yaml.ScalarToken)]
    except yaml.YAMLError:
        return set(), set()  # It does not pass, and so it is not remembered.
    return set(tokens), set(re.findall(r"\w+", " ".join(tokens)))


def remembered(path: Path) -> list[str]:
    """Return what passed, the latest last; nothing where the file is not there or was written by something else."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def remember(path: Path, passed: Iterable[str]) -> None:
    """Add to what passed, whole or not at all; of the oldest some are forgotten."""
    new = sorted(passed)
    old = [one for one in remembered(path) if one not in new]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as stream:
        stream.write(json.dumps([*old, *new][-REMEMBERED:]))
    Path(stream.name).replace(path)


def ansible_lint(names: list[str]) -> int:
    """Lint; return the exit status."""
    return subprocess.run(["ansible-lint", "--offline", "-q", *names], cwd=ROOT, check=False).returncode


def run(root: Path, cache: Path, everything: bool, lint: Callable[[list[str]], int] = ansible_lint) -> int:
    """Lint what has not passed as it is now, or everything; return ansible-lint's exit status."""
    before = keys(root, common(root))
    known = set(remembered(cache))
    left = sorted(name for name, key in before.items() if everything or key not in known)
    names = f": {', '.join(left)}" if 0 < len(left) < len(before) else ""
    print(f"{len(left)} of {len(before)} are to be linted{names}", flush=True)
    # Whole folders where all of them is left: what lies beside the units is linted then.
    status = lint(list(FOLDERS) if len(left) == len(before) else left) if left else 0
    if status == 0:
        after = keys(root, common(root))
        remember(cache, [key for name, key in before.items() if after.get(name) == key])
    return status


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="lint everything, whatever passed before")
    sys.exit(run(ROOT, CACHE / "check" / "ansible-lint.json", parser.parse_args().all))
