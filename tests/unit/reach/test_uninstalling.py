"""What uninstall plans, what it refuses, and what it tells."""

from typing import Any

import pytest
from recorded_facts import Facts, host

from onprem_llm.errors import InvalidError, RefusedError
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


def test_what_stays_is_told() -> None:
    returned = {"a": {"notes": ["docker stays"], "left": ["/srv/onprem-llm/mine"]}, "b": {"notes": [], "left": []}}
    assert told(RunResult(("a", "b"), returned, {}, ())) == {
        "a": ["docker stays", "left in place: /srv/onprem-llm/mine"]
    }
