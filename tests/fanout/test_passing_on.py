"""A fan_out step as deploy carries it out: the real playbook, roles and program, on hosts that are folders of this one.

What is not real is systemd: its two commands are small scripts that start and end the program.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fanout.kit import content, entry

from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError
from onprem_llm.output import PlainProgress
from onprem_llm.passing_on import PassingOn, came_again
from onprem_llm.planning.types import Step
from onprem_llm.run_events import RunResult

SYSTEMD_RUN = """#!/bin/sh
unit= env=
while [ $# -gt 0 ]; do
  case $1 in
    --unit) unit=$2; shift 2 ;;
    --setenv) env=$2; shift 2 ;;
    --property|--description) shift 2 ;;
    --quiet|--collect) shift ;;
    *) break ;;
  esac
done
echo "$env" "$@" >> "$UNITS/argv"
env "$env" "$@" > /dev/null 2>&1 &
echo $! > "$UNITS/$unit"
"""
SYSTEMCTL = """#!/bin/sh
for unit; do :; done
[ -f "$UNITS/$unit" ] || exit 3
case $1 in
  is-active) kill -0 "$(cat "$UNITS/$unit")" 2> /dev/null ;;
  stop) kill "$(cat "$UNITS/$unit")" 2> /dev/null; rm "$UNITS/$unit" ;;
esac
"""


class Site:
    """Hosts h1, h2 … with addresses on loopback, a model on this machine, and the weights on the first host."""

    def __init__(self, root: Path, count: int, port: int) -> None:
        self.root, self.port, self.names = root, port, [f"h{number}" for number in range(1, count + 1)]
        self.files = {"config.json": content(1, 400), "model.safetensors": content(2, 3_000_000)}
        self.id = "tiny-0123456789ab"
        self.source = root / "control" / "tiny"
        self._write(self.source)
        self._write(self.weights("h1"))
        self.addresses = {name: f"127.{90 + os.getpid() % 9}.{port % 250}.{n}" for n, name in enumerate(self.names, 1)}
        lines = []
        for name in self.names:
            bins = self._systemd(name)
            python = bins / "python"
            # Every host has commands of its own.
            python.write_text(f'#!/bin/sh\nPATH={bins}:$PATH UNITS={root / name} exec {sys.executable} "$@"\n')
            python.chmod(0o755)
            lines.append(
                f"{name} ansible_connection=local ansible_become=false ansible_python_interpreter={python} "
                f"fan_out_folder={root / name} fan_out_period=1"
            )
        self.inventory = root / "inventory.ini"
        self.inventory.write_text("\n".join(lines) + "\n")

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)

    def _systemd(self, name: str) -> Path:
        bins = self.root / name / "bin"
        bins.mkdir(parents=True)
        for command, text in (("systemd-run", SYSTEMD_RUN), ("systemctl", SYSTEMCTL)):
            (bins / command).write_text(text)
            (bins / command).chmod(0o755)
        return bins

    def weights(self, name: str) -> Path:
        return self.root / name / "weights" / self.id

    def step(self) -> Step:
        members = [[name, self.addresses[name]] for name in self.names]
        files = [
            {key: entry(path, data)[key] for key in ("path", "size", "sha256")} for path, data in self.files.items()
        ]
        orders: dict[str, Any] = {
            name: {
                "weights": [
                    {
                        "id": self.id, "path": str(self.weights(name)), "source": str(self.source), "files": files,
                        "send": [] if name == "h1" else list(self.files),
                    }
                ],
                "chain": {"members": members, "port": self.port},
            }
            for name in self.names
        }  # fmt: skip
        return Step("fan_out", "Pass the weights on", orders)

    def image_step(self) -> Step:
        """The same files as if they were an image's blobs: each host has a folder for them, and there are no stamps."""
        orders: dict[str, Any] = {
            name: {
                "blobs": {"path": str(self.weights(name)), "files": weights["files"]},
                "chain": order["chain"],
            }
            for name, order in self.step().orders.items()
            for weights in order["weights"]  # type: ignore[attr-defined]
        }  # fmt: skip
        return Step("fan_out", "Pass the image on", orders)

    def pass_on(self, step: Step | None = None, **more: Any) -> None:
        folder = self.root / "run"
        folder.mkdir(exist_ok=True)
        PassingOn(step or self.step(), folder, 1, Connection(self.inventory), PlainProgress(), **more).run()

    def right(self, name: str) -> bool:
        stamp = self.weights(name).with_name(f"{self.id}.json")
        there = all((self.weights(name) / path).read_bytes() == data for path, data in self.files.items())
        return there and set(json.loads(stamp.read_text())["files"]) == set(self.files)

    def blobs(self, name: str) -> dict[str, bytes]:
        folder = self.weights(name)
        return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}

    def left(self) -> list[Path]:
        return [path for name in self.names for path in (self.root / name).glob("onprem-llm-fan-out-*")]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, 3, 7480 + os.getpid() % 400)
    yield made
    for unit in tmp_path.glob("h*/onprem-llm-fan-out-*.service"):
        os.kill(int(unit.read_text()), 9)


def test_every_host_gets_the_weights_and_their_stamp_and_nothing_is_left(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "0123456789abcdef" * 4
    site.pass_on(secret=secret)
    assert site.right("h2")
    assert site.right("h3")
    assert not site.left(), "units or folders of the run are still there"
    assert "from this machine" not in "".join(capsys.readouterr())
    argv = (site.root / "h2" / "argv").read_text()
    assert argv.count("-m fan_out") == 2, "measured, then passed on"
    told = [path for path in site.root.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert not told, "the run's secret is in an order, a command line or what was left"


def test_a_host_that_is_not_reached_gets_them_from_here_and_is_named(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onprem_llm.passing_on.GIVE_UP", 12)  # a busy machine starts them one after another
    site.addresses["h3"] = "127.255.255.255"  # no address of a host
    site.pass_on()
    assert site.right("h2")
    assert site.right("h3")
    said = "".join(capsys.readouterr())
    assert "h3: the weights come from this machine instead" in said
    assert "h2: the weights" not in said
    assert not site.left()


def test_where_nothing_can_be_sent_either_the_host_and_the_reason_are_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onprem_llm.passing_on.GIVE_UP", 12)  # a busy machine starts them one after another
    site.addresses["h3"] = "127.255.255.255"
    shutil.rmtree(site.source)
    with pytest.raises(OnpremError, match="1 of 3 hosts failed while bringing weights: h3") as raised:
        site.pass_on()
    assert str(site.source) in str(raised.value.details)
    assert "ok: h1, h2" in str(raised.value.details), "who has them all the same"


def test_ctrl_c_ends_it_on_every_host(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from onprem_llm import passing_on

    real, plays = passing_on.run, []

    def interrupted(playbook: str, *rest: Any, **more: Any) -> Any:
        plays.append(playbook)
        result = real(playbook, *rest, **more)
        if len(plays) == 1:
            # As if it came in the middle: a part is at work on a host.
            (site.root / "h2" / f"onprem-llm-fan-out-{running.run_name}").mkdir()
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(passing_on, "run", interrupted)
    folder = site.root / "run"
    folder.mkdir()
    running = PassingOn(site.step(), folder, 1, Connection(site.inventory), PlainProgress())
    with pytest.raises(KeyboardInterrupt):
        running.run()
    assert not site.left()
    assert not (site.weights("h2") / "model.safetensors").exists()


def test_an_images_blobs_are_passed_on_without_a_stamp(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.pass_on(site.image_step())
    assert site.blobs("h2") == site.files
    assert site.blobs("h3") == site.files
    assert not list(site.root.glob("h*/weights/*.json")), "a stamp is for weights"
    assert "from this machine" not in "".join(capsys.readouterr())
    assert not site.left()


def test_a_host_without_an_images_blobs_is_named_and_left_to_the_next_step(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onprem_llm.passing_on.GIVE_UP", 12)  # a busy machine starts them one after another
    site.addresses["h3"] = "127.255.255.255"  # no address of a host
    site.pass_on(site.image_step())
    assert site.blobs("h2") == site.files
    assert site.blobs("h3").keys() <= {f"{name}.partial" for name in site.files}, "half a file has its name"
    said = "".join(capsys.readouterr())
    assert "h3: what it lacks of the image comes from this machine instead: " in said
    assert "h2: what it lacks" not in said


def test_a_source_that_is_damaged_is_named(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onprem_llm.passing_on.GIVE_UP", 12)
    name = "model.safetensors"
    (site.weights("h1") / name).write_bytes(b"\0" * len(site.files[name]))
    site.pass_on(site.image_step())
    said = "".join(capsys.readouterr())
    assert "differs from its manifest" in said
    assert name not in site.blobs("h2")


LACKING: list[tuple[str | int, ...]] = [
    ("chain",), ("chain", "members"), ("chain", "members", 1), ("chain", "members", 2, 1), ("chain", "port"), ("it",),
    ("it", "path"), ("it", "files"), ("it", "files", 0, "path"),
    ("it", "files", 0, "size"), ("it", "files", 0, "sha256"),
]  # fmt: skip
OF_WEIGHTS: list[tuple[str | int, ...]] = [("it", "source"), ("it", "send")]


@pytest.mark.parametrize(
    ("images", "place"), [*((True, one) for one in LACKING), *((False, one) for one in LACKING + OF_WEIGHTS)]
)
def test_an_edited_step_that_lacks_something_is_refused_before_any_host_is_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch, images: bool, place: tuple[str | int, ...]
) -> None:
    monkeypatch.setattr("onprem_llm.passing_on.run", lambda *_, **__: pytest.fail("a host was asked"))
    step = site.image_step() if images else site.step()
    orders = json.loads(json.dumps(step.orders))
    it: list[str | int] = ["blobs"] if images else ["weights"] if place == ("it",) else ["weights", 0]
    keys = [key for part in place for key in (it if part == "it" else [part])]
    at: Any = orders["h2"]
    for key in keys[:-1]:
        at = at[key]
    del at[keys[-1]]
    with pytest.raises(OnpremError, match="this plan's fan_out step is not whole"):
        site.pass_on(Step("fan_out", "Pass on", orders))


def test_a_host_to_which_far_more_came_than_it_lacked_is_named() -> None:
    def said(received: int) -> dict[str, dict[str, object]]:
        why = {"again": 2, "lies": 1, "lost": 3}
        return {"fan_out": {"state": "done", "total": 1_000_000, "received": received, **why}}

    result = RunResult(("a", "b"), {"a": said(1_010_000), "b": said(2_300_000)}, {}, ())
    (line,) = came_again(result)
    assert line.startswith("b: 2.3 MB came for 1.0 MB: lines lost in between: 3; pieces that came damaged: 2; ")
    assert line.endswith("wrong: 1")
