"""Hosts pass an image on: a part that is killed costs nothing but time, a host that dies is named, the others go on."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.load.large_images import write_registry_with
from tests.load.rehearsal import Rehearsal, until
from tests.load.served import Served, stub_text

from onprem_llm.own_registry import read_own_registry

UNREACHABLE = 4
IMAGE = "example/stub-passed:1"
LAYER = 200_000_000
STATUS = "cat /run/onprem-llm-fan-out-*/status.json"
KILL = "systemctl kill --signal KILL --kill-whom all 'onprem-llm-fan-out-*'"
PULLED = ("docker", "image", "inspect", "--format", "{{json .RepoDigests}}", IMAGE)


@pytest.fixture
def passed(rehearsal: Rehearsal, tmp_path: Path) -> Iterator[Served]:
    """Three replicas of an image that takes a while to pass on; not deployed yet.

    A host keeps its registry, and so the image, while it has a replica of anything: also of what an earlier file left.
    """
    site = rehearsal.site
    rehearsal.down("stub")
    settings = (site.folder / "group_vars/all.yml").read_text()
    site.write("group_vars/all.yml", f"{settings}  registry_dir: registry\n  fan_out: always\n")
    write_registry_with(tmp_path / "layout", site.folder / "registry", IMAGE, LAYER)
    text = stub_text(rehearsal, "passed", port=8050, replicas=3).replace("onprem-llm/stub-engine:1", IMAGE)
    yield Served(rehearsal, "passed", text)
    site.run("down", "passed", "--purge", "--yes", code=None)
    site.write("group_vars/all.yml", settings)
    shutil.rmtree(site.folder / "registry")


def begun(served: Served) -> "subprocess.Popen[str]":
    served.write()
    return subprocess.Popen(
        ["onprem-llm", "deploy", served.file, "--yes", "--bandwidth", "15MB"], cwd=served.site.folder,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def a_third_is_there(served: Served, host: str, deploy: "subprocess.Popen[str]") -> None:
    size = sum(read_own_registry(served.site.folder / "registry", None).store.blobs.values())

    def done() -> int:
        said = served.rehearsal.lab.exec_root(host, "sh", "-c", STATUS, check=False)
        try:
            return int(json.loads(said).get("done", 0))
        except ValueError:
            return 0

    until(lambda: done() > size / 3 or deploy.poll() is not None, 300, "a third is there")
    if deploy.poll() is not None:
        print(deploy.communicate()[0])
        pytest.fail("the deploy ended before a third was there")


def ended(deploy: "subprocess.Popen[str]") -> None:
    deploy.kill()
    deploy.wait()


def pulled(served: Served, host: str) -> list[str]:
    """Return what docker on a host calls the image by digest; none where it has none."""
    shown = served.rehearsal.lab.exec_root(host, *PULLED, check=False)
    found: list[str] = json.loads(shown) if shown.strip() else []
    return found


def test_a_part_that_is_killed_is_named_and_the_deploy_goes_on(passed: Served) -> None:
    gateway, killed, third = passed.rehearsal.hosts
    deploy = begun(passed)
    try:
        a_third_is_there(passed, killed, deploy)
        passed.rehearsal.lab.exec_root(killed, "sh", "-c", KILL)
        said, _ = deploy.communicate(timeout=600)
        print(said)
    finally:
        ended(deploy)
    assert deploy.returncode == 0, said
    assert f"{killed}: what it lacks of the image comes from this machine instead" in said
    assert f"{third}: what it lacks" not in said, "it was passed the image around the one that was killed"
    assert pulled(passed, gateway)[0].startswith(f"{passed.rehearsal.address(gateway)}:5000/")
    for host in (killed, third):
        (name,) = pulled(passed, host)
        assert name.startswith("127.0.0.1:5000/")
    passed.in_rotation(3, 60)


def test_a_host_that_dies_is_named_and_the_next_run_goes_on(passed: Served) -> None:
    _, dying, third = passed.rehearsal.hosts
    lab = passed.rehearsal.lab
    deploy = begun(passed)
    try:
        a_third_is_there(passed, dying, deploy)
        subprocess.run(["docker", "kill", dying], check=True, capture_output=True, timeout=60)
        said, _ = deploy.communicate(timeout=600)
        print(said)
        assert deploy.returncode == UNREACHABLE, said
        assert f"{dying}: unreachable" in said
        assert "what to do" in said.lower()
        assert f"hosts failed while filling and starting a registry: {dying}" in said
        # The other one has all of it, served to itself; nothing has been started.
        assert "127.0.0.1:5000" in lab.exec_root(third, "ss", "-Hltn", "sport = :5000")
        assert "passed" not in lab.exec_root(third, "docker", "ps", "--format", "{{.Names}}")
    finally:
        ended(deploy)
        subprocess.run(["docker", "start", dying], check=True, capture_output=True, timeout=60)
    passed.rehearsal.is_back(dying)
    assert lab.exec_root(dying, "sh", "-c", "find /srv/onprem-llm/registry/data -name link") == "", (
        "half an image is named"
    )
    passed.site.run("deploy", passed.file, "--yes", timeout=900)
    passed.in_rotation(3, 60)
    assert all(name.startswith("127.0.0.1:5000/") for host in (dying, third) for name in pulled(passed, host))
