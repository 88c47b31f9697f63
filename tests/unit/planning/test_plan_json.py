"""Plans as JSON: there and back, byte for byte, and without a secret."""

import json
import re
from pathlib import Path

import pytest
import recorded_facts as made

from onprem_llm.errors import InvalidError
from onprem_llm.plan_folder import read_folder
from onprem_llm.planning.serial import from_json, to_json
from onprem_llm.planning.types import Plan

TEXT = made.MODEL.format(name="tiny", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000)
TINY = made.deployment(TEXT + "env: {HF_TOKEN: {from_env: HF_TOKEN}, NOTE: 'ä {{ x }}'}\n")


@pytest.fixture(scope="module")
def rolling() -> Plan:
    """A plan with a step of every kind and ways back."""
    facts = made.lab()
    facts = made.applied(made.planned(facts, made.deployment(TEXT + "replicas: 2\n")), facts)
    update = "replicas: 2\nupdate: {max_surge: 1}\n"
    plan = made.planned(facts, made.deployment(TEXT.replace("8192", "1024") + update, made.weights("tiny", 6_000_000)))
    kinds = {step.kind for step in plan.steps} | {back.kind for step in plan.steps for back in step.undo}
    assert kinds == {"stage", "apply", "gateway", "route", "restore", "remove", "pending", "record"}
    return plan


def test_there_and_back_with_its_ways_back(rolling: Plan) -> None:
    text = to_json(rolling)
    assert from_json(text, "plan.json") == rolling
    assert to_json(from_json(text, "plan.json")) == text


def test_there_and_back() -> None:
    plan = made.planned(made.lab(), TINY)
    text = to_json(plan)
    assert from_json(text, "plan.json") == plan
    assert to_json(from_json(text, "plan.json")) == text


def test_the_same_hosts_give_the_same_bytes() -> None:
    assert to_json(made.planned(made.lab(), TINY)) == to_json(made.planned(made.lab(), TINY))


def test_no_secret_and_no_fingerprint_of_one_is_in_it() -> None:
    facts = made.lab()
    facts = made.applied(made.planned(facts, TINY), facts)
    facts["lab-1"]["projects"]["tiny-0"]["containers"] = []
    text = to_json(made.planned(facts, TINY))
    assert "value of HF_TOKEN" not in text
    prints = [*facts["lab-1"]["keys"].values(), *facts["lab-1"]["env_secrets"]["tiny-0"].values()]
    assert not [value for value in prints if value in text]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "expected 4"),
        ('{"version": 3}', "found plan version 3, expected 4"),
        ('{"version": 4}', "no whole plan"),
        ('{"version": 4, "verb": 3}', "no whole plan"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidError, match=r"plan\.json") as raised:
        from_json(text, "plan.json")
    assert said in raised.value.message


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"kind": "stage"', '"kind": "format"', "kind: found 'format', expected registry, stage, "),
        ('"kind": "api"', '"kind": "apl"', "kind: found 'apl', expected api, ui"),
        ('"action": "create"', '"action": "make"', "action: found 'make', expected create, "),
        ('"verb": "deploy"', '"verb": "format"', "verb: found 'format', expected deploy, "),
        ('"steps":', '"step":', "steps: found nothing, expected "),
        ('"warnings": []', '"warnings": {}', "found {}, expected a list"),
        ('"gateway": "lab-1"', '"gateway": ["lab-1"]', "gateway: found ['lab-1'], expected text"),
        ('"model_yaml": "', '"model_yaml": "\\ud800', "surrogates"),
    ],
)
def test_what_is_not_a_plans_is_named_with_what_is(old: str, new: str, said: str) -> None:
    text = to_json(made.planned(made.lab(), TINY))
    assert old in text
    with pytest.raises(InvalidError, match=r"plan\.json: this is no whole plan: ") as raised:
        from_json(text.replace(old, new), "plan.json")
    assert said in raised.value.message


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(InvalidError, match=r"plan\.json: this is no text"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"compose.yaml":', '"../compose.yaml":', "without .."),
        ('"compose.yaml":', '"/etc/cron.d/x":', "without .."),
        ('"compose.yaml":', '"a/../../x":', "without .."),
        ('"name": "tiny-0"', '"name": "../tiny-0"', "plain name"),
        ('"tiny-0": {', '"..": {', "plain name"),
        ('"lab-1": {', '"/lab-1": {', "plain name"),
        ('"model_yaml_file": "model.yaml"', '"model_yaml_file": "/etc/shadow"', "without .."),
        ('"path": "config.json"', '"path": "../config.json"', "without .."),
    ],
)
def test_names_that_leave_their_folder_are_refused(old: str, new: str, said: str) -> None:
    text = to_json(made.planned(made.lab(), TINY))
    assert old in text
    with pytest.raises(InvalidError, match=r"plan\.json: .*" + said.replace(".", r"\.")):
        from_json(text.replace(old, new), "plan.json")


@pytest.mark.parametrize(
    ("kind", "place", "value", "said"),
    [
        ("restore", ("projects", 0, "name"), "../tiny-0", "plain name"),
        ("remove", ("projects", 0, "name"), "..", "plain name"),
        ("gateway", ("project", "name"), "a/b", "plain name"),
        ("gateway", ("project", "source"), "../gateway", "plain name"),
        ("gateway", ("project", "files"), {"../x": "0"}, "without .."),
        ("gateway", ("client_keys",), ["../x"], "plain name"),
        ("gateway", ("keys_host",), "../x", "plain name"),
        ("gateway", ("tls",), {"mode": "ca", "names": [], "ca_host": "a/b"}, "plain name"),
        ("gateway", ("engine_keys",), {"ONPREM_LLM_KEY_TINY": "../../x"}, "plain name"),
        ("gateway", ("states",), {"tiny/tiny-0; shutdown sessions": "ready"}, "deployment/project"),
        ("route", ("drain",), ["tiny/tiny-0; shutdown sessions"], "deployment/project"),
        ("route", ("ready",), ["tiny"], "deployment/project"),
        ("gateway", ("states", "tiny/tiny-0"), "ready; shutdown sessions", "expected ready or drain or maint"),
        ("gateway", ("tls",), {"mode": "none", "names": [], "ca_host": "lab-1"}, "expected off or ca or files"),
    ],
)
def test_names_in_steps_and_their_ways_back_are_looked_at(
    rolling: Plan, kind: str, place: tuple[str | int, ...], value: object, said: str
) -> None:
    for undone in (False, True):
        edited = json.loads(to_json(rolling))
        found = [back for step in edited["steps"] for back in step.get("undo", ())] if undone else edited["steps"]
        orders = next((step["orders"] for step in found if step["kind"] == kind), None)
        if orders is None:  # a kind that stands on one side only
            continue
        at = next(iter(orders.values()))
        for key in place[:-1]:
            at = at[key]
        at[place[-1]] = value
        with pytest.raises(InvalidError, match=rf"plan\.json: .*{'undo' if undone else 'steps'}.*{re.escape(said)}"):
            from_json(json.dumps(edited), "plan.json")
