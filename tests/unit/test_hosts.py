"""Typed hosts from the probe: tolerant, and a digest over what decides."""

import copy
import hashlib

import pytest
import recorded_facts as made

from onprem_llm.errors import InvalidError
from onprem_llm.probe import parse_current, parse_host
from onprem_llm.secret_values import fingerprint

TINY = made.MODEL.format(name="tiny", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000)


def test_an_almost_empty_probe_is_a_host() -> None:
    host = parse_host("bare", {"schema": 2})
    assert (host.name, host.hostname, host.gpus, host.projects, host.book) == ("bare", "bare", (), {}, None)
    assert not host.engine.running
    assert host.cluster_address == "bare"


@pytest.mark.parametrize("value", [None, "[N/A]", "N/A", [], {}, "x", 3])
def test_odd_values_break_nothing(value: object) -> None:
    probe = made.host("lab-1", 1, gpus=1)
    for key in list(probe):
        if key != "schema":
            parse_host("lab-1", {**probe, key: value})
    for key in list(probe["gpus"]["devices"][0]):
        broken = copy.deepcopy(probe)
        broken["gpus"]["devices"][0][key] = value
        parse_host("lab-1", broken)


def test_facts_of_another_schema_are_refused() -> None:
    with pytest.raises(InvalidError, match=r"old: found facts of schema 0, expected 2"):
        parse_host("old", {"schema": 0})
    with pytest.raises(InvalidError, match=r"odd: found facts of schema None"):
        parse_host("odd", "text")


def test_settings_must_be_the_same_on_all_hosts() -> None:
    facts = made.lab()
    facts["lab-2"]["site"] = {"public_port": 1}
    with pytest.raises(InvalidError, match="not the same on lab-1 and lab-2"):
        parse_current(facts).site_settings()


def deployed() -> dict:
    facts = made.lab()
    return made.applied(made.planned(facts, made.deployment(TINY)), facts)


def test_the_digest_leaves_out_what_changes_by_itself() -> None:
    facts = deployed()
    before = parse_current(facts).digest()
    state = facts["lab-1"]
    state["host"].update(memory_available=1, boot_id="other")
    for disk in state["disks"].values():
        disk["free"] -= 1
    state["listeners"].append({"address": "127.0.0.1", "port": 45321, "pid": 1, "process": "sshd"})
    state["listeners"].append({"address": "10.0.0.2", "port": 8000, "pid": 1, "process": "docker-proxy"})
    state["listeners"][0]["pid"] = 99
    own, _ = state["gpus"]["devices"]
    own.update(memory_used=70000, processes=[{"pid": 1, "name": "VLLM::EngineCore", "memory": 70000}])
    container = state["projects"]["tiny-0"]["containers"][0]
    container.update(started_at="later", restarts=3, id="other", health="starting")
    state["gateway"]["servers"]["tiny/tiny-0"].update(sessions=9, up=False, check="L4CON")
    state["certificates"]["gateway"].update(not_after=1)
    state["client_keys"] = {name: value[::-1] for name, value in state["client_keys"].items()}
    state["lock"] = {"owner": "me", "age": 3, "unit": "u"}
    salted = {key: value[::-1] for key, value in state["keys"].items()}
    state["keys"], state["env_secrets"]["tiny-0"] = salted, {"VLLM_API_KEY": salted["tiny"]}
    assert parse_current(facts).digest() == before


@pytest.mark.parametrize(
    "touch",
    [
        lambda s: s["projects"]["tiny-0"]["containers"][0].update(state="exited"),
        lambda s: s["projects"]["tiny-0"]["containers"][0].update(health="unhealthy"),
        lambda s: s["projects"]["tiny-0"]["containers"][0].update(image="sha256:1"),
        lambda s: s["projects"]["tiny-0"]["files"].update({"compose.yaml": "1"}),
        lambda s: s["projects"].pop("tiny-0"),
        lambda s: s["images"][0]["tags"].clear(),
        lambda s: s["gpus"]["devices"][1].update(processes=[{"pid": 1, "name": "x", "memory": 1}]),
        lambda s: next(iter(s["weights"].values())).update(drift=["config.json"]),
        lambda s: s["listeners"].append({"address": made.EVERYWHERE, "port": 80, "pid": 1, "process": "nginx"}),
        lambda s: s["book"]["deployments"]["tiny"].update(revision=2),
        lambda s: s["keys"].update(tiny="other"),
        lambda s: s["keys"].pop("tiny"),
        lambda s: s["engine"].update(running=False),
        lambda s: s["groups"].append("fast"),
        lambda s: s["site"].update(public_port=1),
        lambda s: s.update(default_address="10.9.9.9"),
        lambda s: s["book"]["deployments"]["tiny"]["placement"]["tiny-0"].update(host="lab-2"),
        lambda s: s["book"].update(hosts={"lab-2": {"state": "drained", "by": "me", "at": "now"}}),
        lambda s: s["gateway"].update(running=False),
        lambda s: s["gateway"].update(pending_reload=True),
        lambda s: s["gateway"]["servers"]["tiny/tiny-0"].update(admin="drain"),
        lambda s: s["firewall"].update(active=False),
        lambda s: s["firewall"]["ports"].append(1),
        lambda s: s["certificates"]["gateway"].update(names=[]),
        lambda s: s["client_keys"].pop("open-webui"),
    ],
)
def test_the_digest_has_what_a_plan_depends_on(touch) -> None:
    facts = deployed()
    before = parse_current(facts).digest()
    touch(facts["lab-1"])
    assert parse_current(facts).digest() != before


def test_what_ray_serve_says_refuses_no_plan_it_may_be_silent_for_a_while() -> None:
    facts = made.lab()
    part = {"status": "HEALTHY", "message": "", "target": 1, "replicas": [{"id": "x", "state": "RUNNING"}], "dead": []}
    tiny = {"status": "RUNNING", "message": "", "told": "a1", "parts": {"LLMServer:tiny": part}}
    facts["lab-1"]["serve"] = {"error": None, "port": 8100, "proxies": {}, "applications": {"tiny": tiny}}
    before = parse_current(facts).digest()
    tiny["status"], part["target"], part["replicas"] = "DEPLOYING", 2, []
    facts["lab-1"]["serve"]["proxies"] = {"10.0.0.2": "DRAINING"}
    assert parse_current(facts).digest() == before
    tiny["told"], tiny["status"] = "b2", "DELETING"
    assert parse_current(facts).digest() == before
    facts["lab-1"]["serve"] = {"error": "the cluster's head does not answer: TimeoutError"}
    assert parse_current(facts).digest() == before


def test_hosts_that_do_not_answer_are_in_the_digest() -> None:
    facts = made.lab()
    assert parse_current(facts).digest() != parse_current(facts, ["lab-3"]).digest()


def test_a_fingerprint_goes_by_the_parts_of_a_list() -> None:
    one = hashlib.sha256(b"sa").hexdigest()[:16]
    assert fingerprint("s", "a") == one
    assert fingerprint("s", "a;b").split(";")[0] == one
