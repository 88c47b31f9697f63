"""A plan that was edited by hand: no role writes or removes anything outside of the site's folders."""

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import gang_lab
import own_registry as own
import pytest
import recorded_facts as made
import recorded_ray
from click.testing import CliRunner
from planning_lab import deploy, lab, model

from onprem_llm.commands import deploy as command
from onprem_llm.errors import InvalidError
from onprem_llm.look import View
from onprem_llm.plan_folder import write_folder
from onprem_llm.planning.plan import plan
from onprem_llm.planning.plan_paths import check_paths
from onprem_llm.planning.serial import from_json, to_json
from onprem_llm.planning.types import Plan, StepKind
from onprem_llm.probe import parse_current
from onprem_llm.spec.site import Site, parse_site

ROOT = "/srv/onprem-llm"
# What these kinds order has no path: names and numbers of the book, of the gateway's servers, of Ray's nodes.
WITHOUT_PATHS = {
    "route", "pending", "record", "marks", "book_copy", "schedule", "schedule_rest",
    "ray_image", "ray_nodes", "ray_drain",
}  # fmt: skip


def rolling() -> Plan:
    """One replica goes, the others change; the way back puts the old ones back."""
    facts = deploy(lab(4, 4), model("replicas: 3\n"))
    text = model("replicas: 2\nupdate: {max_surge: 1}\n").replace("8192", "1024")
    return made.planned(facts, made.deployment(text, made.weights("tiny", 6_000_000)))


def passed_on() -> Plan:
    item = made.deployment(model("replicas: 3\n"), made.weights(size=3 * made.GIB))
    return made.planned(lab(1, 1, 1), item)


def registry() -> Plan:
    return own.planned(lab(1, 1))


def down() -> Plan:
    facts = deploy(lab(1, 1), model())
    return plan(Site(), made.without(facts, "tiny", purge=True), parse_current(facts))


def gang() -> Plan:
    """A first deploy over two hosts: where a part fails, all are stopped."""
    return made.planned(gang_lab.hosts(2), made.deployment(gang_lab.gang()))


def on_ray() -> Plan:
    return recorded_ray.planned(recorded_ray.cluster(), recorded_ray.model())


PLANS: tuple[Callable[[], Plan], ...] = (rolling, passed_on, registry, down, gang, on_ray)
EDITS: dict[str, list[tuple[tuple[str | int, ...], object]]] = {
    "registry": [
        (("projects", 0, "path"), "/etc/registry"),
        (("store", "path"), "/etc/registry/data"),
        (("tls", "file"), f"{ROOT}/secrets/engine.crt"),
        (("images", 0, "incoming"), "/etc"),
    ],
    "stage": [
        (("weights", 0, "path"), "/etc"),
        (("weights", 0, "path"), f"{ROOT}/weights/../secrets"),
        (("weights", 0, "path"), f"{ROOT}/weights/another"),
        (("weights", 0, "id"), ".."),
        (("weights", 0, "send"), ["../../etc/passwd"]),
        (("weights", 0, "send"), ["another.safetensors"]),
        (("weights", 0, "send"), {"config.json": 1}),
        (("weights", 0, "files"), {"config.json": 1}),
        (("weights",), {"tiny": {"id": "tiny", "path": "/etc"}}),
        (("weights", 0), "/etc"),
        (("images",), {"one": {}}),
    ],
    "fan_out": [
        (("weights", 0, "path"), "/root"),
        (("chain", "folder"), "/root"),
        (("chain",), []),
        (("chain", "members"), {"lab-1": "10.0.0.2"}),
        (("chain", "members", 0), "lab-1"),
    ],
    "apply": [
        (("projects", 0, "path"), "/root"),
        (("projects", 0, "path"), f"{ROOT}/another"),
        (("projects", 0, "path"), f"{ROOT}/tiny-0/../../x"),
        (("projects", 0), "/root"),
        (("projects",), {"tiny-0": {"name": "tiny-0", "path": "/root"}}),
        (("projects", 0, "files"), ["compose.yaml"]),
        (("keys",), "tiny"),
        (("firewall", "state"), "gone"),
        (("firewall", "gangs"), {"ports": [7600]}),
        (("gang_lines",), {"ports": [7600]}),
        (("gang_lines", 0, "peers"), "lab-2"),
    ],
    "gateway": [
        (("project", "path"), "/etc"),
        (("project", "path"), f"{ROOT}/secrets"),
        (("project",), "/etc"),
        (("states",), ["tiny/tiny-0"]),
    ],
    "ray_serve": [
        (("source",), "../../etc"),
        (("source",), "/etc"),
        (("token",), "../../../etc/shadow"),
        (("names",), "tiny"),
        (("path",), "/etc"),
    ],
    "restore": [(("projects", 0, "path"), "/etc")],
    "stop": [(("projects", 0, "path"), "/etc"), (("projects",), "wide-0")],
    "remove": [
        (("projects", 0, "path"), "/"),
        (("projects", 0), {"name": "secrets", "path": f"{ROOT}/secrets", "purge": True}),
        (("weights",), ["/home"]),
        (("weights",), [f"{ROOT}/weights/.."]),
        (("weights",), [f"{ROOT}/weights"]),
        (("weights",), [f"{ROOT}/weights/a/b"]),
        (("weights",), {f"{ROOT}/weights/..": 1}),
        (("projects",), {"secrets": {"name": "secrets", "path": f"{ROOT}/secrets", "purge": True}}),
    ],
}


@pytest.mark.parametrize("make", PLANS)
def test_what_is_planned_stays_in_the_sites_folders(make: Callable[[], Plan]) -> None:
    made_plan = make()
    check_paths(made_plan, Site())
    with pytest.raises(ValueError, match=r"expected .*/data/llm/"):
        check_paths(made_plan, parse_site({"data_root": "/data/llm"}, "test"))


def steps(value: Any) -> Iterator[Any]:
    for step in value["steps"]:
        yield step
        yield from step.get("undo", ())


def test_every_kind_is_looked_at_here() -> None:
    assert EDITS.keys() | WITHOUT_PATHS == set(get_args(StepKind))
    for make in PLANS:
        for step in steps(json.loads(text_of(make))):
            if step["kind"] in WITHOUT_PATHS:
                assert '"/' not in json.dumps(step["orders"])


@functools.cache
def text_of(make: Callable[[], Plan]) -> str:
    return to_json(make())


def edited(text: str, kind: str, place: tuple[str | int, ...], value: object) -> Iterator[str]:
    """Yield a plan once for each of its steps of this kind, ways back too, with one thing in an order replaced."""
    kinds = [step["kind"] for step in steps(json.loads(text))]
    for number in (number for number, one in enumerate(kinds) if one == kind):
        whole = json.loads(text)
        at = next(iter(list(steps(whole))[number]["orders"].values()))
        with contextlib.suppress(LookupError):  # the order has nothing there
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = value
            yield json.dumps(whole)


@pytest.mark.parametrize(("kind", "place", "value"), [(kind, *edit) for kind, edits in EDITS.items() for edit in edits])
def test_a_path_that_leads_elsewhere_is_refused(kind: str, place: tuple[str | int, ...], value: object) -> None:
    texts = [text for make in PLANS for text in edited(text_of(make), kind, place, value)]
    assert texts
    for text in texts:
        with pytest.raises((InvalidError, ValueError), match=r"(steps|undo)\..*found.*expected"):
            check_paths(from_json(text, "plan.json"), Site())


@pytest.mark.parametrize("folder", ["models", "models/of/all"])
def test_a_weights_folder_inside_data_root_is_no_projects(folder: str) -> None:
    site = parse_site({"weights_dir": {"path": f"{ROOT}/{folder}"}}, "test")
    whole = next(edited(text_of(down), "remove", ("weights",), []))
    check_paths(from_json(whole, "plan.json"), site)
    purged = {"name": "models", "path": f"{ROOT}/models", "purge": True}
    for text in edited(whole, "remove", ("projects", 0), purged):
        with pytest.raises(ValueError, match=rf"projects\.0\.path: found '{ROOT}/models', expected no folder"):
            check_paths(from_json(text, "plan.json"), site)


def test_deploy_refuses_it_before_it_asks_and_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = lab(4, 4)
    found = made.planned(facts, made.deployment(model()))
    current = parse_current(facts)
    write_folder(replace(found, based_on=current.digest()), tmp_path / "change")
    path = tmp_path / "change" / "plan.json"
    path.write_text(path.read_text().replace(f'"{ROOT}/tiny-0"', '"/etc"'))
    (tmp_path / "inventory.ini").touch()
    monkeypatch.setattr("onprem_llm.apply.look_whole", lambda *_, **__: View(current, (), "salt"))
    monkeypatch.setattr(command, "carry_out", lambda *_, **__: pytest.fail("it was carried out"))
    words = ["--plan", str(tmp_path / "change"), "-i", str(tmp_path / "inventory.ini"), "--yes"]
    error = CliRunner().invoke(command.command, words).exception
    assert isinstance(error, InvalidError)
    assert re.search(rf"{path}: steps\.\d\.orders\.lab-1\.projects\.0\.path: found '/etc', ", error.message)
    assert f"expected {ROOT}/tiny-0" in error.message
    assert "plan MODEL_YAML --out" in (error.hint or "")
