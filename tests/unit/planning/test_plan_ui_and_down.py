"""Open WebUI over all deployments, and taking one away."""

import pytest
import recorded_facts as made
from recorded_facts import Facts

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import Plan, Wanted, WantedDeployment
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.spec.site import Site


def model(name: str, port: int, extra: str = "") -> WantedDeployment:
    text = made.MODEL.format(name=name, image=made.VLLM_IMAGE, gpus=1, model="H100", port=port)
    return made.deployment(text + extra)


@pytest.fixture
def two() -> dict[str, Facts]:
    facts = made.lab()
    for item in (model("zebra", 8001), model("apple", 8002)):
        facts = made.applied(made.planned(facts, item), facts)
    return facts


def down(facts: dict[str, Facts], name: str, *, purge: bool = False, unreachable: tuple[str, ...] = ()) -> Plan:
    current = made.current(facts, unreachable)
    others = [WantedDeployment(parse_deployment(e.model_yaml, n)) for n, e in current.book.items() if n != name]
    wanted = Wanted(tuple(others), remove=name, purge=purge, ui_image=made.archive(made.UI_IMAGE))
    return plan(Site(), wanted, current)


def page(result: Plan) -> str:
    return result.files["lab-1"]["open-webui"]["compose.yaml"]


def urls(text: str) -> str:
    return next(line.partition(": ")[2].strip('"') for line in text.splitlines() if "OPENAI_API_BASE_URLS" in line)


def test_the_page_lists_all_chat_deployments_by_name(two: dict[str, Facts]) -> None:
    result = made.planned(two, model("apple", 8002))
    assert result.is_noop
    assert urls(page(result)) == "http://10.0.0.2:8002/v1;http://10.0.0.2:8001/v1"


def test_its_keys_are_in_the_order_of_its_addresses() -> None:
    facts = made.applied(made.planned(made.lab(), model("zebra", 8001)), made.lab())
    step = next(s for s in made.planned(facts, model("apple", 8002)).steps if s.title == "Start Open WebUI")
    order = step.orders["lab-1"]
    assert order["projects"][0]["secrets"]["entries"][0] == {
        "name": "OPENAI_API_KEYS", "keys": ["apple", "zebra"], "separator": ";",
    }  # fmt: skip
    assert order["keys"] == ["apple", "zebra", "open-webui-session", "open-webui-admin"]


def test_a_changed_key_of_another_deployment_changes_the_page(two: dict[str, Facts]) -> None:
    two["lab-1"]["keys"]["zebra"] = "0" * 16
    result = made.planned(two, model("apple", 8002))
    assert [step.title for step in result.steps] == ["Start Open WebUI"]
    assert [c.reasons for c in result.changes if c.subject == "open-webui"] == [("key changed",)]


def test_a_lost_key_of_another_deployment_is_said(two: dict[str, Facts]) -> None:
    del two["lab-1"]["keys"]["zebra"]
    result = made.planned(two, model("apple", 8002))
    assert any("deploy zebra again" in warning for warning in result.warnings)
    assert not made.planned(two, model("zebra", 8001)).warnings


def test_engines_that_do_not_chat_are_not_listed() -> None:
    result = made.planned(made.lab(), model("vectors", 8001, "task: embed\n"))
    assert "open-webui" not in result.files["lab-1"]
    assert result.steps[1].orders["lab-1"]["projects"][0]["readiness"]["path"] == "/v1/embeddings"


def test_a_loopback_engine_is_left_out_and_said() -> None:
    result = made.planned(made.lab(), model("tiny", 8001, "listen: local\n"))
    assert "open-webui" not in result.files["lab-1"]
    assert "Open WebUI cannot reach it" in result.warnings[0]


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


def test_down_removes_one_and_renders_the_page_without_it(two: dict[str, Facts]) -> None:
    result = down(two, "apple")
    assert [step.title for step in result.steps] == ["Start Open WebUI", "Remove apple", "Write the book"]
    assert urls(page(result)) == "http://10.0.0.2:8001/v1"
    assert result.steps[1].orders == {
        "lab-1": {
            "projects": [{"name": "apple-0", "path": "/srv/onprem-llm/apple-0", "purge": False}],
            "weights": [],
            "images": [],
            "keys": ["apple"],
        }
    }
    after = made.applied(result, two)
    assert made.planned(after, model("zebra", 8001)).is_noop
    assert "apple" not in after["lab-1"]["keys"]


def test_down_of_the_last_removes_the_page_too_and_keeps_its_accounts(two: dict[str, Facts]) -> None:
    after = made.applied(down(two, "apple"), two)
    result = down(after, "zebra")
    order = result.steps[0].orders["lab-1"]
    assert [project["name"] for project in order["projects"]] == ["zebra-0", "open-webui"]
    assert order["keys"] == ["zebra"]
    end = made.applied(result, after)
    assert end["lab-1"]["projects"] == {}
    assert end["lab-1"]["weights"]


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
    assert down(two, "apple").steps[1].orders["lab-1"]["projects"][0]["name"] == "apple-0"


def test_down_of_an_unknown_name_says_what_there_is(two: dict[str, Facts]) -> None:
    with pytest.raises(InvalidError) as raised:
        down(two, "aple")
    assert raised.value.hint == "the book has: apple, zebra"


def test_down_with_a_silent_host_that_may_have_it(two: dict[str, Facts]) -> None:
    del two["lab-1"]["projects"]["apple-0"]
    with pytest.raises(UnreachableError, match="apple may run on a host that did not answer: lab-2"):
        down(two, "apple", unreachable=("lab-2",))


def test_the_page_is_left_alone_while_an_engines_host_is_silent() -> None:
    facts = made.lab()
    for item in (model("first", 8001, ""), model("second", 8002)):
        facts = made.applied(made.planned(facts, item), facts)
    facts["lab-2"]["projects"]["first-0"] = facts["lab-1"]["projects"].pop("first-0")
    del facts["lab-2"]
    item = model("second", 8002)
    result = plan(Site(), made.wanted(facts, item), made.current(facts, ("lab-2",)))
    assert "Open WebUI is left as it is: first may run on a host that did not answer" in result.warnings
    assert "open-webui" not in result.files["lab-1"]


def test_what_a_failed_first_deploy_left_can_be_taken_down(two: dict[str, Facts]) -> None:
    gone = two["lab-1"]["book"]["deployments"].pop("apple")
    assert gone
    result = down(two, "apple")
    assert [c.subject for c in result.changes if c.action == "remove" and c.subject.startswith("apple")] == ["apple-0"]
    assert "record" not in [step.kind for step in result.steps]
