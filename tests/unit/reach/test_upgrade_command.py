"""The command around hosts' turns: its questions, its words, its JSON, and what it refuses."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from upgraded_world import CONNECTION, NEW, Asked, World, prepared

from onprem_llm import upgrade_look
from onprem_llm.commands import bootstrap as bootstrap_command
from onprem_llm.commands import upgrade_driver as command
from onprem_llm.errors import InvalidError, OnpremError, UsageError
from onprem_llm.output import PlainProgress
from onprem_llm.spec.site import parse_site
from onprem_llm.upgrading import Outcome, Prepared


def test_a_site_with_a_run_file_is_told(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    site = parse_site({"nvidia_driver": {"run_file": "/drivers/x.run"}}, "x")
    monkeypatch.setattr(upgrade_look, "look_whole", world.look)
    monkeypatch.setattr(upgrade_look, "load_site", lambda *_: site)
    with pytest.raises(InvalidError, match="run_file is set"):
        upgrade_look.prepare("580", CONNECTION, PlainProgress())


def test_an_order_has_what_the_role_asks_for() -> None:
    site = parse_site({"packages_dir": "p", "reboot": "auto", "nvidia_driver": {"kernel_modules": "open"}}, "x")
    order = upgrade_look.order_of(site, "580", "Debian GNU/Linux 13 (trixie)", downgrade=True)
    assert order["package_source"] == "/etc/apt/sources.list.d/onprem-llm-packages.sources"
    assert (order["version"], order["downgrade"], order["reboot"], order["proxy"]) == ("580", True, False, None)
    rocky = upgrade_look.order_of(site, "580", "Rocky Linux 9.6 (Blue Onyx)")
    assert rocky["package_source"] == "/etc/yum.repos.d/onprem-llm-packages.repo"
    nvidia: Any = order["nvidia_driver"]
    assert nvidia["kernel_modules"] == "open"


def with_policy(ready: Prepared, policy: str) -> Prepared:
    return Prepared(ready.plan, parse_site({"reboot": policy}, "x"), ready.before)


USED = {"reboot": ("the GPUs are in use by python3",)}


@pytest.mark.parametrize(
    ("policy", "yes", "terminal", "allowed"),
    [("auto", True, False, True), ("ask", False, True, True), ("ask", True, True, False), ("ask", True, False, False),
     ("never", False, True, False)],
)  # fmt: skip
def test_yes_agrees_to_all_but_a_reboot(
    monkeypatch: pytest.MonkeyPatch, world: World, policy: str, yes: bool, terminal: bool, allowed: bool
) -> None:
    ready = with_policy(prepared(world, **USED), policy)
    asked = Asked(monkeypatch, ready, Outcome({"lab-3": "upgraded"}), terminal=terminal)
    if not allowed:
        with pytest.raises(InvalidError, match="none is allowed; nothing was changed"):
            command.upgrade_driver("580", CONNECTION, check=False, yes=yes, as_json=False)
        assert (asked.questions, asked.reboots) == ([], None)
        return
    command.upgrade_driver("580", CONNECTION, check=False, yes=yes, as_json=False)
    assert asked.reboots == ["lab-3", "lab-2", "lab-1"]
    assert asked.questions[0] == f"Upgrade the driver of lab-3, lab-2, lab-1, one after the other? {yes}"
    assert asked.questions[1:] == (
        [] if policy == "auto" else ["Reboot lab-3, lab-2, lab-1, each drained first? False"]
    )


def test_an_older_driver_is_asked_for_on_its_own(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    ready = prepared(world, loaded="590.44.01", installed="590.44.01")
    asked = Asked(monkeypatch, ready, Outcome(), terminal=True)
    command.upgrade_driver("580", CONNECTION, check=False, yes=False, as_json=False)
    assert asked.questions[1] == "Go back to an older driver on lab-3, lab-2, lab-1? False"
    assert asked.reboots == []


def test_a_check_shows_and_asks_nothing(
    monkeypatch: pytest.MonkeyPatch, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(monkeypatch, prepared(world, **USED), Outcome(), terminal=False)
    command.upgrade_driver("580", CONNECTION, check=True, yes=False, as_json=False)
    assert (asked.questions, asked.reboots) == ([], None)
    assert "lab-3 is the canary: nothing serves there" in capsys.readouterr().out


def test_json_has_the_states_and_the_error_follows(
    monkeypatch: pytest.MonkeyPatch, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome({"lab-3": "failed"}, ["lab-3"], OnpremError("lab-3: no"))
    Asked(monkeypatch, prepared(world), outcome, terminal=False)
    with pytest.raises(OnpremError, match="lab-3: no"):
        command.upgrade_driver("580", CONNECTION, check=False, yes=True, as_json=True)
    text = capsys.readouterr().out
    assert '"state": "failed"' in text
    assert text.count('"state": "waiting"') == 2


def test_a_second_run_over_hosts_that_have_it_does_nothing(
    monkeypatch: pytest.MonkeyPatch, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(monkeypatch, prepared(world, loaded=NEW, installed=NEW, done=True), Outcome(), terminal=False)
    command.upgrade_driver("580", CONNECTION, check=False, yes=False, as_json=False)
    assert (asked.questions, asked.reboots) == ([], None)
    assert "Nothing to do: driver 580 runs wherever it could." in capsys.readouterr().out


@pytest.mark.parametrize("version", ["latest", "58", "580-open", "580.95.05;id"])
def test_what_is_no_version_is_told_before_any_host_is_asked(version: str, tmp_path: Path) -> None:
    (tmp_path / "i").write_text("a\n")
    with pytest.raises(UsageError, match="expected a branch or a version"):
        command.upgrade_driver(version, CONNECTION, check=False, yes=True, as_json=False)
    done = CliRunner().invoke(bootstrap_command.command, [str(tmp_path / "i"), "--upgrade-driver", version])
    assert isinstance(done.exception, UsageError | click.UsageError)
