"""A docker daemon is killed while it pulls from the site's registry: said, nothing started, the next run goes on."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.load.large_images import write_registry_with
from tests.load.rehearsal import Rehearsal
from tests.load.served import Served, stub_text

FAILED = 5
IMAGE = "example/stub-large:1"
LAYER = 400_000_000
# On the host: waits for a pull, and kills the daemon under it.
KILLER = """\
import os, pathlib, signal, time
def processes():
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            yield int(path.name), (path / "comm").read_text().strip(), (path / "cmdline").read_bytes().split(b"\\0")
        except OSError:
            pass
end = time.monotonic() + 240
while time.monotonic() < end:
    found = list(processes())
    if any(name == "docker" and b"pull" in words for _, name, words in found):
        time.sleep(0.3)
        for pid in [pid for pid, name, _ in found if name == "dockerd"]:
            os.kill(pid, signal.SIGKILL)
            print("killed", pid)
        break
    time.sleep(0.02)
"""


@pytest.fixture
def pulled(rehearsal: Rehearsal, tmp_path: Path) -> Iterator[Served]:
    """A replica on the second host, of an image that the site's registry alone has; not deployed yet."""
    site = rehearsal.site
    settings = (site.folder / "group_vars/all.yml").read_text()
    site.write("group_vars/all.yml", f"{settings}  registry_dir: registry\n")
    write_registry_with(tmp_path / "layout", site.folder / "registry", IMAGE, LAYER)
    text = stub_text(rehearsal, "pulled", port=8030, replicas=1).replace("onprem-llm/stub-engine:1", IMAGE)
    yield Served(rehearsal, "pulled", text.replace(rehearsal.hosts[0], rehearsal.hosts[1]))
    site.run("down", "pulled", "--purge", "--yes", code=None)
    site.write("group_vars/all.yml", settings)
    shutil.rmtree(site.folder / "registry")


def test_a_daemon_killed_in_a_pull(stub: Served, pulled: Served) -> None:
    lab, host = pulled.rehearsal.lab, pulled.rehearsal.hosts[1]
    before = stub.births()
    with stub.load() as load:
        killer = subprocess.Popen(["docker", "exec", host, "python3", "-c", KILLER], stdout=subprocess.PIPE, text=True)
        said = pulled.deploy(code=FAILED).stderr
        print(said)
        assert "killed" in killer.communicate(timeout=60)[0]
        assert f"{host}: failed at" in said
        assert f"docker pull {pulled.rehearsal.address(pulled.rehearsal.gateway_host)}:" in said
        assert "journalctl --unit docker" in said
        assert "mend what is said above and run" in said
        # systemd has started it again, and what ran on the host runs on.
        pulled.rehearsal.is_back(host)
        assert "pulled" not in lab.exec_root(host, "docker", "ps", "--all", "--format", "{{.Names}}")
        names = {one["name"] for one in pulled.site.json("status")["deployments"]}
        assert names == {stub.name}
        pulled.deploy()
        pulled.in_rotation(1, 60)
        load.wait(lambda load: len(load.records) >= 200, 60, "200 answers")
    load.assert_all_good(200)
    assert stub.births() == before
