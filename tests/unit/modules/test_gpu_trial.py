"""The trial inside an image: what docker is told, what the program says of a torch, and what is made of the answer."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load

IMAGE = "vllm:1"


@pytest.fixture
def part(load: Load) -> ModuleType:
    return load("gpu_check/gpu_check_trial")


def trial(access: str = "cdi", *devices: str, gpus: int = 2) -> dict[str, Any]:
    return {"image": IMAGE, "access": access, "devices": list(devices), "gpus": gpus}


def test_what_docker_is_told(part: ModuleType) -> None:
    fixed = [
        "--rm",
        "--name",
        "t",
        "--label",
        "onprem-llm.trial=1",
        "--pull",
        "never",
        "--network",
        "none",
        "--ipc",
        "host",
    ]
    end = ["--entrypoint", "python3"]

    def ways(*arguments: str) -> list[str]:
        said: list[str] = part.arguments(trial(*arguments), "t")
        assert said[: len(fixed)] == fixed
        assert said[-2:] == end
        return said[len(fixed) : -2]

    a, b = "nvidia.com/gpu=GPU-a", "nvidia.com/gpu=1"
    assert ways("cdi", a, b) == ["--device", a, "--device", b]
    assert ways("cdi") == ["--device", "nvidia.com/gpu=all"]
    assert ways("gpus", "GPU-a", "GPU-b") == ["--gpus", '"device=GPU-a,GPU-b"']
    assert ways("gpus") == ["--gpus", "all"]
    assert ways("runtime", "GPU-a") == ["--runtime", "nvidia", "--env", "NVIDIA_VISIBLE_DEVICES=GPU-a"]
    assert ways("runtime") == ["--runtime", "nvidia", "--env", "NVIDIA_VISIBLE_DEVICES=all"]


GOOD = {"name": "NVIDIA H100", "right": True, "error": None}


def answer(
    *gpus: dict[str, Any], torch: str | None = "2.9.0+cu128", cuda: str | None = "12.8", error: str | None = None
) -> Any:
    return {"torch": torch, "cuda": cuda, "error": error, "gpus": list(gpus)}


@pytest.mark.parametrize(
    ("said", "level", "found"),
    [
        (answer(GOOD, GOOD), "ok", "2 GPUs seen, products right (torch 2.9.0+cu128, CUDA 12.8)"),
        (answer(GOOD, {**GOOD, "right": False}), "error", "GPU 1 multiplied wrongly (torch 2.9.0+cu128)"),
        (answer(GOOD), "error", "sees 1 of 2 GPUs (torch 2.9.0+cu128)"),
        (
            answer(torch="2.13.0+cpu", cuda=None),
            "warning",
            "sees no GPU: torch 2.13.0+cpu is built without CUDA",
        ),
        (
            answer(error="RuntimeError: Error 803: system has unsupported display driver / cuda driver combination"),
            "error",
            "sees no GPU (torch 2.9.0+cu128, CUDA 12.8): RuntimeError: Error 803: system has unsupported",
        ),
        (answer(torch=None, error="ModuleNotFoundError: No module named 'torch'"), "warning", "no torch in it"),
        (
            answer(GOOD, {**GOOD, "right": None, "error": "AcceleratorError: no kernel image is available"}),
            "error",
            "torch 2.9.0+cu128: GPU 1: AcceleratorError: no kernel image is available",
        ),
    ],
)
def test_what_an_answer_means(part: ModuleType, said: dict[str, Any], level: str, found: str) -> None:
    one = part.trial_finding(trial(), 0, "", said, 180)
    assert (one["check"], one["level"]) == ("engine_image", level)
    assert one["found"].startswith(f"{IMAGE}: {found}")
    assert bool(one["remedy"]) == (level != "ok")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Error 803: system has unsupported display driver", "another driver"),
        ("Error 802: system not yet initialized", "Fabric Manager"),
        ("CUDA error: no kernel image is available for execution on the device", "no code for this GPU"),
        ("CUDA out of memory", "other_programs"),
    ],
)
def test_known_errors_have_their_own_remedy(part: ModuleType, text: str, words: str) -> None:
    assert words in part.trial_finding(trial(), 0, "", answer(error=text), 180)["remedy"]


@pytest.mark.parametrize(
    ("code", "text", "level", "words"),
    [
        (None, "", "error", "no answer within 180 s"),
        (142, "", "error", "no answer within 180 s"),
        (125, "Unable to find image 'vllm:1' locally\ndocker: No such image: vllm:1.", "ok", "not on this host"),
        (125, 'docker: could not select device driver "" with capabilities: [[gpu]].', "error", "no GPU by cdi"),
        (125, "docker: CDI device injection failed: unresolvable CDI devices GPU-a.", "error", "no GPU by cdi"),
        (127, 'docker: exec: "python3": executable file not found in $PATH', "warning", "no python3"),
        (137, "Killed", "error", "ended with 137: Killed"),
        (1, "", "error", "ended with 1: it said nothing"),
    ],
)  # fmt: skip
def test_a_container_without_an_answer(part: ModuleType, code: int | None, text: str, level: str, words: str) -> None:
    one = part.trial_finding(trial(), code, text, part.answer_of(text), 180)
    assert one["level"] == level
    assert words in one["found"]
    assert bool(one["remedy"]) == (level != "ok")


# A torch that is none: tensors are lists, and a device that is told to be wrong gets one entry wrong.
TORCH = """
__version__ = "9.9+fake"
float32, float16, int64 = "f32", "f16", "i64"
class Tensor:
    def __init__(self, rows): self.rows, self.where = rows, "cpu"
    def reshape(self, side, _): return Tensor([self.rows[i*side:(i+1)*side] for i in range(side)])
    def _each(self, f): return Tensor([[f(x) for x in r] if isinstance(r, list) else f(r) for r in self.rows])
    def __mul__(self, n): return self._each(lambda x: x * n)
    def __mod__(self, n): return self._each(lambda x: x % n)
    def __sub__(self, n): return self._each(lambda x: x - n)
    @property
    def T(self): return Tensor([list(c) for c in zip(*self.rows)])
    def to(self, device, kind=None):
        new = Tensor(self.rows); new.where = device if kind else "cpu"; return new
    def cpu(self): return Tensor(self.rows)
    def __matmul__(self, other):
        columns = list(zip(*other.rows))[:4]
        made = [[sum(a * b for a, b in zip(r, c)) for c in columns] for r in self.rows[:4]]
        if self.where == "cuda:1" and WRONG: made[0][0] += 1
        return Tensor(made)
    def __eq__(self, other): return Tensor([[a == b for a, b in zip(x, y)] for x, y in zip(self.rows, other.rows)])
    def all(self): return all(all(r) for r in self.rows)
def arange(n): return Tensor(list(range(n)))
class version: cuda = CUDA
class cuda:
    @staticmethod
    def init():
        if BROKEN: raise RuntimeError(BROKEN)
    @staticmethod
    def device_count(): return 0 if CUDA is None else 2
    @staticmethod
    def get_device_name(n): return "card %d" % n
"""


def run(part: ModuleType, tmp_path: Path, torch: str | None, limit: str = "60") -> tuple[int, Any]:
    if torch is not None:
        (tmp_path / "torch.py").write_text(torch + TORCH)
    command = [sys.executable, "-c", "import sys; sys.path.insert(0, '.')\n" + part.SCRIPT, limit]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, part.answer_of(done.stdout)


def test_the_program_finds_the_card_that_multiplies_wrongly(part: ModuleType, tmp_path: Path) -> None:
    _, right = run(part, tmp_path, "WRONG, BROKEN, CUDA = False, None, '12.8'\n")
    assert right["gpus"] == [{"name": f"card {n}", "right": True, "error": None} for n in (0, 1)]
    _, wrong = run(part, tmp_path, "WRONG, BROKEN, CUDA = True, None, '12.8'\n")
    assert [one["right"] for one in wrong["gpus"]] == [True, False]


def test_the_program_says_what_cuda_says(part: ModuleType, tmp_path: Path) -> None:
    _, broken = run(part, tmp_path, "WRONG, BROKEN, CUDA = False, 'Error 803: no', '12.8'\n")
    assert (broken["error"], broken["gpus"]) == ("RuntimeError: Error 803: no", [])
    _, cpu = run(part, tmp_path, "WRONG, BROKEN, CUDA = False, 'never asked', None\n")
    assert (cpu["torch"], cpu["cuda"], cpu["error"]) == ("9.9+fake", None, None)


def test_the_program_without_a_torch(part: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    _, none = run(part, tmp_path, None)
    assert (none["torch"], "no torch here" in none["error"]) == (None, True)


def test_the_program_ends_itself(part: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import time; time.sleep(60)\n")
    code, nothing = run(part, tmp_path, None, "1")
    assert (code, nothing) == (part.OVER, None)


def test_what_a_driver_prints_beside_the_answer_does_not_hide_it(part: ModuleType) -> None:
    text = f"warning: something\n{part.MARK}{json.dumps(answer(GOOD))}\nbye\n"
    assert part.answer_of(text)["gpus"] == [GOOD]
    assert part.answer_of(part.MARK + "{cut") is None


def test_a_hanging_container_is_removed(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("gpu_check/gpu_trial")
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/said\n[ "$1" = rm ] || exec sleep 60\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(module, "GRACE", 0.3)
    other = {"access": "cdi", "devices": ["nvidia.com/gpu=GPU-a"]}
    one = module.judged({**trial("gpus", "GPU-a", gpus=1), "others": [other]}, 0.1, 0)
    # One that hangs is not tried by another way.
    assert (tmp_path / "said").read_text().count("run ") == 1
    run_line, rm_line = (
        (tmp_path / "said").read_text().splitlines()[0],
        (tmp_path / "said").read_text().splitlines()[-1],
    )
    assert (one["level"], "no answer within 0.1 s" in one["found"]) == ("error", True)
    assert rm_line == f"rm --force {run_line.split('--name ')[1].split()[0]}"


@pytest.mark.parametrize(
    ("by_cdi", "by_gpus", "remedy"),
    [
        ("GOOD", "exit 1", "gpu_access: cdi"),
        ("exit 1", "GOOD", "gpu_access: gpus"),
        ("exit 1", "exit 1", "bootstrap"),
        ("exit 1", "WRONG", "bootstrap"),
    ],
)
def test_another_way_that_works_is_named(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_cdi: str, by_gpus: str, remedy: str
) -> None:
    """As Error 803 by CDI and by the runtime, and none by --gpus (gpustack#4678); and the other way round."""
    module = load("gpu_check/gpu_trial")
    card = {"name": "NVIDIA H100", "right": True, "error": None}
    said = {"torch": "2.9", "cuda": "13.0", "error": None, "gpus": [card]}
    texts = {"GOOD": said, "WRONG": {**said, "gpus": [{**card, "right": False}]}}
    blind = "onprem-llm-trial:" + json.dumps({**said, "gpus": [], "error": "CUDA says that there is none"})

    def does(what: str) -> str:
        return f"echo '{blind}'" if what == "exit 1" else f"echo 'onprem-llm-trial:{json.dumps(texts[what])}'"

    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\ncase "$*" in *--gpus*) {does(by_gpus)} ;; *) {does(by_cdi)} ;; esac\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    ways = [{"access": "cdi", "devices": ["nvidia.com/gpu=GPU-a"]}, {"access": "gpus", "devices": ["GPU-a"]}]
    first, second = reversed(ways) if by_cdi == "GOOD" else ways
    one = module.judged({**trial(gpus=1), **first, "others": [second]}, 5, 0)
    assert (one["level"], remedy in one["remedy"]) == ("error", True), one
