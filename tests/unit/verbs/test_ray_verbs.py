"""The verbs for deployments on Ray beside their plans: scale, restart, restore, and what a failed deploy says."""

from pathlib import Path

import pytest
import recorded_facts as made
from click.testing import CliRunner
from recorded_ray import BOUNDS, RAY, Hosts, cluster, deployed, model, site

from onprem_llm import apply, host_moves, planned
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.host_moves import Leaving, resettle
from onprem_llm.look import View
from onprem_llm.main import cli
from onprem_llm.output import glimpse
from onprem_llm.planning.types import Plan, Step


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """Return hosts with tiny on Ray, which every look sees, in a folder with an inventory."""
    hosts = deployed(cluster(), model(BOUNDS.format(3)))
    for state in hosts.values():
        state["site"] = {"ray": {"image": RAY}, "open_webui": {"enabled": False}}
    for module in (planned, host_moves):
        monkeypatch.setattr(module, "look_whole", lambda *_, **__: View(made.current(hosts), (), made.SALT))
    monkeypatch.setattr("onprem_llm.changing.apply", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inventory.ini").write_text("lab-1\n")
    monkeypatch.setenv("ONPREM_LLM_INVENTORY", str(tmp_path / "inventory.ini"))
    return hosts


def test_scale_says_what_becomes_of_the_bounds(facts: Hosts) -> None:
    done = CliRunner().invoke(cli, ["scale", "tiny", "--replicas", "2", "--yes"])
    assert done.exit_code == 0, done.output
    assert "replicas: 1 to 3 -> 2" in done.output


def test_restart_is_refused_with_what_to_do_instead(facts: Hosts) -> None:
    error = CliRunner().invoke(cli, ["restart", "tiny", "--yes"]).exception
    assert isinstance(error, InvalidError)
    assert "a deployment on Ray is not restarted" in error.message
    assert 'RESTARTED: "1"' in str(error.hint)


def test_restore_plans_it_with_the_bounds_that_it_has(facts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    carried: list[Plan] = []
    monkeypatch.setattr(host_moves, "carry", lambda plan, *_, **__: carried.append(plan))
    facts["lab-1"]["serve"]["applications"] = {}
    with glimpse() as progress:
        (one,) = resettle(
            ["tiny"], Leaving("", "lost", None, ()), Connection(inventory=Path("inventory.ini")), progress
        )
    assert one.why is None
    (plan,) = carried
    assert [step.kind for step in plan.steps] == ["ray_serve"]
    assert "max: 3" in plan.model_yaml


def test_restore_goes_on_where_no_cluster_stands(facts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    carried: list[Plan] = []
    monkeypatch.setattr(host_moves, "carry", lambda plan, *_, **__: carried.append(plan))
    for state in facts.values():
        state["projects"] = {name: one for name, one in state["projects"].items() if not name.startswith("ray-")}
    with glimpse() as progress:
        (one,) = resettle(
            ["tiny"], Leaving("", "lost", None, ()), Connection(inventory=Path("inventory.ini")), progress
        )
    assert one.after == 0
    assert [step.kind for plan in carried for step in plan.steps] == ["gateway"], "which forgets the nodes"
    assert "no Ray cluster stands" in str(one.why)


def test_restore_brings_up_the_gateway_whatever_the_cluster_is_like(
    facts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried: list[Plan] = []
    monkeypatch.setattr(host_moves, "carry", lambda plan, *_, **__: carried.append(plan))
    facts["lab-1"]["projects"]["ray-head"]["containers"][0]["state"] = "exited"
    facts["lab-1"]["projects"].pop("gateway")
    facts["lab-1"]["gateway"] = None
    with glimpse() as progress:
        (one,) = resettle(
            ["tiny"], Leaving("", "lost", None, ()), Connection(inventory=Path("inventory.ini")), progress
        )
    assert "does not run" in str(one.why)
    (plan,) = carried
    assert [step.kind for step in plan.steps] == ["gateway"]


@pytest.mark.parametrize(
    ("before", "said"),
    [("", "tiny is not on Ray any more"), (model(), "tiny is as it was before: the old revision serves")],
)
def test_a_deploy_that_does_not_come_to_serve_says_what_is_left(
    before: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hosts = deployed(cluster(), before) if before else cluster()
    plan = made.planned(hosts, made.deployment(model().replace("8192", "1024")), site())
    ran: list[str] = []

    def run(_: object, step: Step, number: int) -> None:
        ran.append(step.title)
        if step.kind == "ray_serve" and not _is_undo(step):
            raise OnpremError("Ray said no")

    monkeypatch.setattr(apply._Run, "_step", run)
    monkeypatch.setattr(apply, "note_event", lambda *_, **__: None)
    with glimpse() as progress, pytest.raises(OnpremError) as raised:
        apply._Run(plan, tmp_path, Connection(inventory=tmp_path), progress, {}).steps()
    assert said in raised.value.message
    assert ("the old revision" in raised.value.message) is bool(before)
    assert ran[-1] == ("Write that revision 2 is taken back" if before else "Take tiny from Ray Serve")


def _is_undo(step: Step) -> bool:
    return any(order["source"] == "ray-serve.before" for order in step.orders.values())
