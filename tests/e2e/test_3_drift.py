"""Whatever differs on a host is noticed, named and mended. On the stub engine, which starts in a second."""

import json
import subprocess
import time

import pytest
from conftest import Site, containers, stub

NAME = "drift"
FOLDER = "/srv/onprem-llm/drift-0"


@pytest.fixture(scope="module")
def drift(site: Site) -> Site:
    """One stub deployment on the second host."""
    stub(site, NAME, host=site.lab.hosts[1], port=8101)
    site.run("deploy", f"{NAME}.yaml", "--yes")
    yield site
    site.run("down", NAME, "--yes", "--purge")


def on_host(site: Site, script: str) -> str:
    return site.lab.exec_root(site.lab.hosts[1], "sh", "-c", script)


def reasons(site: Site) -> str:
    plan = site.json("plan", f"{NAME}.yaml")
    assert plan["noop"] is False
    return "; ".join(reason for change in plan["changes"] for reason in change["reasons"])


def mended(site: Site) -> None:
    site.run("deploy", f"{NAME}.yaml", "--yes")
    assert site.json("plan", f"{NAME}.yaml")["noop"] is True


def test_nothing_differs_at_first(drift: Site) -> None:
    before = containers(drift.lab, drift.lab.hosts[1])
    assert "Nothing to do" in drift.run("deploy", f"{NAME}.yaml").stdout
    assert containers(drift.lab, drift.lab.hosts[1]) == before


def test_a_container_that_is_gone(drift: Site) -> None:
    on_host(drift, "docker rm --force drift-0-vllm-1")
    assert "gone" in reasons(drift)
    mended(drift)
    assert "drift-0-vllm-1" in containers(drift.lab, drift.lab.hosts[1])


def test_a_container_that_is_stopped(drift: Site) -> None:
    on_host(drift, "docker stop drift-0-vllm-1")
    assert "exited" in reasons(drift)
    mended(drift)


def test_an_edited_compose_file(drift: Site) -> None:
    on_host(drift, f"echo '# edited' >> {FOLDER}/compose.yaml")
    assert "compose.yaml was edited" in reasons(drift)
    mended(drift)
    assert "# edited" not in on_host(drift, f"cat {FOLDER}/compose.yaml")


def test_a_tag_that_points_elsewhere(drift: Site) -> None:
    wanted = on_host(drift, "docker inspect --format '{{.Id}}' onprem-llm/stub-engine:1")
    # An image of the host's own making, by the same name.
    on_host(
        drift,
        "id=$(docker create onprem-llm/stub-engine:1) && docker commit $id onprem-llm/stub-engine:1 && docker rm $id",
    )
    assert on_host(drift, "docker inspect --format '{{.Id}}' onprem-llm/stub-engine:1") != wanted
    assert "tag onprem-llm/stub-engine:1 points to another image" in reasons(drift)
    mended(drift)
    assert on_host(drift, "docker inspect --format '{{.Id}}' onprem-llm/stub-engine:1") == wanted


def test_a_weight_file_of_another_size(drift: Site) -> None:
    on_host(drift, "for file in /srv/onprem-llm/weights/model-*/config.json; do echo more >> $file; done")
    assert "weight file config.json differs" in reasons(drift)
    mended(drift)
    assert "more" not in on_host(drift, "cat /srv/onprem-llm/weights/model-*/config.json")


def test_a_weight_file_of_another_date(drift: Site) -> None:
    on_host(drift, "touch -d 2001-01-01 /srv/onprem-llm/weights/model-*/config.json")
    assert "weight file config.json differs" in reasons(drift)
    mended(drift)


def test_a_changed_key(drift: Site) -> None:
    gateway = drift.lab.hosts[0]
    before = containers(drift.lab, drift.lab.hosts[1])
    old = drift.lab.exec_root(gateway, "cat", f"/srv/onprem-llm/secrets/{NAME}")
    drift.lab.exec_root(gateway, "rm", f"/srv/onprem-llm/secrets/{NAME}")
    assert "key" in reasons(drift)
    mended(drift)
    new = drift.lab.exec_root(gateway, "cat", f"/srv/onprem-llm/secrets/{NAME}")
    assert new != old
    assert containers(drift.lab, drift.lab.hosts[1]) != before
    assert "stub:" in drift.run("chat", "hello", "--deployment", NAME).stdout


def test_a_changed_file_makes_a_revision_and_only_that_restarts(drift: Site) -> None:
    stub(drift, NAME, host=drift.lab.hosts[1], port=8101, version=2)
    before = next(entry["revision"] for entry in drift.json("status")["deployments"] if entry["name"] == NAME)
    plan = drift.json("plan", f"{NAME}.yaml")
    assert plan["revision"] == before + 1
    assert "stub-engine:1" in str(plan["changes"])
    mended(drift)


def checked(site: Site) -> None:
    """Check the host: the engine's program is ours, another is not; its image is tried, and leaves nothing behind."""
    host = site.lab.hosts[1]
    pid = int(on_host(site, "docker inspect --format '{{.State.Pid}}' gpus-0-vllm-1"))
    programs = [{"pid": pid, "name": "vllm", "used_memory_mib": 40000}, {"pid": 1, "name": "x", "used_memory_mib": 7}]
    usage = json.dumps({"gpus": {"0": {"processes": programs}}})
    on_host(site, f"mkdir -p /run/onprem-llm-lab && echo '{usage}' > /run/onprem-llm-lab/gpu-usage.json")
    before = containers(site.lab, host)
    found = {one["check"]: one["found"] for one in site.json("check", "--limit", host)["hosts"][host]["findings"]}
    assert containers(site.lab, host) == before
    assert found["other_programs"] == "GPU 0 (0000:18:00.0): x (pid 1, 7 MiB)"
    assert "onprem-llm/stub-engine:1: no torch in it" in found["engine_image"]
    on_host(site, "rm /run/onprem-llm-lab/gpu-usage.json")


def test_a_simulated_gpu_reaches_the_container(drift: Site) -> None:
    stub(drift, "gpus", host=drift.lab.hosts[1], port=8102, gpus=1)
    drift.run("deploy", "gpus.yaml", "--yes")
    row = next(row for row in drift.json("status")["replicas"] if row["project"] == "gpus-0")
    assert row["gpus"] == ["0"]
    assert "H100" in on_host(drift, "docker exec gpus-0-vllm-1 nvidia-smi -L")
    checked(drift)
    # Docker before 28.2 does not start containers with CDI devices at boot; bootstrap's unit does.
    subprocess.run(["docker", "restart", drift.lab.hosts[1]], check=True, capture_output=True, timeout=120)
    end = time.monotonic() + 60
    while "H100" not in drift.lab.exec_root(
        drift.lab.hosts[1], "docker", "exec", "gpus-0-vllm-1", "nvidia-smi", "-L", check=False
    ):
        assert time.monotonic() < end, on_host(drift, "docker ps --all")
        time.sleep(1)
    drift.run("down", "gpus", "--yes")
