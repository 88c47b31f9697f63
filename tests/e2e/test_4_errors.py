"""Bad input gets a clear error and changes nothing: the message, the exit code, and the hosts as they were."""

import os
import signal
import subprocess
import time

import pytest
from conftest import Site, containers, stub

VALIDATION, UNREACHABLE, FAILED, REFUSED, INTERRUPTED = 3, 4, 5, 6, 130


@pytest.fixture
def untouched(site: Site):
    """Compare all containers before and after."""
    before = {host: containers(site.lab, host) for host in site.lab.hosts}
    yield site
    assert {host: containers(site.lab, host) for host in site.lab.hosts} == before


def error(site: Site, *arguments: str, code: int, timeout: int = 300) -> str:
    return site.run(*arguments, code=code, timeout=timeout).stderr


def test_an_unknown_key_and_a_wrong_type(untouched: Site) -> None:
    name, _ = stub(untouched, "bad", host=untouched.lab.hosts[0], port=8110, extra="replica: 2\n")
    assert "replica" in error(untouched, "deploy", name, code=VALIDATION)
    stub(untouched, "bad", host=untouched.lab.hosts[0], port=8110, extra="served_name: [a]\n")
    assert "served_name" in error(untouched, "deploy", name, code=VALIDATION)


def test_no_such_files(untouched: Site) -> None:
    assert "nowhere.yaml" in error(untouched, "deploy", "nowhere.yaml", code=VALIDATION)
    name, _ = stub(untouched, "bad", host=untouched.lab.hosts[0], port=8110)
    assert "nowhere.ini" in error(untouched, "deploy", name, "-i", "nowhere.ini", code=VALIDATION)


def test_a_flag_that_the_plan_owns(untouched: Site) -> None:
    text = (untouched.folder / "bad.yaml").read_text().replace("max_model_len: 512", "port: 9000")
    untouched.write("bad.yaml", text)
    assert "port" in error(untouched, "deploy", "bad.yaml", code=VALIDATION)


def test_no_host_of_the_named_model(untouched: Site) -> None:
    text = (untouched.folder / "bad.yaml").read_text().replace("port: 9000", "max_model_len: 512")
    untouched.write("bad.yaml", text.replace("gpus: 0", "gpus: 1, gpu_models: [B200]"))
    shown = error(untouched, "deploy", "bad.yaml", code=VALIDATION)
    assert "B200" in shown
    assert "H100" in shown


def test_more_gpus_than_any_host_has(untouched: Site) -> None:
    name, _ = stub(untouched, "bad", host="rehearsal", port=8110, gpus=3)
    assert "3 GPUs" in error(untouched, "deploy", name, code=VALIDATION)


def test_a_port_in_use_is_said_with_its_owner(untouched: Site) -> None:
    host = untouched.lab.hosts[0]
    name, _ = stub(untouched, "bad", host=host, port=22)
    assert "sshd" in error(untouched, "deploy", name, code=VALIDATION)


def test_an_image_that_is_nowhere(untouched: Site) -> None:
    name, _ = stub(untouched, "bad", host=untouched.lab.hosts[0], port=8110, version=99)
    assert "stub-engine:99" in error(untouched, "deploy", name, code=VALIDATION)


def test_weights_that_are_cut_off(untouched: Site) -> None:
    name, _ = stub(untouched, "bad", host=untouched.lab.hosts[0], port=8110)
    weights = untouched.folder / "model" / "model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:-100])
        assert "model.safetensors" in error(untouched, "deploy", name, code=VALIDATION)
    finally:
        weights.write_bytes(whole)


def test_a_host_that_is_down_is_named_and_the_other_too(untouched: Site) -> None:
    name, _ = stub(untouched, "bad", host=untouched.lab.hosts[0], port=8110)
    gone = untouched.write("gone.ini", (untouched.folder / "inventory.ini").read_text())
    text = gone.read_text().replace("[rehearsal]\n", "[rehearsal]\nghost ansible_host=127.0.0.99 ansible_port=1\n", 1)
    gone.write_text(text)
    shown = error(untouched, "deploy", name, "-i", "gone.ini", code=UNREACHABLE)
    assert "ghost" in shown
    assert f"ok: {untouched.lab.hosts[0]}" in shown


def test_an_engine_that_dies_is_shown_and_left_stopped(site: Site) -> None:
    name, project = stub(
        site, "dying", host=site.lab.hosts[1], port=8111, extra='env: {STUB_EXIT_AFTER: "2", STUB_START_DELAY: "60"}\n'
    )
    began = time.monotonic()
    shown = error(site, "deploy", name, "--yes", code=FAILED)
    assert time.monotonic() - began < 90
    assert "CUDA out of memory, as asked" in shown
    state = site.lab.exec_root(
        site.lab.hosts[1], "docker", "inspect", "--format", "{{.State.Status}}", f"{project}-vllm-1"
    )
    assert state.strip() == "exited"
    site.run("down", "dying", "--yes")


def test_two_deploys_at_once(site: Site) -> None:
    slow, _ = stub(site, "slow", host=site.lab.hosts[1], port=8112, extra='env: {STUB_START_DELAY: "12"}\n')
    other, _ = stub(site, "other", host=site.lab.hosts[1], port=8113)
    first = subprocess.Popen(["onprem-llm", "deploy", slow, "--yes"], cwd=site.folder, stdout=subprocess.PIPE)
    try:
        wait_for_lock(site)
        shown = error(site, "deploy", other, "--yes", code=REFUSED)
        assert "deploy slow" in shown
        assert first.wait(timeout=120) == 0
    finally:
        first.kill()
    assert site.json("status")["lock"] is None
    site.run("down", "slow", "--yes")


def wait_for_lock(site: Site) -> None:
    end = time.monotonic() + 60
    while site.json("status")["lock"] is None:
        assert time.monotonic() < end
        time.sleep(0.5)


def test_an_interrupted_deploy_is_picked_up(site: Site) -> None:
    name, _ = stub(site, "halted", host=site.lab.hosts[1], port=8114, extra='env: {STUB_START_DELAY: "8"}\n')
    running = subprocess.Popen(
        ["onprem-llm", "deploy", name, "--yes"], cwd=site.folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    wait_for_lock(site)
    time.sleep(4)
    running.send_signal(signal.SIGINT)
    _, shown = running.communicate(timeout=60)
    assert running.returncode == INTERRUPTED, shown.decode()
    assert site.json("status")["lock"] is None
    site.run("deploy", name, "--yes")
    assert site.json("plan", name)["noop"] is True
    site.run("down", "halted", "--yes")


def test_a_missing_secret_is_named(untouched: Site) -> None:
    os.environ.pop("NOT_SET_ANYWHERE", None)
    extra = "env: {HF_TOKEN: {from_env: NOT_SET_ANYWHERE}}\n"
    name, _ = stub(untouched, "bad", host=untouched.lab.hosts[0], port=8110, extra=extra)
    assert "NOT_SET_ANYWHERE" in error(untouched, "deploy", name, code=VALIDATION)


def test_a_plan_is_refused_when_the_hosts_moved(site: Site) -> None:
    name, _ = stub(site, "board", host=site.lab.hosts[1], port=8115)
    site.run("plan", name, "--out", "change")
    site.lab.exec_root(site.lab.hosts[1], "docker", "tag", "onprem-llm/stub-engine:1", "moved:1")
    assert "changed since this plan" in error(site, "deploy", "--plan", "change", "--yes", code=REFUSED)
    site.lab.exec_root(site.lab.hosts[1], "docker", "rmi", "moved:1")
    site.run("deploy", "--plan", "change", "--yes")
    assert site.json("plan", name)["noop"] is True
    site.run("down", "board", "--yes", "--purge")
