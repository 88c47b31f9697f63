import json

import pytest
import yaml

from onprem_llm.errors import UsageError
from onprem_llm.lab.gpu import stand_in
from onprem_llm.lab.gpu.stand_in import GpuSet

KNOWN = (
    ["H100-80GB", "H200-141GB", "A100-80GB", "A100-40GB"],
    ["L4-24GB", "L40S-48GB", "T4-16GB", "RTX-4090-24GB"],
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], [None, None]),
        (["2xH100-80GB"], [GpuSet(2, "H100-80GB"), GpuSet(2, "H100-80GB")]),
        (["2xh100-80gb", "host2=4xT4-16GB"], [GpuSet(2, "H100-80GB"), GpuSet(4, "T4-16GB")]),
        (["host1=8xL4-24GB"], [GpuSet(8, "L4-24GB"), None]),
        (["2xL4-24GB", "host1=0xL4-24GB"], [None, GpuSet(2, "L4-24GB")]),
    ],
)
def test_parse_gpus(values: list[str], expected: list[GpuSet | None]) -> None:
    assert stand_in.parse_gpus(values, 2) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2xZ9", "unknown GPU model 'Z9'"),
        ("H100-80GB", "expected COUNTxMODEL"),
        ("host3=1xT4-16GB", "found 'host3', expected host1 to host2"),
        ("99xT4-16GB", "at most 16 a host"),
    ],
)
def test_what_cannot_be_is_refused(value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        stand_in.parse_gpus([value], 2)


def test_an_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        stand_in.parse_gpus(["1xZ9"], 1)
    assert caught.value.hint is not None
    assert all(model in caught.value.hint for group in KNOWN for model in group)


@pytest.mark.parametrize(("driver", "cuda"), [("580.95.05", "13.0"), ("550.54.14", "12.4"), ("570.172.08", "12.8")])
def test_cuda_version_follows_the_driver(driver: str, cuda: str) -> None:
    assert stand_in.cuda_version(driver) == cuda


@pytest.mark.parametrize("driver", ["latest", "390.157"])
def test_an_unknown_driver_is_refused(driver: str) -> None:
    with pytest.raises(UsageError):
        stand_in.cuda_version(driver)


def test_identities_stay_and_differ_between_hosts() -> None:
    def uuids(host: str) -> list[str]:
        files = {file.path: file.text for file in stand_in.host_files(host, GpuSet(2, "L4-24GB"), "580.95.05")}
        return [gpu["uuid"] for gpu in json.loads(files[stand_in.GPUS_PATH])["gpus"]]

    assert uuids("lab-1") == uuids("lab-1")
    assert len({*uuids("lab-1"), *uuids("lab-2")}) == 4


def test_cdi_devices() -> None:
    files = {file.path: file.text for file in stand_in.host_files("lab-1", GpuSet(2, "L4-24GB"), "580.95.05")}
    spec = yaml.safe_load(files[stand_in.CDI_PATH])
    names = [device["name"] for device in spec["devices"]]
    assert spec["kind"] == "nvidia.com/gpu"
    assert [name for name in names if not name.startswith("GPU-")] == ["0", "1", "all"]
    nodes = {device["name"]: device["containerEdits"]["deviceNodes"] for device in spec["devices"]}
    assert [node["path"] for node in nodes["all"]] == ["/dev/nvidia0", "/dev/nvidia1"]


def test_a_host_without_gpus_gets_nothing() -> None:
    assert stand_in.host_files("lab-1", None, "580.95.05") == []


def test_every_model_is_complete() -> None:
    wanted = {
        "name", "memory_mib", "reserved_mib", "power_w", "idle_w", "compute_cap", "pci_device", "clock_mhz",
        "data_center", "ecc", "mig", "nvlinks",
    }  # fmt: skip
    assert {model: set(facts) for model, facts in stand_in.models().items()} == dict.fromkeys(stand_in.models(), wanted)
