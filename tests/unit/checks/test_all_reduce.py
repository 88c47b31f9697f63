"""One all-reduce over hosts: who takes part, with what, and what is made of the answers; the module's docker."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bootstrap.conftest import role_module as role_module
from tests.unit.checks.test_network_judge import Site

from onprem_llm.checks.all_reduce import BYTES, judged, parts
from onprem_llm.checks.network import network_of

IMAGE = "sha256:1"


def trial(image: str = IMAGE, *devices: str) -> dict[str, Any]:
    return {"image": image, "name": "vllm", "access": "cdi", "devices": list(devices), "gpus": len(devices)}


def answer(**change: Any) -> dict[str, Any]:
    good = {"torch": "2.9", "backend": "nccl", "nccl": "2.27.3", "right": True, "seconds": 0.1, "error": None}
    return {**good, "network": "IB", **change}


def test_hosts_with_one_image_take_part_with_one_gpu_each() -> None:
    site = Site()
    site.link("a", "b")["tried"] = [7600, 40000]
    site.link("c", "a")["tried"] = [7601, 7602, 40000]
    wanted = {"a": [trial(IMAGE, "x", "y")], "b": [trial("sha256:2", "x")], "c": [trial(IMAGE, "z")], "d": []}
    found, notes = parts(wanted, network_of(site.document()))
    assert notes == []
    assert {host: one["trial"]["devices"] for host, one in found.items()} == {"a": ["x"], "c": ["z"]}  # type: ignore[index]
    shared = {"world": 2, "address": "10.0.0.1", "port": 7601, "interface": "eth0", "bytes": BYTES}
    assert {host: one["part"] for host, one in found.items()} == {
        "a": {"rank": 0, **shared},
        "c": {"rank": 1, **shared},
    }


def test_why_nobody_takes_part() -> None:
    site = Site()
    assert parts({"a": [], "b": []}, network_of(site.document())) == ({}, [])
    found, (note,) = parts({"a": [trial()], "b": [trial("sha256:2")]}, network_of(site.document()))
    assert (found, note.level) == ({}, "ok")
    assert "no two hosts have GPUs and the same image" in note.found
    site.link("b", "a")["blocked"] = [[7600, "no answer"]]
    found, (note,) = parts({"a": [trial()], "b": [trial()]}, network_of(site.document()))
    assert found == {}
    assert "b does not reach all that it needs on a" in note.found


def test_what_lines_carried_is_told_and_compared_with_iperf3() -> None:
    network = network_of(Site().document())
    (good,) = judged({"a": answer(), "b": answer(seconds=0.09)}, network)
    # 64 MiB once there and once back between two, in 0.1 s.
    assert (good.level, good.found) == (
        "ok", "2 hosts (a, b), one GPU each: 5.37 Gbit/s (nccl over IB, NCCL 2.27.3), 100 ms for 64 MiB",
    )  # fmt: skip
    (slow,) = judged({"a": answer(network="Socket"), "b": answer(seconds=0.5)}, network)
    assert (slow.host, slow.level) == ("a", "warning")
    assert "1.07 Gbit/s (nccl over Socket" in slow.found
    assert slow.expected == "4.7 Gbit/s or more: half of the slowest line between them"
    assert "NCCL_SOCKET_IFNAME" in slow.remedy


def test_the_host_that_broke_it_is_named_and_not_the_one_that_waited() -> None:
    answers = {"a": {"error": "no answer within 180 s"}, "b": {"error": "ended with 1: CUDA error"}}
    (found,) = judged(answers, network_of(Site().document()))
    assert (found.host, found.level) == ("b", "error")
    assert found.found.endswith("b: ended with 1: CUDA error")
    (wrong,) = judged({"a": answer(), "b": answer(right=False)}, network_of(Site().document()))
    assert (wrong.host, wrong.level) == ("b", "error")
    assert "the sum is wrong on b" in wrong.found


@pytest.fixture
def docker(role_module: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, and a docker that notes its words and answers as the files `inspect` and `logs` say."""
    tool = tmp_path / "docker"
    said = f'echo "$*" | head -n 1 >> {tmp_path}/said'
    tool.write_text(f"#!/bin/sh\n{said}\ncat {tmp_path}/$1 && exit\necho no such image\nexit 125\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return role_module("gpu_all_reduce")


PART = {"rank": 1, "world": 2, "address": "10.0.0.1", "port": 7600, "interface": "eth1", "bytes": 4}
OPTIONS = {"run": "r1", "trial": trial(IMAGE, "nvidia.com/gpu=0"), "timeout": 60.0, "part": PART}


def test_a_container_is_given_one_gpu_the_hosts_network_and_its_interface(docker: Any, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("id\n")
    assert docker.act({**OPTIONS, "state": "started"}) == {"changed": True}
    said = (tmp_path / "said").read_text().split()
    for words in ("--network host", "--device nvidia.com/gpu=0", "--env NCCL_SOCKET_IFNAME=eth1", "--pull never",
                  "--name onprem-llm-all-reduce-r1"):  # fmt: skip
        assert words in " ".join(said)
    assert said[:2] == ["run", "--detach"]
    assert "--rm" not in said


def test_what_it_said_is_read_and_the_container_removed(docker: Any, tmp_path: Path) -> None:
    (tmp_path / "rm").write_text("")
    (tmp_path / "inspect").write_text("exited 0\n")
    (tmp_path / "logs").write_text(
        "h:1:1 [0] NCCL INFO Using network IB\nonprem-llm-trial:" + json.dumps({"right": True, "error": None}) + "\n"
    )
    assert docker.act({**OPTIONS, "state": "looked_at"})["ended"] is True
    told = docker.act({**OPTIONS, "state": "stopped"})["onprem_llm"]["all_reduce"]
    assert told == {"right": True, "error": None, "network": "IB"}
    assert (tmp_path / "said").read_text().splitlines()[-1] == "rm --force onprem-llm-all-reduce-r1"


@pytest.mark.parametrize(
    ("state", "logs", "error"),
    [("exited 142", "", "no answer within 60 s"), ("exited 1", "boom\n", "ended with 1: boom"),
     ("running 0", "", "ended with 137: it said nothing")],
)  # fmt: skip
def test_one_without_an_answer(docker: Any, tmp_path: Path, state: str, logs: str, error: str) -> None:
    (tmp_path / "inspect").write_text(f"{state}\n")
    (tmp_path / "logs").write_text(logs)
    (tmp_path / "rm").write_text("")
    assert docker.act({**OPTIONS, "state": "stopped"})["onprem_llm"]["all_reduce"]["error"] == error


def test_one_that_cannot_be_started_says_why(docker: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no such image"):
        docker.act({**OPTIONS, "state": "started"})
    assert "rm --force onprem-llm-all-reduce-r1" in (tmp_path / "said").read_text()
