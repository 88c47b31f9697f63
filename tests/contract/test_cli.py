"""The command line against what is written about it."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from onprem_llm.errors import ExitCode
from onprem_llm.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
CLI_DOC = ROOT / "docs" / "cli.md"


def commands() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name in COMMANDS:
        command = importlib.import_module(f"onprem_llm.commands.{name}").command
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {inner}", command.commands[inner]) for inner in command.commands]
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_command_and_option_is_documented(name: str, command: click.Command) -> None:
    text = CLI_DOC.read_text(encoding="utf-8")
    section = re.search(rf"^##+ `onprem-llm {re.escape(name)}[ `].*?(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"docs/cli.md has no section `onprem-llm {name}`"
    connection = {"--inventory", "--limit", "--skip-unreachable", "--ask-become-pass", "--ask-pass", "--private-key",
                  "--ask-vault-pass", "--vault-password-file", "--forks"}  # fmt: skip
    options = {max(p.opts, key=len) for p in command.params if isinstance(p, click.Option)} - connection
    missing = [option for option in options if f"`{option}" not in section.group()]
    assert not missing, f"docs/cli.md, {name}: {missing} are missing"


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_help_has_an_example(name: str, command: click.Command) -> None:
    assert "Example" in (command.help or ""), f"onprem-llm {name} --help shows no example"


def test_short_helps_are_the_commands_own() -> None:
    for name, text in COMMANDS.items():
        command = importlib.import_module(f"onprem_llm.commands.{name}").command
        assert command.short_help == text, name


def test_connection_options_are_documented_once() -> None:
    text = CLI_DOC.read_text(encoding="utf-8")
    options = {
        max(parameter.opts, key=len)
        for name, command in commands()
        if name in {"deploy", "status"}
        for parameter in command.params
        if isinstance(parameter, click.Option)
    }
    assert not [option for option in options if f"`{option}" not in text]


def test_commands_without_a_limit_are_documented() -> None:
    """And no others: a document that promises it everywhere sends people into `no such option`."""
    group = {name for name, command in commands() if isinstance(command, click.Group)} - {"lab"}
    options = {name: {p.name for p in command.params} for name, command in commands() if name not in group}
    without = {name for name, params in options.items() if "skip_unreachable" in params and "limit" not in params}
    said = re.search(r"but `--limit`: (.*?) have none", CLI_DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert said
    named = re.findall(r"`([^`]+)`", said[1])
    assert {next((one for one in named if one in (name, name.split()[0])), name) for name in without} == set(named)


def test_exit_codes_are_documented() -> None:
    text = CLI_DOC.read_text(encoding="utf-8")
    for code in ExitCode:
        assert f"| {code.value} |" in text, code


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'ansible_runner', 'pydantic', 'yaml', 'rich', 'docker', 'huggingface_hub', 'modelscope'}"
    script = (
        "import sys; sys.argv = ['onprem-llm', '--help']\n"
        "from onprem_llm.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        f"loaded = {heavy} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_group_lists_what_it_has() -> None:
    assert cli.list_commands(click.Context(cli)) == list(COMMANDS)
