"""`check` on hosts with simulated GPUs: faults that are planted, a report that is compared.

What it says of a deployment's GPUs is in test_3_drift.py, of the real engine's image in test_2_real.py.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Site, containers

USAGE = "/run/onprem-llm-lab/gpu-usage.json"


@pytest.fixture(scope="module")
def faulty(site: Site) -> Iterator[Site]:
    """The second host, on which faults are planted; it is well again afterwards."""
    yield site
    plant(site, None)


def plant(site: Site, usage: dict[str, Any] | None, *, second_card: bool = True) -> None:
    """Say what the second host's GPUs do, and whether its second card is there."""
    text = json.dumps({"gpus": usage}) if usage is not None else ""
    host = site.lab.hosts[1]
    script = f"mkdir -p $(dirname {USAGE}); cat > {USAGE}; [ -s {USAGE} ] || rm {USAGE}; rm -f /dev/nvidia1"
    subprocess.run(["docker", "exec", "-i", host, "sh", "-c", script], input=text, text=True, check=True)
    if second_card:
        site.lab.exec_root(host, "systemd-tmpfiles", "--create", "/etc/tmpfiles.d/onprem-llm-lab-gpus.conf")


def test_hosts_that_are_well(faulty: Site) -> None:
    before = {host: containers(faulty.lab, host) for host in faulty.lab.hosts}
    document = faulty.json("check", "--save", "before.json")
    assert {host: containers(faulty.lab, host) for host in faulty.lab.hosts} == before
    for host in document["hosts"].values():
        found = {one["check"]: one["found"] for one in host["findings"]}
        assert found["gpus"] == "2 x NVIDIA H100 80GB HBM3 (81559 MiB)"
        assert found["nvlink"] == "all 2 GPUs by NVLink, NV18"
        assert found["engine_image"] == "not tried: no deployment has GPUs on this host, and no --image is given"


def test_faults_are_named_and_compared_with_the_report_before(faulty: Site) -> None:
    second = faulty.lab.hosts[1]
    plant(faulty, {"0": {"log": {"ecc_errors/volatile/dram_uncorrectable": "3"}}}, second_card=False)
    done = faulty.run("check", "--no-trial", "--against", "before.json", code=5)
    assert "uncorrected memory errors: GPU 0 (0000:18:00.0): 3 since the driver was loaded" in done.stdout
    assert f"gpu_memory ({second}): Take the host out" in done.stdout
    assert "half of the GPUs are missing: 1 of 2 GPUs; gone: NVIDIA H100 80GB HBM3 at 0000:2a:00.0" in done.stdout
    assert f"1 of 2 hosts have errors: {second}" in done.stderr


def test_mended_hosts_are_well(faulty: Site) -> None:
    plant(faulty, None)
    done = faulty.run("check", "--no-trial", "--against", "before.json")
    assert "2 hosts: 2 well." in done.stdout


def test_a_host_that_is_down_is_named_and_the_other_is_shown(faulty: Site, tmp_path: Path) -> None:
    first = faulty.lab.hosts[0]
    inventory = tmp_path / "inventory.ini"
    inventory.write_text("gone ansible_host=127.0.0.1 ansible_port=1\n" + faulty.lab.inventory.read_text())
    done = faulty.run("check", str(inventory), "--no-trial", "--limit", f"{first},gone", code=4)
    assert "NVIDIA H100" in done.stdout
    assert "1 host could not be looked at: gone" in done.stderr
