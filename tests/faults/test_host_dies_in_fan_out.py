"""A host dies while hosts pass weights on: the others get all of them, and the next run sends what is missing."""

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from tests.load.rehearsal import Rehearsal, until
from tests.load.served import Served, stub_text
from tests.made_weights import random_safetensors

UNREACHABLE = 4
SIZE = 300_000_000
NAME = "model-9.safetensors"
STATUS = "cat /run/onprem-llm-fan-out-*/status.json"
FILES = f"stat --format '%s %i %Y' /srv/onprem-llm/weights/model-large-*/{NAME}"


@pytest.fixture
def fanned(rehearsal: Rehearsal) -> Iterator[Served]:
    """Three replicas of a model that takes a while to send; not deployed yet."""
    site = rehearsal.site
    settings = (site.folder / "group_vars/all.yml").read_text()
    site.write("group_vars/all.yml", f"{settings}  fan_out: always\n")
    large = site.folder / "model-large"
    shutil.copytree(site.folder / "model", large, dirs_exist_ok=True)
    (large / NAME).write_bytes(random_safetensors(SIZE, 7))
    text = stub_text(rehearsal, "fanned", port=8020, replicas=3).replace("model: model\n", "model: model-large\n")
    yield Served(rehearsal, "fanned", text)
    site.run("down", "fanned", "--purge", "--yes", code=None)
    site.write("group_vars/all.yml", settings)
    shutil.rmtree(large)


def passing_on(served: Served, host: str) -> int:
    """Return how many bytes of the run have been checked on a host."""
    said = served.rehearsal.lab.exec_root(host, "sh", "-c", STATUS, check=False)
    try:
        return int(json.loads(said).get("done", 0))
    except ValueError:
        return 0


def there(served: Served, host: str) -> tuple[str, ...]:
    """Return size, inode and date of the large file under its final name; empty where it has none."""
    return tuple(served.rehearsal.lab.exec_root(host, "sh", "-c", FILES, check=False).split())


def test_the_others_have_all_and_the_next_run_goes_on(fanned: Served) -> None:
    gateway, dying, third = fanned.rehearsal.hosts
    sha256 = subprocess.run(["sha256sum", fanned.site.folder / "model-large" / NAME], capture_output=True, check=True)
    fanned.write()
    deploy = subprocess.Popen(
        ["onprem-llm", "deploy", fanned.file, "--yes", "--bandwidth", "15MB"], cwd=fanned.site.folder,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        until(lambda: passing_on(fanned, dying) > SIZE / 3 or deploy.poll() is not None, 240, "a third is there")
        assert deploy.poll() is None, deploy.communicate()
        subprocess.run(["docker", "kill", dying], check=True, capture_output=True, timeout=60)
        said, _ = deploy.communicate(timeout=400)
        print(said)
        assert deploy.returncode == UNREACHABLE, said
        assert f"{dying}: unreachable" in said
        assert "what to do" in said
        assert f"1 of 3 hosts failed while bringing weights: {dying}" in said
        assert {*said.partition("\nok: ")[2].splitlines()[0].split(", ")} == {gateway, third}
        before = {host: there(fanned, host) for host in (gateway, third)}
        assert all(len(found) == 3 and int(found[0]) > SIZE for found in before.values()), before
        # Nothing of it serves, and nothing of it is in the book.
        for host in (gateway, third):
            assert "fanned" not in fanned.rehearsal.lab.exec_root(host, "docker", "ps", "--format", "{{.Names}}")
    finally:
        deploy.kill()
        deploy.communicate()
        subprocess.run(["docker", "start", dying], check=True, capture_output=True, timeout=60)
    fanned.rehearsal.is_back(dying)
    assert fanned.name not in [one["name"] for one in fanned.site.json("status")["deployments"]]
    assert there(fanned, dying) == (), "half a file has its final name"
    fanned.site.run("deploy", fanned.file, "--yes", timeout=600)
    fanned.in_rotation(3, 60)
    assert {host: there(fanned, host) for host in before} == before, "what was there was sent again"
    listed = fanned.rehearsal.lab.exec_root(
        dying, "sh", "-c", f"sha256sum /srv/onprem-llm/weights/model-large-*/{NAME}"
    )
    assert listed.split()[0] == sha256.stdout.decode().split()[0]
