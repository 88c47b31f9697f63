"""The program that writes the specification, with stand-ins for NVIDIA's; and the units that start it."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

FILES = Path(__file__).resolve().parents[3] / "roles/nvidia_container_toolkit/files"
PROGRAM, BOOT, AGAIN = (f"onprem-llm-nvidia-cdi{end}" for end in ("", ".service", "-again.service"))
ONE = "echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'"
# What the real one says, with its exit codes.
NO_MODULE = 'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver."; exit 9'
MISMATCH = "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18"
MIG_ON = f"case $1 in -L) {ONE};; *) echo Enabled;; esac"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the program below another root: what nvidia-smi does, and seconds instead of its 60 for each command."""
    for name in ("bin", "etc/cdi", "var/run/cdi", "run"):
        (tmp_path / name).mkdir(parents=True)
    text = re.sub(r"(?<=[ =>])/(etc|var|run)/", rf"{tmp_path}/\1/", (FILES / PROGRAM).read_text())
    assert text.count(str(tmp_path)) > 5
    (tmp_path / "program").write_text(text)

    def program(smi: str | None, seconds: float = 10) -> subprocess.CompletedProcess[str]:
        limit = f'shift 2; exec /usr/bin/timeout --kill-after=1 {seconds} "$@"'
        ctk = 'for one; do case $one in --output=*) echo made > "${one#--output=}";; esac; done'
        for name, body in (("nvidia-smi", smi), ("nvidia-ctk", ctk), ("timeout", limit)):
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body or ''}\n")
            (tmp_path / "bin" / name).chmod(0o755 if body else 0o644)
        environment = {**os.environ, "PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
        argv = ["/bin/sh", tmp_path / "program"]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=30)

    return program


def test_it_writes_the_specification_and_keeps_one_by_hand_current(run, tmp_path):
    assert run(ONE).returncode == 0
    assert (tmp_path / "var/run/cdi/nvidia.yaml").read_text() == "made\n"
    assert not (tmp_path / "etc/cdi/nvidia.yaml").exists()
    (tmp_path / "etc/cdi/nvidia.yaml").touch()
    assert run(ONE).returncode == 0
    assert (tmp_path / "etc/cdi/nvidia.yaml").read_text() == "made\n"


@pytest.mark.parametrize(
    ("smi", "code", "said"),
    [
        (None, 0, ""),  # no driver at all
        (NO_MODULE, 0, "couldn't communicate"),  # its module comes with a boot, or with a rule of udev's
        (
            MISMATCH,
            1,
            "version mismatch",
        ),  # in the middle of an upgrade: its end touches no file that is watched
        (MIG_ON, 0, "no partition"),
    ],
)
def test_where_nvidia_smi_does_not_answer_it_is_tried_again_or_not(run, tmp_path, smi, code, said):
    found = run(smi)
    assert (found.returncode, said in found.stdout) == (code, True), found
    assert not (tmp_path / "var/run/cdi/nvidia.yaml").exists()


def test_a_gpu_that_hangs_does_not_keep_docker_from_starting(run):
    began = time.monotonic()
    assert run("sleep 100", seconds=1).returncode == 1
    assert time.monotonic() - began < 10


def test_every_command_of_nvidias_has_a_limit():
    text = (FILES / PROGRAM).read_text()
    calls = re.findall(r"^(?!#)(.*)\b(nvidia-smi|nvidia-ctk) -", text, re.MULTILINE)
    assert len(calls) == 5
    assert all(before.rstrip().endswith("limited") for before, _ in calls)


def options(name: str) -> dict[str, str]:
    lines = (FILES / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"^[A-Z]\w+=", line))


def test_the_unit_of_a_boot_ends_before_docker_whatever_the_driver_does():
    unit = options(BOOT)
    assert (unit["Type"], unit["Before"]) == ("oneshot", "docker.service")
    # A oneshot has no limit of its own, and what waits in the kernel outlives timeout.
    assert int(unit["TimeoutStartSec"]) <= 180
    assert int(unit["TimeoutStopSec"]) <= 10


def test_it_is_tried_again_until_it_goes_well():
    again = options(AGAIN)
    assert (again["Restart"], again["ExecStart"]) == ("on-failure", options(BOOT)["ExecStart"])
    # A limit of starts would end the watch over the files, too.
    assert again["StartLimitIntervalSec"] == "0"
    # systemd before 244 refuses a oneshot with Restart=.
    assert again["Type"] == "simple"
    assert "Restart" not in options(BOOT)
    assert options(BOOT)["OnFailure"] == AGAIN
    assert options("onprem-llm-nvidia-cdi.path")["Unit"] == AGAIN
    assert f"restart {AGAIN}" in (FILES / "71-onprem-llm-nvidia-dev-char.rules").read_text()
