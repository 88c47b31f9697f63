"""Each command on whose way there is a pull: a driver that cannot run the image is said before anything is changed."""

import contextlib
import copy
import hashlib
import json
from pathlib import Path
from typing import NoReturn

import pytest
import recorded_facts as made
from click.testing import CliRunner, Result
from recorded_facts import Facts

from onprem_llm import apply, host_moves, planned
from onprem_llm.book_history import History, Revision
from onprem_llm.commands import rollback
from onprem_llm.errors import InvalidError, RefusedError
from onprem_llm.look import View
from onprem_llm.main import cli
from onprem_llm.planning.types import ImageSource
from onprem_llm.spec.weights_identity import scan_folder

OLD, NEW = "v0.19.1", "v0.20.2"
CANNOT = "driver 535.183.01 cannot run vllm/vllm-openai:v0.20.2"
MODEL = """api_version: 1
name: tiny
model: ./Tiny
engine: {{image: "vllm/vllm-openai:{tag}"}}
resources: {{gpus: 1}}
"""


@pytest.fixture
def world(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Facts]:
    """Return the hosts that every look sees; what would change one of them fails."""
    hosts: dict[str, Facts] = {}
    view = lambda *words, **more: View(made.current(hosts), (), made.SALT)  # noqa: E731
    for module in (planned, host_moves, apply):
        monkeypatch.setattr(module, "look_whole", view)

    def touched(*words: object, **more: object) -> NoReturn:
        raise AssertionError("a host was changed")

    monkeypatch.setattr("onprem_llm.changing.apply", touched)
    monkeypatch.setattr(host_moves, "carry", touched)
    monkeypatch.setattr(host_moves, "locked", lambda *words, **more: contextlib.nullcontext())
    monkeypatch.setattr("onprem_llm.runner.run", touched)

    def digests(refs: list[str], *words: object) -> dict[str, ImageSource]:
        return {ref: ImageSource(ref, pull=f"{ref.partition(':')[0]}@{made.image_id(ref)}") for ref in refs}

    monkeypatch.setattr(planned, "resolve", digests)
    monkeypatch.setattr(host_moves, "resolve", digests)
    monkeypatch.chdir(folder)
    (folder / "inventory.ini").write_text("lab-1\nlab-2\n")
    return hosts


def drivers(world: dict[str, Facts], *versions: str | None, tag: str | None = None) -> None:
    """Make hosts with a GPU and these drivers, None for one without GPU; one runs a deployment of `tag`.

    All have its weights, and none but that one the image.
    """
    for number, version in enumerate(versions, 1):
        host = made.host(f"lab-{number}", number, gpus=1 if version else 0, gateway=number == 1)
        world[f"lab-{number}"] = host
    if tag:
        world.update(deployed(world, tag))
    stored = {name: one for host in world.values() for name, one in host["weights"].items()}
    for host, version in zip(world.values(), versions, strict=True):
        host["gpus"]["driver"] = version
        host["weights"] = dict(stored)


def deployed(world: dict[str, Facts], tag: str) -> dict[str, Facts]:
    weights = scan_folder(Path("Tiny"), Path("cache"))
    ref = f"vllm/vllm-openai:{tag}"
    image = ImageSource(ref, pull=f"vllm/vllm-openai@{made.image_id(ref)}")
    return made.applied(made.planned(world, made.deployment(MODEL.format(tag=tag), weights, image)), world)


def run(verb: str, *words: str) -> Result:
    return CliRunner().invoke(cli, [*verb.split(), *words])


def refused(done: Result) -> None:
    assert isinstance(done.exception, InvalidError), (done.output, done.exception)
    error = done.exception
    assert CANNOT in f"{error.message}{error.details}", error
    assert error.hint


def write(tag: str) -> None:
    Path("model.yaml").write_text(MODEL.format(tag=tag))


def lock(tag: str) -> None:
    """Write the lock of model.yaml, as one of another place has it: its hosts could run the image."""
    write(tag)
    text, found = Path("model.yaml").read_text(), scan_folder(Path("Tiny"), Path("cache"))
    refs = (f"vllm/vllm-openai:{tag}", made.UI_IMAGE, made.GATEWAY_IMAGE)
    value = {
        "schema_version": 1, "onprem_llm": "0.1.0", "platform": "linux/amd64",
        "deployments": [{"name": "tiny", "file": "model.yaml", "sha256": hashlib.sha256(text.encode()).hexdigest(),
                         "text": text, "weights": found.id}],
        "images": [{"ref": ref, "digest": made.image_id(ref), "id": made.image_id(f"{ref} id"), "size": 1}
                   for ref in refs],
        "weights": [{"source": "path", "id": "./Tiny", "revision": "", "commit": None, "name": found.id,
                     "files": [{"path": one.path, "size": one.size, "sha256": one.sha256} for one in found.files]}],
        "packages": [], "wheels": [],
    }  # fmt: skip
    Path("onprem-llm.lock").write_text(json.dumps(value))


@pytest.mark.parametrize("words", [("deploy", "model.yaml", "--yes"), ("plan", "model.yaml")])
def test_the_first_deploy(world: dict[str, Facts], words: tuple[str, ...]) -> None:
    drivers(world, "535.183.01", "535.183.01")
    write(NEW)
    refused(run(*words))
    # The same with the image that runs there comes to the hosts.
    write(OLD)
    done = run("deploy", "model.yaml", "--yes")
    assert "a host was changed" in str(done.exception), done.output


@pytest.mark.parametrize("words", [("deploy", "model.yaml", "--yes"), ("plan", "model.yaml")])
def test_an_update(world: dict[str, Facts], words: tuple[str, ...]) -> None:
    drivers(world, "535.183.01", "535.183.01", tag=OLD)
    write(NEW)
    refused(run(*words))


@pytest.mark.parametrize("words", [("deploy", "model.yaml", "--yes"), ("plan", "model.yaml")])
def test_a_deploy_from_a_lock_of_other_hosts(world: dict[str, Facts], words: tuple[str, ...]) -> None:
    drivers(world, "535.183.01", "535.183.01")
    lock(NEW)
    refused(run(*words, "--locked"))
    lock(OLD)
    done = run("deploy", "model.yaml", "--yes", "--locked")
    assert "a host was changed" in str(done.exception), (done.output, done.exception)


def test_a_plan_that_was_made_before_the_driver_was_another(world: dict[str, Facts]) -> None:
    drivers(world, "580.95.05", "580.95.05")
    write(NEW)
    assert run("plan", "model.yaml", "--out", "change").exit_code == 0
    done = run("deploy", "--plan", "change", "--yes")
    assert "a host was changed" in str(done.exception), (done.output, done.exception)
    for host in world.values():
        host["gpus"]["driver"] = "535.183.01"
    done = run("deploy", "--plan", "change", "--yes")
    assert isinstance(done.exception, RefusedError), (done.output, done.exception)
    assert "the hosts changed since this plan was made" in done.exception.message


def test_more_replicas(world: dict[str, Facts]) -> None:
    drivers(world, "580.95.05", "535.183.01", tag=NEW)
    done = run("scale", "tiny", "--replicas", "2", "--yes")
    assert isinstance(done.exception, InvalidError), (done.output, done.exception)
    assert CANNOT in f"{done.exception.message}{done.exception.details}"
    world["lab-2"]["gpus"]["driver"] = "580.95.05"
    done = run("scale", "tiny", "--replicas", "2", "--yes")
    assert "a host was changed" in str(done.exception), (done.output, done.exception)


def test_what_stands_still_and_lost_its_image(world: dict[str, Facts]) -> None:
    """A replica that serves is believed to run; one that does not would have its image pulled again."""
    drivers(world, "535.183.01", tag=NEW)
    (container,) = world["lab-1"]["projects"]["tiny-0"]["containers"]
    done = run("restart", "tiny", "--yes")
    assert "a host was changed" in str(done.exception), (done.output, done.exception)
    container.update(state="exited", health=None, exit_code=1)
    world["lab-1"]["images"] = []
    refused(run("restart", "tiny", "--yes"))


def test_an_earlier_revision(world: dict[str, Facts], monkeypatch: pytest.MonkeyPatch) -> None:
    """It ran when the driver was a newer one."""
    drivers(world, "535.183.01", "535.183.01", tag=OLD)
    then = copy.deepcopy(world)
    for host in then.values():
        host["gpus"]["driver"] = "580.95.05"
    entry = made.current(deployed(then, NEW)).book["tiny"]
    earlier = Revision(1, entry.model_yaml, entry.images, None, None, current=False)
    now = Revision(2, made.current(world).book["tiny"].model_yaml, {}, None, None, current=True)
    world["lab-1"]["book"]["deployments"]["tiny"]["revision"] = 2
    monkeypatch.setattr(rollback, "read_history", lambda *words: History("tiny", (earlier, now)))
    refused(run("rollback", "tiny", "--yes"))


LEAVING = [("host replace", "lab-2", "lab-3"), ("host remove", "lab-2")]


@pytest.mark.parametrize("words", LEAVING)
def test_replicas_that_leave_a_host(world: dict[str, Facts], words: tuple[str, ...]) -> None:
    """The host that is left has a GPU that is free, and an old driver."""
    drivers(world, None, "580.95.05", "535.183.01", tag=NEW)
    done = run(*words, "--yes")
    refused(done)
    assert "lab-3: driver 535.183.01" in str(done.exception)
    hint = str(getattr(done.exception, "hint", ""))
    assert "upgrade the driver to 580 or newer" in hint
    assert "or add a host" in hint
    world["lab-3"]["gpus"]["driver"] = "580.95.05"
    done = run(*words, "--yes")
    assert "a host was changed" in str(done.exception), (done.output, done.exception)


def test_replicas_of_a_host_that_is_lost(world: dict[str, Facts], monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves in any case; nothing is started where it cannot run, and that is said before."""
    drivers(world, None, "580.95.05", "535.183.01", tag=NEW)
    seen = {name: host for name, host in world.items() if name != "lab-2"}
    view = View(made.current(seen, ("lab-2",)), (), made.SALT)
    monkeypatch.setattr(host_moves, "look_whole", lambda *words, **more: view)
    done = CliRunner().invoke(cli, ["host", "remove", "lab-2", "--lost"], input="n\n")
    assert CANNOT in done.stdout
    assert "vllm-openai@" not in done.stdout
    assert "a host was changed" not in str(done.exception)
