"""What is said about GPUs over nvidia-smi's real answers."""

import pytest

TWO = "NVIDIA H100 80GB HBM3, 81559 MiB, 580.95.05\nNVIDIA H100 80GB HBM3, 81559 MiB, 580.95.05"
TABLE = "| NVIDIA-SMI 580.95.05    Driver Version: 580.95.05    CUDA Version: 13.0     |"


@pytest.fixture
def check(role_module):
    return role_module("gpu_check")


def test_none_at_all_is_fine(check):
    [finding] = check.gpu_findings(0, False, False, "", "")
    assert finding["level"] == "ok"
    assert "CPU" in finding["found"]


def test_gpus_without_a_driver(check):
    [finding] = check.gpu_findings(8, False, False, "", "")
    assert (finding["check"], finding["level"]) == ("driver", "warning")
    assert "8 NVIDIA GPU(s)" in finding["found"]


def test_two(check):
    gpus, driver = check.gpu_findings(2, True, True, TWO, TABLE)
    assert gpus["found"] == "2 x NVIDIA H100 80GB HBM3 (81559 MiB)"
    assert driver["found"] == "driver 580.95.05, CUDA 13.0"


def test_memory_that_is_not_available(check):
    gpus, driver = check.gpu_findings(1, True, True, "NVIDIA GB10, [N/A], 580.95.05", "CUDA Version: N/A")
    assert gpus["found"] == "1 x NVIDIA GB10 ([N/A])"
    assert driver["found"] == "driver 580.95.05, CUDA unknown"


def test_a_driver_that_fails(check):
    said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    [finding] = check.gpu_findings(2, True, False, said, "")
    assert finding["level"] == "warning"
    assert said in finding["found"]


def test_ways_into_containers(check):
    assert check.access_finding([], ["runc"])["level"] == "warning"
    assert "CDI (/etc/cdi/nvidia.yaml)" in check.access_finding(["/etc/cdi/nvidia.yaml"], [])["found"]
    assert "nvidia runtime" in check.access_finding([], ["nvidia", "runc"])["found"]
