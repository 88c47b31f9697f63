import json
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from onprem_llm.secret_values import fingerprint

from .conftest import Load

SMI = r"""#!/bin/sh
case "$1" in
--query-gpu=*compute_cap*) [ -z "$OLD" ] || { echo 'Field "compute_cap" is not a valid field to query.'; exit 2; }
  echo '0, GPU-a, NVIDIA H100 80GB HBM3, 580.95.05, 81559, 10, 9.0'
  echo '1, GPU-b, NVIDIA GB10, 580.95.05, [N/A], [N/A], 12.1' ;;
--query-gpu=*) echo '0, GPU-a, Tesla T4, 450.80.02, 15109, 0' ;;
--query-compute-apps=*) echo 'GPU-a, 77, /opt/a, b/python, 512' ;;
topo) [ -z "$NO_TOPOLOGY" ] || { echo 'Unknown Error'; exit 255; }
  printf '\tGPU0\tGPU1\tGPU2\tCPU Affinity\nGPU0\t X \tNV4\tSYS\t0-15\nGPU1\tNV4\t X \tSYS\t0-15\n'
  printf 'GPU2\tSYS\tSYS\t X \t16-31\n' ;;
*) echo '| NVIDIA-SMI 580.95.05    Driver Version: 580.95.05    CUDA Version: 13.0 |' ;;
esac
"""


@pytest.fixture
def state(load: Load) -> ModuleType:
    return load("host_probe/onprem_llm_probe_state")


@pytest.fixture
def gpus(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return load("host_probe/onprem_llm_probe_gpus")


def test_rdma_ports_are_told_with_their_state_where_containers_can_have_them(tmp_path: Path, load: Load) -> None:
    probe = load("host_probe/onprem_llm_probe_machine")
    for port, state in (("mlx5_0/ports/1", "4: ACTIVE"), ("mlx5_1/ports/1", "1: DOWN")):
        (tmp_path / "class" / port).mkdir(parents=True)
        (tmp_path / "class" / port / "state").write_text(state + "\n")
    assert probe.rdma(str(tmp_path / "class"), str(tmp_path / "dev")) == {}
    (tmp_path / "dev").mkdir()
    assert probe.rdma(str(tmp_path / "class"), str(tmp_path / "dev")) == {"mlx5_0:1": True, "mlx5_1:1": False}


def test_gpus_with_processes_and_absent_memory(gpus: ModuleType) -> None:
    found = gpus.gpus()
    assert (found["driver"], found["cuda"], found["error"]) == ("580.95.05", "13.0", None)
    first, second = found["devices"]
    assert first["processes"] == [{"pid": 77, "name": "/opt/a,b/python", "memory": 512}]
    assert (first["memory_total"], first["memory_used"], first["compute_cap"]) == (81559, 10, "9.0")
    assert (second["memory_total"], second["memory_used"], second["processes"]) == (None, None, [])


def test_an_old_driver_knows_no_compute_capability(gpus: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD", "1")
    found = gpus.gpus()
    assert (found["driver"], found["devices"][0]["compute_cap"], found["error"]) == ("450.80.02", None, None)


def test_a_hanging_driver_is_said_to_hang(gpus: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(gpus, "TIME_LIMIT", 0.3)
    begun = time.monotonic()
    assert "did not answer" in gpus.gpus()["error"]
    assert time.monotonic() - begun < 5


def test_no_tool_is_an_answer(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = load("host_probe/onprem_llm_probe_gpus")
    monkeypatch.setattr(gpus.shutil, "which", lambda *_, **__: None)
    nothing = {"tool": False, "driver": None, "cuda": None, "error": None, "devices": [], "links": {}}
    assert gpus.gpus() == nothing


@pytest.mark.parametrize(("cards", "links"), [(2, {}), (3, {"0-1": "NV4", "0-2": "SYS", "1-2": "SYS"})])
def test_links_are_asked_for_where_there_is_a_choice(
    gpus: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: int, links: dict[str, str]
) -> None:
    for name in (*(f"nvidia{number}" for number in range(cards)), "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    assert gpus.gpus()["links"] == links
    # A driver that does not say is no fault of the GPUs.
    monkeypatch.setenv("NO_TOPOLOGY", "1")
    found = gpus.gpus()
    assert (found["links"], found["error"], len(found["devices"])) == ({}, None, 2)


def test_one_part_that_fails_or_hangs_hides_no_other(load: Load) -> None:
    probe = load("host_probe/host_probe")
    over = threading.Event()

    def fail() -> None:
        raise ValueError("odd")

    answers, problems = probe.gather({"good": lambda: 1, "bad": fail, "hung": over.wait}, limit=0.2)
    over.set()
    assert answers == {"good": 1}
    assert problems == ["bad: ValueError: odd", "hung: no answer within 0 s"]


def test_project_files_and_secrets(state: ModuleType, tmp_path: Path) -> None:
    project = tmp_path / "tiny-0"
    (project / "secrets").mkdir(parents=True)
    (project / "compose.yaml").write_text("a")
    (project / "template.jinja").write_text("b")
    (project / "notes.txt").write_text("somebody's")
    (project / ".rendered.json").write_text('["compose.yaml", "template.jinja", "gone"]')
    (project / "secrets" / "env").write_text("A='k1;k2'\nB='it'\\''s\nnew'\n")
    found, secrets = state.project(project, "salt")
    assert sorted(found["files"]) == ["compose.yaml", "template.jinja"]
    assert len(found["secrets_digest"]) == 16
    assert secrets == {"A": fingerprint("salt", "k1;k2"), "B": fingerprint("salt", "it's\nnew")}
    assert state.project(project, "")[1] == {}
    assert state.project_names(tmp_path) == ["tiny-0"]


def test_a_key_file_and_the_secret_made_of_it_have_one_fingerprint(state: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "tiny").write_text("k1\n")
    assert state.keys(str(tmp_path), "salt") == {"tiny": fingerprint("salt", "k1")}
    assert state.keys(str(tmp_path), "") == {}
    assert state.keys(str(tmp_path / "none"), "salt") == {}


def stamp(folder: Path) -> None:
    files = {one.name: [one.stat().st_size, one.stat().st_mtime_ns, "0" * 64] for one in folder.iterdir()}
    folder.with_name(folder.name + ".json").write_text(json.dumps({"files": files}))


def test_weights_drift(state: ModuleType, tmp_path: Path) -> None:
    good, bad, unfinished = (tmp_path / name for name in ("good", "bad", "unfinished"))
    for folder in (good, bad, unfinished):
        folder.mkdir()
        for name in ("a", "b", "c"):
            (folder / name).write_text("123")
    stamp(good)
    stamp(bad)
    (bad / "a").write_text("1234")
    (bad / "b").unlink()
    found: dict[str, Any] = state.weights(tmp_path)
    assert found["good"] == {"path": str(good), "files": 3, "bytes": 9, "drift": [], "complete": True}
    assert (found["bad"]["drift"], found["bad"]["complete"]) == (["a", "b"], False)
    assert (found["unfinished"]["files"], found["unfinished"]["complete"]) == (0, False)
    assert state.weights(tmp_path / "none") == {}


def test_addresses_of_the_kernel_are_decoded(load: Load) -> None:
    machine = load("host_probe/onprem_llm_probe_machine")
    assert machine._socket_address("0100007F:1F40") == ("127.0.0.1", 8000)
    assert machine._socket_address("00000000000000000000000001000000:0016") == ("::1", 22)


def test_a_host_says_what_time_it_is(load: Load) -> None:
    assert abs(load("host_probe/onprem_llm_probe_machine").host()["now"] - time.time()) < 60


def test_disks_are_measured_at_the_nearest_folder_that_exists(load: Load, tmp_path: Path) -> None:
    machine = load("host_probe/onprem_llm_probe_machine")
    found = machine.disk(str(tmp_path / "not" / "there"))
    assert found["path"].endswith("not/there")
    assert 0 < found["free"] <= found["total"]


def test_cdi_devices(load: Load, tmp_path: Path) -> None:
    engine = load("host_probe/onprem_llm_probe_engine")
    (tmp_path / "nvidia.yaml").write_text(
        'kind: nvidia.com/gpu\ndevices:\n- name: "0"\n- name: GPU-a\n  containerEdits: {}\n'
    )
    (tmp_path / "other.json").write_text('{"kind": "vendor.com/net", "devices": [{"name": "x"}]}')
    assert engine.cdi_devices([str(tmp_path), "/nowhere"]) == ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-a"]


def test_ports_of_containers_without_a_proxy_are_listed_too(load: Load) -> None:
    probe = load("host_probe/host_probe")
    seen = [{"address": "::", "port": 80, "pid": 1, "process": "docker-proxy", "container": None}]
    found = probe.name_containers(seen, {("::", 80): "web", ("10.0.0.1", 90): "api"})
    assert [(one["port"], one["container"]) for one in found] == [(80, "web"), (90, "api")]
