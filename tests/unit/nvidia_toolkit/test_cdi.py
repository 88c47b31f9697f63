"""Reading specifications, and judging them against the host."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

LIBRARY = Path(__file__).resolve().parents[3] / "roles/nvidia_container_toolkit/library/nvidia_container_toolkit_cdi.py"
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
    return {**found, "mig": [], "partitions": False, **other}


@pytest.mark.parametrize(
    ("found", "whole", "said"),
    [
        ({}, True, ""),
        ({"files": []}, False, "no CDI specification"),
        ({"missing": ["/lib/a", "/lib/b"]}, False, "names /lib/a and 1 more, which the host does not have"),
        ({"cards": [OTHER]}, False, "names 1 GPU(s) that are gone and has no name by UUID of 1 GPU(s)"),
        ({"named": []}, False, "has no name by UUID of 1 GPU(s)"),
        ({"cards": [], "named": [], "mig": [UUID], "partitions": True}, True, ""),
        ({"mig": [OTHER]}, True, ""),
        ({"named": [UUID, OTHER], "mig": [OTHER]}, True, ""),
        ({"named": [OTHER], "mig": [OTHER]}, False, "has no name by UUID of 1 GPU(s)"),
        ({"cards": [], "named": [UUID], "mig": [OTHER]}, False, "names 1 GPU(s) that are gone"),
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


LISTED = f"GPU 0: NVIDIA H100 PCIe (UUID: {UUID})\nGPU 1: NVIDIA H100 PCIe (UUID: {OTHER})\n"
PARTITION = "  MIG 1g.10gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)\n"


@pytest.mark.parametrize(
    ("listed", "modes", "cards", "mig", "partitions"),
    [
        (LISTED, f"{UUID}, Disabled\n{OTHER}, [N/A]\n", [UUID, OTHER], [], False),
        (LISTED, f"{UUID}, Enabled\n{OTHER}, Disabled\n", [OTHER], [UUID], False),
        (LISTED + PARTITION, f"{UUID}, Disabled\n{OTHER}, Enabled\n", [UUID], [OTHER], True),
        # A driver that does not know the question.
        (LISTED, None, [UUID, OTHER], [], False),
        (LISTED + PARTITION, None, [UUID], [OTHER], True),
    ],
)
def test_a_card_with_mig_on_is_no_card_that_containers_get(
    toolkit, monkeypatch, tmp_path, listed, modes, cards, mig, partitions
):
    """nvidia-ctk gives such a card no device; after a reboot it is usual that its partitions are not there yet."""

    def call(argv, _):
        asked = argv == ["nvidia-smi", "--query-gpu=uuid,mig.mode.current", "--format=csv,noheader"]
        return (0, listed) if "-L" in argv else (0, modes) if asked and modes else (2, "not a valid field")

    monkeypatch.setattr(toolkit.look, "call", call)
    monkeypatch.setattr(toolkit.look, "ROOT", tmp_path)
    found = toolkit.look.specification()
    assert (found["cards"], found["mig"], found["partitions"]) == (cards, mig, partitions)


def test_cards_without_partitions_fail_no_host(toolkit, monkeypatch):
    """The rest of what bootstrap does has nothing to do with it."""
    spec = importlib.util.spec_from_file_location("cdi_module", LIBRARY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "run", lambda *_: (1, "failed to generate CDI spec"))
    for files in ([], ["/var/run/cdi/nvidia.yaml"]):
        found = now(files=files, cards=[], named=[], mig=[UUID])
        monkeypatch.setattr(module.look, "specification", lambda found=found: found)
        changed, finding = module.bring("/program", False)
        assert (changed, finding["level"]) == (False, "warning")
        assert "MIG is on" in finding["found"]
        assert "nvidia-smi mig" in finding["remedy"]
    # Beside a card that is whole, what nvidia-ctk makes of the others is a warning, too.
    found = toolkit.plan.cdi_finding(now(cards=[], named=[OTHER], mig=[UUID], partitions=True))
    assert found["level"] == "warning"
