"""Open WebUI over all deployments, and taking one away."""

import pytest
import recorded_facts as made
from recorded_facts import Facts

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import Plan, Wanted, WantedDeployment
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.spec.site import Site


def model_text(name: str, port: int) -> str:
    return made.MODEL.format(name=name, image=made.VLLM_IMAGE, gpus=1, model="H100", port=port)


def model(name: str, port: int, extra: str = "") -> WantedDeployment:
    return made.deployment(model_text(name, port) + extra)


@pytest.fixture
def two() -> dict[str, Facts]:
    facts = made.lab()
    for item in (model("zebra", 8001), model("apple", 8002)):
        facts = made.applied(made.planned(facts, item), facts)
    return facts


def down(facts: dict[str, Facts], name: str, *, purge: bool = False, unreachable: tuple[str, ...] = ()) -> Plan:
    current = made.current(facts, unreachable)
    others = [WantedDeployment(parse_deployment(e.model_yaml, n)) for n, e in current.book.items() if n != name]
    wanted = Wanted(
        tuple(others),
        remove=name,
        purge=purge,
        ui_image=made.archive(made.UI_IMAGE),
        gateway_image=made.archive(made.GATEWAY_IMAGE),
    )
    return plan(Site(), wanted, current)


def page(result: Plan) -> str:
    return result.files["lab-1"]["open-webui"]["compose.yaml"]


def urls(text: str) -> str:
    return next(line.partition(": ")[2].strip('"') for line in text.splitlines() if "OPENAI_API_BASE_URLS" in line)


def test_the_page_has_the_gateways_address_and_a_key_of_its_own() -> None:
    result = made.planned(made.lab(), model("apple", 8002))
    assert urls(page(result)) == "https://10.0.0.2:8080/v1"
    step = next(s for s in result.steps if s.title == "Start Open WebUI")
    (project,) = step.orders["lab-1"]["projects"]
    assert project["secrets"]["entries"][0] == {
        "name": "OPENAI_API_KEYS", "keys": ["client-open-webui"], "separator": ";",
    }  # fmt: skip


def test_another_deployment_changes_nothing_on_the_page(two: dict[str, Facts]) -> None:
    result = made.planned(two, model("plum", 8003))
    assert [c.action for c in result.changes if c.subject == "open-webui"] == ["keep"]
    assert "Start Open WebUI" not in [step.title for step in result.steps]


def test_another_key_of_the_page_restarts_it(two: dict[str, Facts]) -> None:
    two["lab-1"]["client_keys"]["open-webui"] = "0" * 16
    result = made.planned(two, model("apple", 8002))
    assert [step.title for step in result.steps] == ["Start Open WebUI"]
    assert [c.reasons for c in result.changes if c.subject == "open-webui"] == [("key changed",)]


@pytest.mark.parametrize("key", [None, "0" * 16], ids=["gone", "another"])
def test_a_lost_key_of_another_deployment_is_said_and_mended(two: dict[str, Facts], key: str | None) -> None:
    two["lab-1"]["keys"].pop("zebra")
    two["lab-1"]["keys"] |= {"zebra": key} if key else {}
    assert any("deploy zebra again" in warning for warning in made.planned(two, model("apple", 8002)).warnings)
    result = made.planned(two, model("zebra", 8001))
    assert [warning.partition(":")[0] for warning in result.warnings] == ["there will be a gap"]
    mended = made.applied(result, two)
    assert made.planned(mended, model("zebra", 8001)).is_noop
    assert made.planned(mended, model("apple", 8002)).is_noop


def test_engines_that_do_not_chat_are_not_listed() -> None:
    result = made.planned(made.lab(), model("vectors", 8001, "task: embed\n"))
    assert "open-webui" not in result.files["lab-1"]
    assert result.steps[1].orders["lab-1"]["projects"][0]["readiness"]["path"] == "/v1/embeddings"


def test_a_loopback_engine_is_for_a_gateway_on_its_host() -> None:
    result = made.planned(made.lab(), model("tiny", 8001, "listen: local\n"))
    assert "server tiny-0 127.0.0.1:8001 id 1\n" in result.files["lab-1"]["gateway"]["conf/deployments/tiny.cfg"]
    # No port of the host's own is to be guarded, but a neighbour could route to the container's address.
    assert result.steps[1].orders["lab-1"]["firewall"] == {"ports": [], "sources": ["10.0.0.2"]}
    facts = made.applied(result, made.lab())
    assert made.planned(facts, model("tiny", 8001, "listen: local\n")).is_noop
    text = model_text("far", 8001).replace("gpus: 1,", "gpus: 1, hosts: [lab-2],")
    with pytest.raises(InvalidError, match=r"far listens on 127\.0\.0\.1 of lab-2 only: the gateway on lab-1"):
        made.planned(made.lab(), made.deployment(text + "listen: local\n"))


def test_switching_the_page_off_removes_it_and_keeps_its_data(two: dict[str, Facts]) -> None:
    result = made.planned(two, model("apple", 8002), made.site(open_webui={"enabled": False}))
    assert [step.kind for step in result.steps] == ["remove"]
    assert result.steps[0].orders["lab-1"]["projects"] == [
        {"name": "open-webui", "path": "/srv/onprem-llm/open-webui", "purge": False}
    ]
    assert [e.kind for e in result.endpoints] == ["api"]


def test_settings_of_the_page_are_the_sites() -> None:
    site = made.site(open_webui={"port": 3100, "admin_email": "me@site.example", "env": {"WEBUI_NAME": "$Ours"}})
    text = page(made.planned(made.lab(), model("tiny", 8001), site))
    assert '"10.0.0.2:3100:8080"' in text
    assert "WEBUI_ADMIN_EMAIL: me@site.example" in text
    assert 'WEBUI_NAME: "$$Ours"' in text


def test_down_drains_first_and_leaves_the_gateway_to_the_others(two: dict[str, Facts]) -> None:
    result = down(two, "apple")
    titles = ["Drain apple", "Tell the gateway", "Remove apple", "Write the book"]
    assert [step.title for step in result.steps] == titles
    drain, told, remove, _ = result.steps
    assert drain.orders == {"lab-1": {"drain": ["apple/apple-0"], "ready": [], "wait": 300}}
    assert set(told.orders["lab-1"]["states"]) == {"zebra/zebra-0"}
    assert remove.orders == {
        "lab-1": {
            "projects": [{"name": "apple-0", "path": "/srv/onprem-llm/apple-0", "purge": False}],
            "weights": [],
            "images": [],
            "keys": ["apple"],
            "firewall": {"ports": [8001], "sources": ["10.0.0.2"]},
        }
    }
    after = made.applied(result, two)
    assert made.planned(after, model("zebra", 8001)).is_noop
    assert made.in_rotation(after, "zebra") == {"zebra-0"}
    assert "apple" not in after["lab-1"]["keys"]


def test_down_of_the_last_removes_page_and_gateway_and_keeps_accounts(two: dict[str, Facts]) -> None:
    after = made.applied(down(two, "apple"), two)
    result = down(after, "zebra")
    assert [step.kind for step in result.steps] == ["route", "remove", "record"]
    order = result.steps[1].orders["lab-1"]
    assert [project["name"] for project in order["projects"]] == ["zebra-0", "open-webui", "gateway"]
    assert not any(project["purge"] for project in order["projects"])
    assert order["keys"] == ["zebra"]
    end = made.applied(result, after)
    assert end["lab-1"]["projects"] == {}
    assert end["lab-1"]["weights"]
    again = made.applied(made.planned(end, model("zebra", 8001)), end)
    assert made.in_rotation(again, "zebra") == {"zebra-0"}
    assert made.planned(again, model("zebra", 8001)).is_noop


def test_down_where_no_gateway_runs_needs_no_drain(two: dict[str, Facts]) -> None:
    two["lab-1"]["gateway"] = None
    del two["lab-1"]["projects"]["gateway"]
    assert [step.title for step in down(two, "apple").steps] == ["Remove apple", "Write the book"]


def test_purge_takes_weights_and_leaves_what_others_use(two: dict[str, Facts]) -> None:
    order = next(s for s in down(two, "apple", purge=True).steps if s.kind == "remove").orders["lab-1"]
    (weights,) = order["weights"]
    assert "/weights/apple-" in weights
    gone = [c.subject for c in down(two, "apple", purge=True).changes if c.action == "remove"]
    assert gone == ["apple-0", "key apple", f"weights {weights.rpartition('/')[2]}"]
    assert order["images"] == []  # zebra runs the same image
    after = made.applied(down(two, "apple", purge=True), two)
    order = next(s for s in down(after, "zebra", purge=True).steps if s.kind == "remove").orders["lab-1"]
    assert order["images"] == [made.image_id(made.VLLM_IMAGE)]
    assert order["keys"] == ["zebra", "open-webui-session", "open-webui-admin"]


def test_down_finds_what_is_left_of_a_project_without_containers(two: dict[str, Facts]) -> None:
    two["lab-1"]["projects"]["apple-0"]["containers"] = []
    remove = next(step for step in down(two, "apple").steps if step.kind == "remove")
    assert remove.orders["lab-1"]["projects"][0]["name"] == "apple-0"


def test_down_of_an_unknown_name_says_what_there_is(two: dict[str, Facts]) -> None:
    with pytest.raises(InvalidError) as raised:
        down(two, "aple")
    assert raised.value.hint == "the book has: apple, zebra"


def test_down_with_a_silent_host_that_may_have_it(two: dict[str, Facts]) -> None:
    del two["lab-1"]["projects"]["apple-0"]
    with pytest.raises(UnreachableError, match="apple may run on a host that did not answer: lab-2"):
        down(two, "apple", unreachable=("lab-2",))


def test_a_silent_engine_keeps_its_place_at_the_gateway() -> None:
    facts = made.lab()
    far, near = (
        model_text(name, 8001).replace("gpus: 1,", f"gpus: 1, hosts: [{host}],")
        for name, host in (("far", "lab-2"), ("near", "lab-1"))
    )
    for text in (far, near):
        facts = made.applied(made.planned(facts, made.deployment(text)), facts)
    assert made.planned(facts, made.deployment(near), unreachable=["lab-2"]).is_noop
    changed = made.planned(facts, made.deployment(near + "routing: session\n"), unreachable=["lab-2"])
    assert not changed.is_noop
    assert made.in_rotation(made.applied(changed, facts), "far") == {"far-0"}


def test_what_a_failed_first_deploy_left_can_be_taken_down(two: dict[str, Facts]) -> None:
    gone = two["lab-1"]["book"]["deployments"].pop("apple")
    assert gone
    result = down(two, "apple")
    assert [c.subject for c in result.changes if c.action == "remove" and c.subject.startswith("apple")] == ["apple-0"]
    assert "record" not in [step.kind for step in result.steps]
