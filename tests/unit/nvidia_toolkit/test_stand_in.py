"""The stand-in nvidia-ctk against what the real ones print (recorded), and against what we ask of them."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
STAND_IN = ROOT / "cli/onprem_llm/lab/gpu/nvidia-ctk"
PROGRAM = ROOT / "roles/nvidia_container_toolkit/files/onprem-llm-nvidia-cdi"
RECORDED = sorted(Path(__file__).with_name("recorded").glob("*.txt"))


def helps(path: Path) -> dict[str, str]:
    """Return {command: what --help says}."""
    parts = re.split(r"^\$ nvidia-ctk (.*) --help$", path.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module")
def known() -> dict[str, dict[str, bool]]:
    found = runpy.run_path(str(STAND_IN), run_name="stand_in")["OPTIONS"]
    return {" ".join(key): value for key, value in found.items()}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_the_real_ones_have_every_option_of_the_stand_in(path, known):
    for command, options in known.items():
        for option, value in options.items():
            # With a value as `--output string` or `--output value`, without one at the end of the names.
            form = rf"^ +(\S+, )*{option}(,| (string|value)| {{2,}})" if value else rf"^ +{option}(,| {{2,}})"
            assert re.search(form, helps(path)[command], re.MULTILINE), f"{command} {option}"


def commands(text: str) -> list[list[str]]:
    return [
        line.split() for line in re.findall(r"nvidia-ctk (--quiet .*?)(?: \|\|)?$", text.replace('"', ""), re.MULTILINE)
    ]


def test_the_program_asks_only_for_what_the_stand_in_takes(known):
    rule = (PROGRAM.parent / "71-onprem-llm-nvidia-dev-char.rules").read_text()
    asked = commands(PROGRAM.read_text()) + commands(rule)
    assert len(asked) == 4
    for words in asked:
        command = next(one for one in known if words[1 : 1 + len(one.split())] == one.split())
        options = [word.partition("=")[0] for word in words[1 + len(command.split()) :]]
        assert set(options) <= set(known[command]), words


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ONPREM_LLM_LAB_ROOT": str(root)}
    return subprocess.run(
        [sys.executable, STAND_IN, *words], env=environment, capture_output=True, text=True, check=False
    )


def test_it_refuses_as_the_real_one_does(tmp_path):
    done = run(tmp_path, "cdi", "generate", "--nonsense")
    assert (done.returncode, done.stderr.strip()) == (1, "Incorrect Usage: flag provided but not defined: -nonsense")
    done = run(tmp_path, "--quiet", "cdi", "generate")
    assert (done.returncode, "ERROR_LIBRARY_NOT_FOUND" in done.stderr) == (1, True)


def test_its_specification_is_yaml_with_every_gpu_by_index_and_by_uuid(tmp_path, toolkit):
    (tmp_path / "etc/onprem-llm-lab").mkdir(parents=True)
    (tmp_path / "dev").mkdir()
    (tmp_path / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (tmp_path / "usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05").touch()
    gpus = '{"driver_version": "580.95.05", "gpus": [{"minor": 0, "uuid": "GPU-a"}, {"minor": 1, "uuid": "GPU-b"}]}'
    (tmp_path / "etc/onprem-llm-lab/gpus.json").write_text(gpus)
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / "dev" / name).touch()
    assert run(tmp_path, "cdi", "generate", "--output=/var/run/cdi/nvidia.yaml").returncode == 0
    text = (tmp_path / "var/run/cdi/nvidia.yaml").read_text()
    found = yaml.safe_load(text)
    assert [one["name"] for one in found["devices"]] == ["0", "GPU-a", "1", "GPU-b", "all"]
    assert found["containerEdits"]["mounts"][0]["hostPath"] == "/usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05"
    real = yaml.safe_load(RECORDED[0].with_name("cdi-1.20.0.yaml").read_text())
    assert set(found) == set(real)
    assert set(found["containerEdits"]) == set(real["containerEdits"])
    assert {len(one) for one in real["devices"]} == {len(one) for one in found["devices"]}
    assert set(toolkit.cdi.host_paths(text)) >= {"/dev/nvidia1", "/dev/nvidiactl", "/usr/bin/nvidia-cdi-hook"}
