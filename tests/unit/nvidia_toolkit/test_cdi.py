"""Reading specifications, and judging them against the host."""

import json
from pathlib import Path

import pytest
import yaml

UUID = "GPU-11111111-2222-3333-4444-555555555555"
OTHER = "GPU-99999999-2222-3333-4444-555555555555"
SPEC = {
    "cdiVersion": "0.5.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
        {"name": UUID, "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "hostPath": "/dev/null"}]}},
    ],
    "containerEdits": {
        "env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "hooks": [
            {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", "x"]}
        ],
        "mounts": [{"hostPath": "/lib/libcuda.so.550.54.14", "containerPath": "/c", "options": ["ro"]}],
    },
}
PATHS = ["/dev/null", "/dev/nvidia0", "/lib/libcuda.so.550.54.14", "/usr/bin/nvidia-cdi-hook"]


@pytest.mark.parametrize(
    "text",
    [
        yaml.safe_dump(SPEC),
        yaml.safe_dump(SPEC, sort_keys=False, indent=4),
        "---\n" + yaml.safe_dump(SPEC, default_style='"'),
        json.dumps(SPEC),
        json.dumps(SPEC, indent=2),
    ],
)
def test_the_hosts_paths_are_read_however_it_is_written(toolkit, text):
    assert toolkit.cdi.host_paths(text) == PATHS


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).with_name("recorded").glob("cdi-*.yaml")), ids=lambda path: path.stem
)
def test_what_the_real_tool_writes(toolkit, path):
    assert toolkit.cdi.host_paths(path.read_text()) == [
        "/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl", "/usr/bin/nvidia-cdi-hook",
        "/usr/bin/nvidia-smi", "/usr/lib/x86_64-linux-gnu/libcuda.so.550.163.01",
        "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.163.01",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "{", "{}", "kind: nvidia.com/gpu", "- a\n- b"])
def test_what_names_nothing(toolkit, text):
    assert toolkit.cdi.host_paths(text) == []


def test_what_is_missing(toolkit, tmp_path):
    for path in PATHS[:2]:
        (tmp_path / path.lstrip("/")).parent.mkdir(exist_ok=True)
        (tmp_path / path.lstrip("/")).touch()
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi/nvidia.yaml").write_text(yaml.safe_dump(SPEC))
    (tmp_path / "cdi/other.yaml").write_text("kind: example.com/dev\nx:\n- hostPath: /gone\n")
    (tmp_path / "cdi/nvidia.bak").write_text("kind: nvidia.com/gpu\nx:\n- hostPath: /gone\n")
    assert toolkit.cdi.missing([tmp_path / "cdi", tmp_path / "none"], tmp_path) == PATHS[2:]


def now(**other):
    found = {"files": ["/var/run/cdi/nvidia.yaml"], "named": [UUID], "missing": [], "cards": [UUID], "error": ""}
    return {**found, "mig": False, **other}


@pytest.mark.parametrize(
    ("found", "whole", "said"),
    [
        ({}, True, ""),
        ({"files": []}, False, "no CDI specification"),
        ({"missing": ["/lib/a", "/lib/b"]}, False, "names /lib/a and 1 more, which the host does not have"),
        ({"cards": [OTHER]}, False, "names 1 GPU(s) that are gone and has no name by UUID of 1 GPU(s)"),
        ({"named": []}, False, "has no name by UUID of 1 GPU(s)"),
        ({"named": [], "mig": True}, True, ""),
    ],
)
def test_a_specification_fits_or_it_is_said_why_not(toolkit, found, whole, said):
    assert toolkit.plan.whole(now(**found)) is whole
    assert said in toolkit.plan.wrong(now(**found))
    assert bool(toolkit.plan.wrong(now(**found))) is not whole


def test_somebody_elses_file_is_left_alone(toolkit):
    files = ["/etc/cdi/gpus.json"]
    assert toolkit.plan.targets(files) == []
    found = toolkit.plan.cdi_finding(now(files=files, missing=["/lib/a"]))
    assert (found["level"], "/etc/cdi/gpus.json" in found["remedy"]) == ("warning", True)
    assert toolkit.plan.targets([]) == ["/var/run/cdi/nvidia.yaml"]
    assert toolkit.plan.targets(["/etc/cdi/nvidia.yaml"]) == ["/var/run/cdi/nvidia.yaml", "/etc/cdi/nvidia.yaml"]


def test_one_that_does_not_fit_after_all_is_an_error(toolkit):
    with pytest.raises(toolkit.packages.ToolkitError, match="names /lib/a, which the host does not have, after"):
        toolkit.plan.cdi_finding(now(missing=["/lib/a"]))
    error = toolkit.plan.failed("found a, expected b. Do c. And d.")
    assert [error[key] for key in ("found", "expected", "remedy")] == ["a", "b", "Do c. And d."]
