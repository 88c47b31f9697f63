"""deploy: what a plan holds, and what it notices about hosts that somebody touched."""

import copy
from collections.abc import Callable

import pytest
import recorded_facts as made
from recorded_facts import Facts

from onprem_llm.planning.types import Change, ImageSource, Plan
from onprem_llm.secret_values import fingerprint

TINY = made.MODEL.format(name="tiny", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000)
TINY += "update: {max_surge: 0}\n"  # changed where it is; others are in test_rollout.py


@pytest.fixture
def deployed() -> dict[str, Facts]:
    facts = made.lab()
    return made.applied(made.planned(facts, made.deployment(TINY)), facts)


def change(plan: Plan, subject: str) -> Change:
    return next(change for change in plan.changes if change.subject == subject)


def kinds(plan: Plan) -> list[str]:
    return [step.kind for step in plan.steps]


def test_the_first_deploy_has_every_step_in_order() -> None:
    plan = made.planned(made.lab(), made.deployment(TINY))
    assert [(s.kind, s.title) for s in plan.steps] == [
        ("stage", "Bring images and weights"),
        ("apply", "Start tiny"),
        ("gateway", "Tell the gateway"),
        ("record", "Write the book"),
        ("apply", "Start Open WebUI"),
    ]
    assert plan.revision == 1
    assert plan.gateway == "lab-1"
    assert plan.send_bytes == {"lab-1": 6 * made.GIB + 5_000_700}
    assert [(e.kind, e.url, e.key_file) for e in plan.endpoints] == [
        ("api", "https://10.0.0.2:8080/v1", "/srv/onprem-llm/secrets/client-onprem-llm"),
        ("ui", "http://10.0.0.2:3000", "/srv/onprem-llm/secrets/open-webui-admin"),
    ]


def test_orders_are_as_the_playbooks_read_them() -> None:
    stage, apply, gateway, record, ui = made.planned(made.lab(), made.deployment(TINY)).steps
    staged = stage.orders["lab-1"]
    assert set(staged) == {"images", "weights", "registry"}
    assert set(staged["images"][0]) == {"id", "ref", "archive", "pull", "bytes"}
    assert set(staged["weights"][0]) == {"id", "path", "source", "files", "send"}
    assert staged["weights"][0]["send"] == ["config.json", "model.safetensors"]
    order = apply.orders["lab-1"]
    assert order["keys"] == ["tiny"]
    assert order["keys_host"] == "lab-1"
    (project,) = order["projects"]
    assert set(project) == {"name", "path", "files", "wait", "recreate", "secrets", "readiness"}
    assert project["secrets"]["entries"] == [{"name": "VLLM_API_KEY", "keys": ["tiny"], "separator": ";"}]
    assert project["readiness"]["url"] == "https://10.0.0.2:8000"
    assert project["readiness"]["path"] == "/v1/chat/completions"
    assert project["readiness"]["body"]["model"] == "tiny"
    assert order["firewall"] == {"ports": [8000], "sources": ["10.0.0.2"]}
    assert order["engine_tls"] == {"name": "engine.lab-1", "ca_host": "lab-1"}
    assert ui.orders["lab-1"]["keys"] == ["client-open-webui", "open-webui-session", "open-webui-admin"]
    told = gateway.orders["lab-1"]
    assert set(told) == {"keys", "keys_host", "client_keys", "tls", "project", "engine_keys", "states"}
    assert set(told["project"]) == {"name", "path", "source", "files", "wait", "recreate"}
    assert told["client_keys"] == ["open-webui", "onprem-llm"]
    assert told["engine_keys"] == {"ONPREM_LLM_KEY_TINY": "tiny"}
    assert {"lab-1", "10.0.0.2", "gateway.onprem-llm"} <= set(told["tls"]["names"])
    assert told["states"] == {"tiny/tiny-0": "ready"}
    written = record.orders["lab-1"]
    assert set(written) == {"deployment", "revision", "model_yaml_file", "images", "placement", "event"}
    assert written["placement"] == {"tiny-0": {"host": "lab-1", "revision": 1}}
    assert written["event"] == {"action": "deploy", "deployment": "tiny", "revision": 1}


def test_the_second_deploy_does_nothing(deployed: dict[str, Facts]) -> None:
    plan = made.planned(deployed, made.deployment(TINY))
    assert plan.is_noop
    assert {change.action for change in plan.changes} == {"keep"}
    assert plan.revision == 1
    assert not plan.send_bytes


def test_another_spelling_of_the_same_file_does_nothing(deployed: dict[str, Facts]) -> None:
    text = TINY.replace(
        "max_model_len: 8192, gpu_memory_utilization: 0.9", "gpu_memory_utilization: 0.90, max_model_len: 8192"
    )
    assert made.planned(deployed, made.deployment("# a comment\n" + text + "listen: cluster\n")).is_noop


def container(facts: dict[str, Facts]) -> dict:
    return facts["lab-1"]["projects"]["tiny-0"]["containers"][0]


def container_gone(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["projects"]["tiny-0"]["containers"] = []


def container_stopped(facts: dict[str, Facts]) -> None:
    container(facts).update(state="exited", exit_code=137, health=None)


def container_unhealthy(facts: dict[str, Facts]) -> None:
    container(facts).update(health="unhealthy")


def container_loops(facts: dict[str, Facts]) -> None:
    container(facts).update(state="restarting", restarts=7, exit_code=1)


def container_loops_between_two_starts(facts: dict[str, Facts]) -> None:
    container(facts).update(health="starting", restarts=7, exit_code=0)


def start_was_cut_off(facts: dict[str, Facts]) -> None:
    container(facts).update(health="starting")


def compose_edited(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["projects"]["tiny-0"]["files"]["compose.yaml"] = "0" * 64


def compose_gone(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["projects"]["tiny-0"]["files"] = {}


def file_added(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["projects"]["tiny-0"]["files"]["compose.override.yaml"] = "0" * 64


def container_of_another_image(facts: dict[str, Facts]) -> None:
    container(facts)["image"] = "sha256:" + "1" * 64


def key_changed_on_the_gateway(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["keys"]["tiny"] = fingerprint(made.SALT, "another key")


def key_gone(facts: dict[str, Facts]) -> None:
    del facts["lab-1"]["keys"]["tiny"]


def secrets_file_gone(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["env_secrets"]["tiny-0"] = {}


def secrets_newer_than_the_container(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["projects"]["tiny-0"]["secrets_digest"] = "0" * 16


TOUCHED: list[tuple[Callable[[dict[str, Facts]], None], str, str]] = [
    (container_gone, "restart", "container is gone"),
    (container_stopped, "restart", "container is exited (exit code 137)"),
    (container_unhealthy, "restart", "container is unhealthy"),
    (container_loops, "restart", "container starts over and over (exit code 1)"),
    (container_loops_between_two_starts, "restart", "container starts over and over (exit code 0)"),
    (start_was_cut_off, "wait", "container is still starting"),
    (compose_edited, "update", "compose.yaml was edited on the host"),
    (compose_gone, "update", "compose.yaml is gone from the host"),
    (file_added, "update", "compose.override.yaml does not belong there"),
    (container_of_another_image, "restart", "container runs another image"),
    (key_changed_on_the_gateway, "restart", "key changed"),
    (key_gone, "restart", "key changed"),
    (secrets_file_gone, "restart", "VLLM_API_KEY is missing from its secrets"),
    (secrets_newer_than_the_container, "restart", "container was started with other secrets"),
]


@pytest.mark.parametrize(("touch", "action", "reason"), TOUCHED, ids=lambda value: getattr(value, "__name__", None))
def test_what_somebody_touched_is_noticed_and_mended(
    deployed: dict[str, Facts], touch: Callable[[dict[str, Facts]], None], action: str, reason: str
) -> None:
    before = made.current(deployed).digest()
    touch(deployed)
    plan = made.planned(deployed, made.deployment(TINY))
    assert not plan.is_noop
    assert change(plan, "tiny-0").action == action
    assert reason in change(plan, "tiny-0").reasons
    moved = made.current(deployed).digest() != before
    assert moved or touch in {container_loops, container_loops_between_two_starts, start_was_cut_off}  # these flap
    mended = made.applied(plan, deployed)
    assert made.planned(mended, made.deployment(TINY)).is_noop


def test_a_tag_that_points_elsewhere_is_noticed_and_mended_without_a_restart(deployed: dict[str, Facts]) -> None:
    (image,) = [i for i in deployed["lab-1"]["images"] if made.VLLM_IMAGE in i["tags"]]
    image["tags"] = []
    deployed["lab-1"]["images"].append({"id": "sha256:" + "2" * 64, "tags": [made.VLLM_IMAGE], "digests": []})
    for source in (made.archive(made.VLLM_IMAGE), ImageSource(made.VLLM_IMAGE)):
        plan = made.planned(deployed, made.deployment(TINY, image=source))
        assert kinds(plan) == ["stage"]
        noticed = change(plan, f"image {made.VLLM_IMAGE}")
        assert (noticed.action, noticed.reasons) == ("update", (f"tag {made.VLLM_IMAGE} points to another image",))
        assert not plan.send_bytes
        assert plan.steps[0].orders["lab-1"]["images"][0]["archive"] is None
        mended = made.applied(plan, deployed)
        assert made.planned(mended, made.deployment(TINY, image=source)).is_noop


def test_a_weight_file_that_differs_is_sent_again_alone(deployed: dict[str, Facts]) -> None:
    (stored,) = deployed["lab-1"]["weights"].values()
    stored.update(drift=["model.safetensors"], complete=False)
    plan = made.planned(deployed, made.deployment(TINY))
    assert kinds(plan) == ["stage"]
    assert plan.steps[0].orders["lab-1"]["weights"][0]["send"] == ["model.safetensors"]
    assert plan.changes[0].reasons == ("weight file model.safetensors differs",)
    assert made.planned(made.applied(plan, deployed), made.deployment(TINY)).is_noop


def test_weights_that_were_never_verified_are_sent_whole(deployed: dict[str, Facts]) -> None:
    (stored,) = deployed["lab-1"]["weights"].values()
    stored.update(files=0, bytes=0, complete=False)
    plan = made.planned(deployed, made.deployment(TINY))
    assert len(plan.steps[0].orders["lab-1"]["weights"][0]["send"]) == 2


def test_a_changed_flag_is_a_new_revision_and_says_what_changed(deployed: dict[str, Facts]) -> None:
    plan = made.planned(deployed, made.deployment(TINY.replace("8192", "1024")))
    assert kinds(plan) == ["pending", "gateway", "route", "apply", "route", "gateway", "record"]
    assert plan.revision == 2
    assert change(plan, "tiny-0").reasons == ("engine args: max_model_len 8192 -> 1024",)
    assert 'onprem-llm.revision: "2"' in plan.files["lab-1"]["tiny-0"]["compose.yaml"]


def test_a_revision_that_renders_the_same_restarts_nothing(deployed: dict[str, Facts]) -> None:
    text = TINY + "timeouts: {readiness: 60}\n"
    plan = made.planned(deployed, made.deployment(text))
    # The new revision has to answer once before it is written into the book.
    assert kinds(plan) == ["apply", "record"]
    assert plan.revision == 2
    assert 'onprem-llm.revision: "1"' in plan.files["lab-1"]["tiny-0"]["compose.yaml"]
    assert made.planned(made.applied(plan, deployed), made.deployment(text)).is_noop


def test_other_weights_in_the_same_folder_are_a_new_revision(deployed: dict[str, Facts]) -> None:
    plan = made.planned(deployed, made.deployment(TINY, made.weights("tiny", 6_000_000)))
    assert kinds(plan) == ["stage", "pending", "gateway", "route", "apply", "route", "gateway", "record"]
    assert any(reason.startswith("weights tiny-") for reason in change(plan, "tiny-0").reasons)


def test_another_image_under_the_same_tag_is_a_new_revision(deployed: dict[str, Facts]) -> None:
    source = made.archive(made.VLLM_IMAGE, as_id="sha256:" + "3" * 64)
    plan = made.planned(deployed, made.deployment(TINY, image=source))
    assert kinds(plan) == ["stage", "pending", "gateway", "route", "apply", "route", "gateway", "record"]
    assert any("is another one" in reason for reason in change(plan, "tiny-0").reasons)


def test_an_image_from_a_registry_is_named_by_its_digest_before_and_after() -> None:
    pull = "vllm/vllm-openai@sha256:" + "4" * 64
    item = made.deployment(TINY, image=ImageSource(made.VLLM_IMAGE, pull=pull))
    facts = made.lab()
    plan = made.planned(facts, item)
    assert f'image: "{pull}"' in plan.files["lab-1"]["tiny-0"]["compose.yaml"].replace(pull, f'"{pull}"')
    assert plan.steps[0].orders["lab-1"]["images"][0]["pull"] == pull
    assert made.planned(made.applied(plan, facts), item).is_noop


def test_after_down_the_numbers_of_revisions_go_on() -> None:
    facts = made.lab()
    facts["lab-1"]["book"]["removed"] = {"tiny": 4}
    assert made.planned(facts, made.deployment(TINY)).revision == 5


def test_user_secrets_are_references_and_a_changed_one_is_noticed() -> None:
    text = TINY + "env: {HF_TOKEN: {from_env: HF_TOKEN}}\n"
    item, facts = made.deployment(text), made.lab()
    plan = made.planned(facts, item)
    assert plan.secrets == {"tiny-0": {"HF_TOKEN": {"from_env": "HF_TOKEN"}}}
    assert plan.steps[1].orders["lab-1"]["projects"][0]["secrets"]["values"] == ["HF_TOKEN"]
    facts = made.applied(plan, facts)
    assert made.planned(facts, item).is_noop
    facts["lab-1"]["env_secrets"]["tiny-0"]["HF_TOKEN"] = "other"
    assert change(made.planned(facts, item), "tiny-0").reasons == ("HF_TOKEN changed",)


def test_listening_everywhere_is_said() -> None:
    plan = made.planned(made.lab(), made.deployment(TINY + "listen: all\n"))
    assert '"0.0.0.0:8000:8000"' in plan.files["lab-1"]["tiny-0"]["compose.yaml"]
    assert "listens on every interface" in plan.warnings[0]


def test_code_from_the_weights_is_said() -> None:
    plan = made.planned(made.lab(), made.deployment(TINY + "trust_remote_code: true\n"))
    assert "runs Python code from its weights folder" in plan.warnings[0]


def test_planning_does_not_change_its_input(deployed: dict[str, Facts]) -> None:
    before = copy.deepcopy(deployed)
    made.planned(deployed, made.deployment(TINY))
    assert deployed == before


def test_a_shared_folder_is_written_once() -> None:
    facts = made.lab()
    site = made.site(weights_dir={"path": "/nfs/weights", "shared": True})
    plan = made.planned(facts, made.deployment(TINY), site)
    assert plan.steps[0].orders["lab-1"]["weights"][0]["path"].startswith("/nfs/weights/tiny-")
