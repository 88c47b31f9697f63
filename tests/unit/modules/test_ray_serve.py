"""Module ray_serve on a stand-in for Ray Serve's API (ray_serve_stand_in.py)."""

import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load
from .ray_serve_stand_in import TOKEN, TRACEBACK, app, document, serve_api, serving


@pytest.fixture
def module(load: Load, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = load("ray_serve/ray_serve")
    monkeypatch.setattr(found, "PAUSE", 0.01)
    for name, seconds in (("PAUSE", 0.01), ("ROOM", 0.1), ("LEAVING", 0.1)):
        monkeypatch.setattr(f"ansible.module_utils.onprem_llm_ray_wait.{name}", seconds)
    return found


@pytest.fixture
def api() -> Iterator[Any]:
    with serve_api() as found:
        yield found


def tell(
    module: ModuleType,
    api: Any,
    wanted: dict[str, Any],
    *,
    names: list[str] | None = None,
    seconds: float = 5,
    check: bool = False,
) -> Any:
    return module.tell(
        module.RayApi(api.port, TOKEN),
        wanted,
        [one["name"] for one in wanted["applications"]] if names is None else names,
        time.monotonic() + seconds,
        check,
    )


def test_it_tells_serve_and_waits_until_all_serves(module: ModuleType, api: Any) -> None:
    changed, found = tell(module, api, document(app()))
    assert changed
    assert found["applications"]["tiny"]["status"] == "RUNNING"
    assert api.puts == [document(app())]


def test_the_same_a_second_time_is_not_told(module: ModuleType, api: Any) -> None:
    tell(module, api, document(app()))
    changed, _ = tell(module, api, document(app()))
    assert not changed
    assert len(api.puts) == 1


def test_what_is_being_built_is_waited_for_and_not_begun_anew(module: ModuleType, api: Any) -> None:
    api.apps = {"tiny": {"status": "DEPLOYING", "deployed_app_config": app(), "deployments": {}}}
    changed, found = tell(module, api, document(app()))
    assert not changed
    assert found["applications"]["tiny"]["status"] == "RUNNING"
    assert api.puts == []


def test_one_that_is_not_listed_any_more_is_told(module: ModuleType, api: Any) -> None:
    tell(module, api, document(app("one"), app("two")))
    changed, found = tell(module, api, document(app("two")))
    assert changed
    assert list(found["applications"]) == ["two"]


def test_check_mode_tells_nothing(module: ModuleType, api: Any) -> None:
    changed, _ = tell(module, api, document(app()), check=True)
    assert changed
    assert api.puts == []


def test_what_failed_and_serves_nothing_is_removed_and_told_again(module: ModuleType, api: Any) -> None:
    # Told the same, Serve would leave it as it is.
    api.apps = {"tiny": serving(app(), "fails"), "other": serving(app("other"))}
    changed, found = tell(module, api, document(app(), app("other")))
    assert changed
    assert api.puts == [document(app("other")), document(app(), app("other"))]
    assert found["applications"]["tiny"]["status"] == "RUNNING"


def test_what_failed_while_older_replicas_serve_is_never_removed(module: ModuleType, api: Any) -> None:
    api.apps = {"tiny": serving(app(path="fails"), "fails")}
    api.apps["tiny"]["deployments"]["LLMServer:tiny"]["replicas"].append({"state": "RUNNING"})
    with pytest.raises(module.RayError):
        tell(module, api, document(app(path="fails")))
    assert all("tiny" in [one["name"] for one in put["applications"]] for put in api.puts)
    api.puts.clear()
    tell(module, api, document(app()))
    assert api.puts == [document(app())]


def test_what_could_not_be_built_is_told_again_and_not_removed(module: ModuleType, api: Any) -> None:
    api.apps = {"tiny": {"status": "DEPLOY_FAILED", "deployed_app_config": app(), "deployments": {}}}
    with pytest.raises(module.RayError):
        tell(module, api, document(app()))
    assert api.puts == [document(app())]


def test_a_failure_is_named_with_rays_reason(module: ModuleType, api: Any) -> None:
    with pytest.raises(module.RayError) as error:
        tell(module, api, document(app(path="fails")))
    said = str(error.value)
    assert said.startswith(
        "tiny does not start on Ray: LLMServer:tiny: RuntimeError: Failed to create vLLM engine config: no"
    )
    assert "File" not in said
    assert said.endswith("Replicas that served before serve on: mend model.yaml and deploy")


def test_a_head_that_has_just_started_is_waited_for(module: ModuleType, api: Any) -> None:
    api.silent = 3
    assert tell(module, api, document(app()))[0]


def test_time_runs_out_with_what_was_seen_last(module: ModuleType, api: Any) -> None:
    api.silent = 10**6
    with pytest.raises(module.RayError, match="it answered 503"):
        tell(module, api, document(app()), seconds=0.1)


def test_a_head_that_stays_silent_is_not_waited_for_until_the_models_time_is_over(
    module: ModuleType, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.silent = 10**6
    monkeypatch.setattr(module, "SILENT", 0.1)
    with pytest.raises(module.RayError, match="onprem-llm cluster status"):
        tell(module, api, document(app()), seconds=600)


def test_what_is_not_to_be_told_any_more_is_not(module: ModuleType, api: Any) -> None:
    end = time.monotonic() + 60
    with pytest.raises(module.RayError, match="another document was written meanwhile"):
        module.tell(module.RayApi(api.port, TOKEN), document(app()), ["tiny"], end, is_current=lambda: False)
    assert api.puts == []
    module.tell(module.RayApi(api.port, TOKEN), document(app()), ["tiny"], end, is_current=lambda: True)
    assert len(api.puts) == 1


def test_a_wrong_token_ends_it_at_once(module: ModuleType, api: Any) -> None:
    with pytest.raises(module.RayError, match="refuses the token"):
        module.tell(module.RayApi(api.port, "other"), document(app()), ["tiny"], time.monotonic() + 60)


def test_a_document_that_serve_refuses_ends_it_at_once(module: ModuleType, api: Any) -> None:
    with pytest.raises(module.RayError, match="no such field: wrong"):
        tell(module, api, document(app(), wrong=True), seconds=60)


def test_serve_keeps_the_port_that_it_began_with(module: ModuleType, api: Any) -> None:
    api.port_of_proxies = 8000
    with pytest.raises(module.RayError, match="listens on port 8000, expected 8100"):
        tell(module, api, document(app()))
    assert api.puts == []


def test_one_that_fails_keeps_no_other_from_being_told(module: ModuleType, api: Any) -> None:
    api.apps = {"broken": serving(app("broken"), "fails")}
    wanted = document(app(), app("broken"))
    changed, found = tell(module, api, wanted, names=["tiny"])
    assert changed
    assert found["applications"]["tiny"]["status"] == "RUNNING"
    assert api.puts == [wanted]
    (text,) = module.warnings(wanted, ["tiny"], found)
    assert text.startswith("broken, which this does not change, is DEPLOY_FAILED on Ray: LLMServer:tiny: RuntimeError:")
    assert not tell(module, api, wanted, names=["tiny"])[0]


def test_where_none_is_asked_for_nothing_is_waited_for(module: ModuleType, api: Any) -> None:
    wanted = document(app(path="waits"))
    changed, found = tell(module, api, wanted, names=[])
    assert (changed, found["applications"]["tiny"]["status"]) == (True, "DEPLOYING")


def test_what_is_taken_off_is_waited_for_until_it_is_gone(
    module: ModuleType, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible.module_utils.onprem_llm_ray_wait.LEAVING", 60)
    api.apps, api.leaves = {"one": serving(app("one")), "two": serving(app("two"))}, 4
    _, found = tell(module, api, document(app("two")), names=[], seconds=60)
    assert list(found["applications"]) == ["two"]


def test_what_does_not_leave_is_not_waited_for_for_ever(module: ModuleType, api: Any) -> None:
    api.apps, api.leaves = {"one": serving(app("one"))}, 10**6
    wanted = document(app("two"))
    _, found = tell(module, api, wanted)
    assert found["applications"]["two"]["status"] == "RUNNING"
    assert module.warnings(wanted, ["two"], found)[0].startswith("one is still on its way out")


def rays(found: object) -> Any:
    return lambda _: {"result": True, "data": {"result": found}}


def group(name: str, state: str, cpus: float, node: str = "", many: int = 1) -> dict[str, Any]:
    bundle = {"unit_resources": {"CPU": cpus}, "node_id": node}
    return {"name": f"SERVE_REPLICA::{name}#LLMServer:{name}#x", "state": state, "bundles": [bundle] * many}


def cluster(api: Any, *groups: dict[str, Any]) -> None:
    nodes = [
        {"node_id": "a", "node_ip": "10.0.0.2", "state": "ALIVE", "resources_total": {"CPU": 4.0, "memory": 9.0}},
        {"node_id": "b", "node_ip": "10.0.0.3", "state": "ALIVE", "resources_total": {"node:10.0.0.3": 1.0}},
        {"node_id": "c", "node_ip": "10.0.0.4", "state": "DEAD", "resources_total": {"CPU": 64.0}},
    ]
    api.others = {
        "/api/v0/placement_groups": rays({"result": list(groups)}),
        "/api/v0/nodes": rays({"result": nodes}),
    }


def test_a_replica_for_which_no_node_has_room_is_not_waited_for(module: ModuleType, api: Any) -> None:
    cluster(
        api, group("tiny", "PENDING", 2, many=4), group("other", "CREATED", 3, "a"), group("old", "REMOVED", 1, "a")
    )
    with pytest.raises(module.RayError) as error:
        tell(module, api, document(app(path="waits")), seconds=60)
    assert str(error.value).startswith(
        "tiny: no node has room for one more replica, which takes 4 times 2 CPU; there is 10.0.0.2 with 4 CPU, of "
        "which replicas take 3 CPU; 10.0.0.3 with none, of which replicas take none. Expected a node with as much free"
    )


@pytest.mark.parametrize("who", ["another's", "stopping", "leaving"])
def test_room_is_waited_for_where_somebody_makes_it(module: ModuleType, api: Any, who: str) -> None:
    cluster(api, group("other" if who == "another's" else "tiny", "PENDING", 8))
    if who == "stopping":
        api.apps = {"other": serving(app("other"))}
        api.apps["other"]["deployments"]["LLMServer:tiny"]["replicas"].append({"state": "STOPPING"})
    wanted = document(app(path="waits"), *([app("other")] if who == "stopping" else []))
    if who == "leaving":
        api.apps, api.leaves = {"gone": serving(app("gone"))}, 10**6
    with pytest.raises(module.RayError, match="not all serves in time: tiny: DEPLOYING"):
        tell(module, api, wanted, names=["tiny"], seconds=0.6)


KILLED = "The replica's process was killed 3 times"


@pytest.mark.parametrize(
    ("message", "out", "seen"),
    [
        (TRACEBACK, ":job_id:01\nINFO begins\nValueError: no such quantization\nINFO ends\n", ["ValueError: no such"]),
        (TRACEBACK, ":job_id:01\nINFO begins\n", None),
        (KILLED, ":job_id:01\nINFO begins\nINFO loads\n", ["INFO begins", "INFO loads"]),
    ],
)
def test_the_replicas_own_words_say_what_rays_do_not(
    module: ModuleType, api: Any, message: str, out: str, seen: list[str] | None
) -> None:
    older = {"state": "STOPPED", "node_ip": "10.0.0.2", "worker_id": "w1", "start_time_s": 1.0}
    last = {**older, "worker_id": "w2", "start_time_s": 2.0}
    part = {"status": "DEPLOY_FAILED", "message": message, "replicas": [], "recent_dead_replicas": [older, last]}
    old = {"status": "HEALTHY", "message": "", "replicas": [{"state": "RUNNING"}]}
    parts = {"LLMServer:tiny": part, "OpenAiIngress": old}
    api.apps = {"tiny": {"status": "DEPLOY_FAILED", "message": "", "deployed_app_config": app(), "deployments": parts}}
    part["replicas"] = [{"state": "RUNNING"}]  # an older one serves, so it is not told again
    api.others = {
        "/api/v0/logs": lambda query: {
            "data": {"result": {"worker_out": [f"{query['glob'][0].rstrip('*')}-01-7.out"]}}
        },
        "/api/v0/logs/file": lambda query: out if query["filename"] == ["worker-w2-01-7.out"] else "OldError: no\n",
    }
    with pytest.raises(module.RayError) as error:
        tell(module, api, document(app()))
    _, _, own = str(error.value).partition("The last words of its replica (all: onprem-llm logs tiny):\n")
    lines = own.splitlines()
    assert [line.startswith(start) for line, start in zip(lines, seen or [], strict=True)] == [True] * len(seen or [])
