"""What uninstall plans, what it refuses, and what it tells."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from recorded_facts import Facts, host
from test_look_whole import Hosts, use

from onprem_llm.commands import uninstall
from onprem_llm.errors import InvalidError, RefusedError, UnreachableError
from onprem_llm.hosts import Current
from onprem_llm.probe import parse_current
from onprem_llm.run_events import RunResult
from onprem_llm.spec.site import parse_site
from onprem_llm.uninstalling import deployed, plan_removal, refuse_if_locked, told

SITE = parse_site({}, "test")


def project(name: str, **labels: str) -> Facts:
    container = {"service": "x", "id": "1", "name": f"{name}-x-1", "image": "sha256:img", "labels": labels}
    return {"path": f"/srv/onprem-llm/{name}", "files": {}, "containers": [container]}


def current(**changes: Any) -> Current:
    one = host("lab-1", 1, gateway=True, **changes)
    return parse_current({"lab-1": one})


def test_deployments_stop_it() -> None:
    seen = current(projects={"tiny-0": project("tiny-0", **{"onprem-llm.deployment": "tiny"})})
    assert deployed(seen) == ["tiny"]
    with pytest.raises(InvalidError, match="tiny") as caught:
        plan_removal(seen, SITE, purge=False, purge_deployments=False)
    assert "--purge-deployments" in (caught.value.hint or "")
    plan_removal(seen, SITE, purge=False, purge_deployments=True)


def test_a_deployment_in_the_book_stops_it_too() -> None:
    booked = {"gateway": True, "deployments": {"tiny": {"revision": 1, "model_yaml": "", "images": {}}}}
    assert deployed(current(book=booked)) == ["tiny"]


@pytest.mark.parametrize("purge", [False, True])
def test_orders(purge: bool) -> None:
    seen = current(
        projects={name: project(name) for name in ("gateway", "open-webui")},
        weights={"w": {"path": "/srv/onprem-llm/weights/w"}},
        images=[{"id": "sha256:own", "tags": ["onprem-llm/x:1"], "digests": []},
                {"id": "sha256:theirs", "tags": ["nginx:1"], "digests": []}],
    )  # fmt: skip
    order = plan_removal(seen, SITE, purge=purge, purge_deployments=False).orders["lab-1"]
    assert order["projects"] == [
        {"name": "gateway", "path": "/srv/onprem-llm/gateway", "purge": True},
        {"name": "open-webui", "path": "/srv/onprem-llm/open-webui", "purge": purge},
    ]
    assert order["weights"] == (["/srv/onprem-llm/weights/w"] if purge else [])
    assert order["images"] == (["sha256:img", "sha256:own"] if purge else [])


def test_the_table_tells_what_stays() -> None:
    kept = plan_removal(current(), SITE, purge=False, purge_deployments=False).rows[0]
    assert "the CA" in kept[3]
    gone = plan_removal(current(), SITE, purge=True, purge_deployments=False).rows[0]
    assert "the CA" in gone[2]
    assert gone[3] == "nothing"


def test_a_run_that_is_at_work_is_not_disturbed() -> None:
    with pytest.raises(RefusedError, match="deploy tiny"):
        refuse_if_locked(current(lock={"owner": "root@c pid 1 (deploy tiny)", "age": 3, "unit": "x"}))
    refuse_if_locked(current())


def test_a_run_is_not_disturbed_where_a_limit_hides_its_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hosts = use(monkeypatch, Hosts())
    hosts.facts["lab-1"]["lock"] = {"owner": "root@c pid 1 (deploy tiny)", "age": 3, "unit": "x"}
    (tmp_path / "inventory.ini").touch()
    taken: list[Any] = []
    monkeypatch.setattr(uninstall, "carry_out", lambda removal, *_: taken.append(removal))
    words = [str(tmp_path / "inventory.ini"), "--yes", "--limit", "lab-2"]
    assert isinstance(CliRunner().invoke(uninstall.command, words).exception, RefusedError)
    assert not taken
    CliRunner().invoke(uninstall.command, [*words, "--break-lock"])
    assert [list(removal.orders) for removal in taken] == [["lab-2"]]


def test_what_stays_is_told() -> None:
    returned = {"a": {"notes": ["docker stays"], "left": ["/srv/onprem-llm/mine"]}, "b": {"notes": [], "left": []}}
    assert told(RunResult(("a", "b"), returned, {}, ())) == {
        "a": ["docker stays", "left in place: /srv/onprem-llm/mine"]
    }


@pytest.mark.parametrize(
    ("hosts", "more", "left"),
    [
        (Hosts(off=["lab-3"]), ["--skip-unreachable"], {"lab-1", "lab-2"}),
        (Hosts(off=["lab-3"]), [], None),
        (Hosts(broken=["lab-3"]), ["--skip-unreachable"], None),
        (Hosts(off=["lab-3"], marks={"lab-3": "lost"}), [], {"lab-1", "lab-2"}),
    ],
    ids=["left out", "silent", "it answers and fails", "lost"],
)
def test_hosts_that_do_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hosts: Hosts, more: list[str], left: set[str] | None
) -> None:
    use(monkeypatch, hosts)
    (tmp_path / "inventory.ini").touch()
    taken: list[set[str]] = []

    def carry_out(removal: Any, *_: object) -> RunResult:
        taken.append(set(removal.orders))
        return RunResult(tuple(removal.orders), {}, {}, ())

    monkeypatch.setattr(uninstall, "carry_out", carry_out)
    done = CliRunner().invoke(uninstall.command, [str(tmp_path / "inventory.ini"), "--yes", *more])
    if left is None:
        assert isinstance(done.exception, UnreachableError)
        assert ("--skip-unreachable" in (done.exception.hint or "")) is not bool(hosts.broken)
    assert taken == ([left] if left else [])


def test_nodes_of_a_ray_cluster_stop_it() -> None:
    """What they serve would end, unsaid; afterwards nothing of them stays."""
    seen = current(projects={"ray-worker": project("ray-worker")})
    with pytest.raises(InvalidError, match="found nodes of the Ray cluster on lab-1; expected none") as caught:
        plan_removal(seen, SITE, purge=False, purge_deployments=False)
    assert "cluster drain" in (caught.value.hint or "")
    (order,) = plan_removal(seen, SITE, purge=False, purge_deployments=True).orders.values()
    assert order["projects"] == [{"name": "ray-worker", "path": "/srv/onprem-llm/ray-worker", "purge": True}]
