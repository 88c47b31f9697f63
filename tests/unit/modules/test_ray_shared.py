"""Ray Serve told at an address: other people's applications stay, whatever becomes of ours."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from onprem_llm.serve_state import parse_serve, told_digest

from .conftest import Load
from .ray_serve_stand_in import TOKEN, app, document, serve_api, serving

ADDRESS = "http://10.9.0.1:8265"
THEIRS = app("hello")
PROGRAM = {"status": "RUNNING", "source": "imperative", "deployed_app_config": None, "deployments": {}}
OPTIONS = {"port": 8100, "host": "0.0.0.0", "keep_alive_timeout_s": 90}  # noqa: S104 - what Ray said


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Any]:
    with serve_api() as found:
        found.ledger = tmp_path / "told.json"
        found.apps = {"hello": {**serving(THEIRS), "source": "declarative"}, "program": dict(PROGRAM)}
        found.more = {"http_options": OPTIONS, "proxy_location": "HeadOnly", "target_capacity": 50.0,
                      "proxies": {}}  # fmt: skip
        yield found


@pytest.fixture
def module(load: Load, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = load("ray_serve/ray_serve")
    monkeypatch.setattr(found, "PAUSE", 0.01)
    monkeypatch.setattr("ansible.module_utils.onprem_llm_ray_wait.PAUSE", 0.01)
    return found


def shared(
    module: ModuleType, api: Any, told: dict[str, Any], ours: tuple[dict[str, Any], ...] = (), address: str = ADDRESS
) -> Any:
    at, ledger = f"http://127.0.0.1:{api.port}", module.Ledger(api.ledger, address)
    return module.SharedApi(module.RayApi(at, TOKEN), {one["name"]: [told_digest(one)] for one in ours}, told, ledger)


def tell(
    module: ModuleType, api: Any, *apps: dict[str, Any], ours: tuple[dict[str, Any], ...] = (), address: str = ADDRESS
) -> Any:
    names = [one["name"] for one in apps]
    asked = shared(module, api, document(*apps), ours, address)
    return module.tell(asked, document(*apps), names, time.monotonic() + 5)


def test_theirs_are_told_as_they_stand_with_serves_own_options(module: ModuleType, api: Any) -> None:
    changed, found = tell(module, api, app())
    assert changed
    assert list(found["applications"]) == ["tiny"]
    assert api.puts == [
        {"http_options": OPTIONS, "proxy_location": "HeadOnly", "target_capacity": 50.0,
         "applications": [THEIRS, app()]}
    ]  # fmt: skip
    assert set(api.apps) == {"hello", "program", "tiny"}


def test_a_second_time_nothing_is_told_whatever_others_do(module: ModuleType, api: Any) -> None:
    tell(module, api, app())
    api.apps["late"] = {"status": "DEPLOY_FAILED", "deployed_app_config": app("late"), "deployments": {}}
    changed, _ = tell(module, api, app())
    assert not changed
    assert len(api.puts) == 1


def test_ours_goes_and_theirs_stay(module: ModuleType, api: Any) -> None:
    tell(module, api, app(), app("second"))
    changed, found = tell(module, api, app("second"), ours=(app(), app("second")))
    assert (changed, list(found["applications"])) == (True, ["second"])
    tell(module, api, ours=(app("second"),))
    assert set(api.apps) == {"hello", "program"}


def test_one_that_leaves_is_not_told_again(module: ModuleType, api: Any) -> None:
    api.apps["gone"] = {"status": "DELETING", "deployed_app_config": app("gone"), "deployments": {}}
    tell(module, api, app())
    assert [one["name"] for one in api.puts[0]["applications"]] == ["hello", "tiny"]


@pytest.mark.parametrize("name", ["hello", "program"])
def test_a_name_that_is_somebody_elses(module: ModuleType, api: Any, name: str) -> None:
    with pytest.raises(module.RayError, match=f"has an application {name} that is not ours"):
        tell(module, api, app(name, "works2"))
    # Nor is it, on the way back, what was told from here.
    tell(module, api)
    assert api.apps["hello"]["deployed_app_config"] == THEIRS
    assert all(THEIRS in put["applications"] for put in api.puts)


@pytest.mark.parametrize("way", ["update", "another", "down"])
@pytest.mark.parametrize("ledger", ["none", "before", "of another address"])
def test_a_name_of_the_book_that_somebody_took_is_left_alone(
    module: ModuleType, api: Any, way: str, ledger: str
) -> None:
    if ledger != "none":
        tell(module, api, app(), address=ADDRESS if ledger == "before" else "http://other")
    taken = serving(app("tiny", "works2"))
    if ledger == "of another address":  # which has what they have here
        module.Ledger(api.ledger, "http://other").add([app("tiny", "works2")])
    api.apps["tiny"], api.puts = taken, []
    told = {"update": [app("tiny", "works3")], "another": [app(), app("second")], "down": []}[way]
    with pytest.raises(
        module.RayError, match=rf"at http://127\.0\.0\.1:{api.port} has an application tiny that is not"
    ):
        tell(module, api, *told, ours=(app(),))
    assert api.puts == []
    assert api.apps["tiny"] == taken


def test_what_was_not_told_from_this_host_is_ours_as_the_book_or_the_document_has_it(
    module: ModuleType, api: Any
) -> None:
    """A gateway host that came after another one."""
    api.apps["tiny"] = serving(app())
    assert tell(module, api, app())[0] is False
    assert module.Ledger(api.ledger, ADDRESS).read() == {}
    changed, _ = tell(module, api, app("tiny", "works2"), ours=(app(),))
    assert changed
    assert [one["import_path"] for one in api.puts[-1]["applications"]] == ["works", "works2"]
    # The way back: it was told from here by now.
    tell(module, api, app())
    assert api.apps["tiny"]["deployed_app_config"] == app()


def test_a_name_that_is_taken_while_it_is_waited_for(module: ModuleType, api: Any) -> None:
    asked = shared(module, api, document(app()))
    asked.ask("GET", "/api/serve/applications/")
    api.apps["tiny"] = serving(app("tiny", "works2"))
    for method, body in (("GET", None), ("PUT", document(app()))):
        with pytest.raises(module.RayError, match="application tiny that is not ours"):
            asked.ask(method, "/api/serve/applications/", body)
    assert api.puts == []


def test_what_serve_says_nothing_of_is_not_left_out(module: ModuleType, api: Any) -> None:
    api.apps["hello"]["deployed_app_config"] = None
    with pytest.raises(module.RayError, match="does not say what it was told of hello, expected that of each"):
        tell(module, api, app())
    assert api.puts == []
    # Nor is ours, of which it says nothing for a moment, somebody else's.
    api.apps = {"tiny": {**serving(app()), "deployed_app_config": None}}
    asked = shared(module, api, document(app()))
    assert list(asked.ask("GET", "/api/serve/applications/")["applications"]) == ["tiny"]


def test_a_dashboard_that_does_not_find_serve_is_asked_again(
    module: ModuleType, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENT", 0.1)
    seen = shared(module, api, document(app()))
    seen.ask("GET", "/api/serve/applications/")  # Serve runs
    looked_at = shared(module, api, document(app()))
    looked_at.runs = True  # as the look before the step says
    there, api.apps = dict(api.apps), {}
    api.more = {"http_options": None, "proxies": {}}
    for asked in (seen, looked_at):
        with pytest.raises(module.RayError, match=r"as if Ray Serve did not run.*onprem-llm cluster status"):
            module.answered(asked, time.monotonic() + 5, "PUT", document(app()))
    assert api.puts == []
    api.apps, api.more = there, {"http_options": OPTIONS, "proxies": {}}
    assert set(module.answered(seen, time.monotonic() + 5, "GET")["applications"]) == set()
    # Where nobody ever served, the first one starts it.
    api.apps, api.more = {}, {"http_options": None, "proxies": {}}
    module.answered(shared(module, api, document(app())), time.monotonic() + 5, "PUT", document(app()))
    assert len(api.puts) == 1


def test_a_dashboard_that_is_silent_for_a_moment_is_waited_for(
    module: ModuleType, api: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    params = {"token_file": str(tmp_path / "token"), "document": str(tmp_path / "serve.json"), "ours": {},
              "address": f"http://127.0.0.1:{api.port}", "runs": True}  # fmt: skip
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    api.silent = 3
    module.tell(module.api_of(params, document(app())), document(app()), ["tiny"], time.monotonic() + 5)
    assert len(api.puts) == 1
    monkeypatch.setattr(module, "SILENT", 0.1)
    gone = module.api_of({**params, "address": "http://127.0.0.1:1"}, document(app()))
    with pytest.raises(
        module.RayError, match=r"127\.0\.0\.1:1 does not answer: ConnectionRefusedError.*cluster status"
    ):
        module.tell(gone, document(app()), ["tiny"], time.monotonic() + 5)


@pytest.mark.parametrize("token", ["secret-one\n# comment", "secret one", "sécret", '"secret\tone'])
def test_a_file_with_more_than_a_token_is_shown_to_nobody(load: Load, api: Any, tmp_path: Path, token: str) -> None:
    error = looked(load, tmp_path, api.port, token=token)["error"]
    assert "no single line of printable ASCII" in error
    assert "cret" not in error


def test_the_way_back_takes_what_was_told_from_here_though_no_book_has_it(module: ModuleType, api: Any) -> None:
    tell(module, api, app())
    # Somebody has another one of that name by now.
    api.apps["tiny"] = serving(app("tiny", "works2"))
    tell(module, api)
    assert set(api.apps) == {"hello", "program", "tiny"}
    api.apps["tiny"] = serving(app())
    tell(module, api)
    assert set(api.apps) == {"hello", "program"}


def test_what_was_told_is_known_though_the_answer_was_lost_and_forgotten_once_it_is_gone(
    module: ModuleType, api: Any
) -> None:
    asked = shared(module, api, document(app()))
    with pytest.raises(module.RayError):
        asked.ask("PUT", "/api/serve/applications/", {**document(app()), "wrong": True})
    ledger = module.Ledger(api.ledger, ADDRESS)
    assert ledger.read() == {"tiny": [told_digest(app())]}
    tell(module, api, app("tiny", "works2"))
    assert ledger.read() == {"tiny": [told_digest(app()), told_digest(app("tiny", "works2"))]}
    ledger.settle([], ["tiny", "hello"])
    assert set(ledger.read()) == {"tiny"}
    ledger.settle([app()], ["tiny"])
    assert ledger.read() == {"tiny": [told_digest(app())]}
    module.Ledger(api.ledger, "http://other").add([app("x")])
    assert set(ledger.read()) == {"tiny"}
    ledger.settle([], [])
    assert set(ledger.whole()) == {"http://other"}
    assert ledger.read() == {}
    api.ledger.write_text("[1]")
    assert ledger.read() == {}


def test_what_ray_hides_is_not_told_back(module: ModuleType, api: Any) -> None:
    hidden = {**THEIRS, "runtime_env": {"env_vars": {"PASSWORD": "<redacted>"}}}
    api.apps["hello"]["deployed_app_config"] = hidden
    with pytest.raises(module.RayError, match="Ray hides the environment of hello"):
        tell(module, api, app())
    assert api.puts == []


@pytest.fixture
def proxies() -> Iterator[int]:
    """A port of 127.0.0.1 at which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def answer(port: int, host: str = "::", **status: str) -> dict[str, Any]:
    nodes = {"127.0.0.1": "HEALTHY", **{name.replace("_", "."): one for name, one in status.items()}}
    said = {name: {"node_ip": name, "status": one} for name, one in nodes.items()}
    return {"http_options": {"port": port, "host": host}, "proxies": said}


def test_a_proxy_that_is_reached_is_asked(module: ModuleType, proxies: int) -> None:
    assert module.proxy(answer(proxies)) == f"http://127.0.0.1:{proxies}"
    assert module.proxy({"proxies": {}, "http_options": None}) is None
    assert module.proxy(answer(proxies) | {"proxies": {"n": {"node_ip": "x", "status": "STARTING"}}}) is None


def test_proxies_that_are_not_reached_are_said_before_anything_is_told(
    module: ModuleType, api: Any, proxies: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    with pytest.raises(module.RayError, match=f"reaches none of Ray Serve's proxies: 127.0.0.1:{closed}: "):
        module.proxy(answer(closed))
    with pytest.raises(module.RayError, match=r"listen on 127\.0\.0\.1 alone"):
        module.proxy(answer(proxies, host="127.0.0.1"))
    api.more = answer(closed)
    wanted = document(app(), http_options={"port": closed})
    with pytest.raises(module.RayError, match="reaches none"):
        module.tell(shared(module, api, wanted), wanted, ["tiny"], time.monotonic() + 5)
    assert api.puts == []


def test_silent_nodes_are_not_waited_for_one_after_another(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads meet here, or it fails."""
    together = threading.Barrier(8, timeout=20)

    def silent(*_: object, **__: object) -> None:
        together.wait()
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", silent)
    nodes = {f"10_0_0_{number}": "HEALTHY" for number in range(1, 8)}
    with pytest.raises(module.RayError, match=r"10\.0\.0\.1:9: timed out; .*127\.0\.0\.1:9: timed out"):
        module.proxy(answer(9, **nodes))


def test_another_port_names_no_command_for_a_cluster_of_our_own(module: ModuleType, api: Any) -> None:
    api.more = {**api.more, **answer(9999)}
    with pytest.raises(module.RayError, match=r"listens on port 9999, expected 8100.*serve_port to 9999$"):
        tell(module, api, app())


NODES = {
    "/api/version": lambda _: {"ray_version": "2.60.0"},
    "/api/v0/nodes": lambda _: {
        "data": {"result": {"result": [
            {"node_ip": "10.0.0.1", "state": "ALIVE", "is_head_node": True, "resources_total": {"CPU": 1.0, "x": 1}},
            {"node_ip": "10.0.0.2", "state": "ALIVE", "resources_total": {"GPU": 2.0, "memory": 5.0}},
            {"node_ip": "10.0.0.2", "state": "ALIVE", "resources_total": {"GPU": 1.0}},
            {"node_ip": "10.0.0.3", "state": "DEAD", "resources_total": {}},
        ]}}
    },
}  # fmt: skip


def looked(load: Load, folder: Path, port: int, *, token: str = TOKEN, **more: str) -> Any:
    module = load("ray_serve/ray_look")
    found = module.looked(
        {
            "address": f"http://127.0.0.1:{port}",
            "token": token,
            "token_file": str(folder / "token"),
            "ledger": str(folder / "told.json"),
            **more,
        }
    )
    assert token == "" or token not in json.dumps(found)
    return found


def test_a_look_says_nodes_applications_and_what_was_told_from_here(load: Load, api: Any, tmp_path: Path) -> None:
    api.others = NODES
    api.apps = {"hello": {**api.apps["hello"], "route_prefix": "/hello"}}
    for part in api.apps["hello"]["deployments"].values():
        part["replicas"] = []
    ledger = load("ray_serve/ray_serve").Ledger
    ledger(tmp_path / "told.json", f"http://127.0.0.1:{api.port}").add([app()])
    ledger(tmp_path / "told.json", "http://other").add([app("hello")])
    found = looked(load, tmp_path, api.port)
    assert found["error"] is None
    assert (found["version"], found["host"], found["tls"], found["token_here"]) == ("2.60.0", "0.0.0.0", False, False)  # noqa: S104
    serve = parse_serve(found)
    assert serve is not None
    assert serve.elsewhere is not None
    assert serve.elsewhere.nodes == {"10.0.0.1": {"CPU": 1.0}, "10.0.0.2": {"GPU": 3.0, "memory": 5.0}}
    assert serve.elsewhere.head == "10.0.0.1"
    assert serve.elsewhere.told == {"tiny": (told_digest(app()),)}
    assert serve.elsewhere.told_elsewhere == {"hello": "http://other"}
    assert serve.applications["hello"].route == "/hello"
    assert serve.applications["hello"].told == told_digest(THEIRS)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert looked(load, tmp_path, api.port)["token_here"] is True


def test_why_a_cluster_says_nothing(load: Load, api: Any, tmp_path: Path) -> None:
    api.others = NODES
    assert "refuses the token that it was given (401)" in looked(load, tmp_path, api.port, token="other")["error"]
    assert "refuses to answer without a token (401)" in looked(load, tmp_path, api.port, token="")["error"]
    closed = looked(load, tmp_path, 1)
    assert "127.0.0.1:1 does not answer: ConnectionRefusedError" in closed["error"]
    over_tls = looked(load, tmp_path, api.port, address=f"https://127.0.0.1:{api.port}")
    assert "SSLError" in over_tls["error"]
    assert "extra_ca" in over_tls["error"]
    api.others = {"/api/version": lambda _: {"hello": 1}}
    assert "answers otherwise than Ray 2.60: KeyError" in looked(load, tmp_path, api.port)["error"]
    api.others = {"/api/version": lambda _: "<html>"}
    assert "does not answer: JSONDecodeError" in looked(load, tmp_path, api.port)["error"]


def test_a_token_of_another_cluster_is_not_this_one_s(load: Load, api: Any, tmp_path: Path) -> None:
    """Logs send what is in the file that a look names."""
    api.others = NODES
    file = tmp_path / "token"
    file.write_text(TOKEN)
    assert looked(load, tmp_path, api.port)["token_file"] == str(file)
    assert looked(load, tmp_path, api.port, token="")["token_file"] is None
    file.write_text("of our own cluster")
    assert looked(load, tmp_path, api.port)["token_file"] is None
