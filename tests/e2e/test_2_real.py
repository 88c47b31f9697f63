"""The main job with the real engine and the real page: deploy, answer, a second deploy, kill, reboot, secrets."""

import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Site, containers

MODEL = """\
api_version: 1
name: tiny
model: model
engine:
  image: onprem-llm/vllm-cpu:0.32.0
  engine_args: {max_model_len: 2048, dtype: float32, enforce_eager: true, max_num_seqs: 4}
resources: {gpus: 0}
env: {VLLM_CPU_KVCACHE_SPACE: "1", PLANTED_TOKEN: {from_env: PLANTED}}
"""
# Made anew in each run: nothing but the run can have written it anywhere.
PLANTED = f"planted-{secrets.token_hex(12)}"
QUESTION = "What is the highest mountain?"
# Asks without a key, on a host; the certificate is not what is tested.
ASK = """
import ssl, sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1], timeout=20, context=ssl._create_unverified_context())
except urllib.error.HTTPError as error:
    print(error.code)
"""
# Asks twice on one connection, with a pause in between.
ASK_AGAIN = """
import http.client, ssl, sys, time
engine = http.client.HTTPSConnection(sys.argv[1], timeout=20, context=ssl._create_unverified_context())
engine.request("GET", "/health")
engine.getresponse().read()
engine.auto_open = False
time.sleep(float(sys.argv[2]))
engine.request("GET", "/health")
print(engine.getresponse().status)
"""


@pytest.fixture(scope="module")
def deployed(site: Site) -> Site:
    """Deploy the tiny model once; the tests of this file use it, and the last one takes it down."""
    os.environ["PLANTED"] = PLANTED
    site.write("model.yaml", MODEL)
    site.run("deploy", "model.yaml", "--yes", timeout=900)
    return site


def all_containers(site: Site) -> dict[str, dict[str, str]]:
    return {host: containers(site.lab, host) for host in site.lab.hosts}


def test_the_model_answers(deployed: Site) -> None:
    assert "Everest" in deployed.run("chat", QUESTION).stdout
    assert "珠穆朗玛峰" in deployed.json("chat", "世界上最高的山峰是哪座山？")["answer"]


def test_a_second_deploy_changes_nothing(deployed: Site) -> None:
    before = all_containers(deployed)
    done = deployed.run("deploy", "model.yaml")
    assert "Nothing to do" in done.stdout
    assert all_containers(deployed) == before


def test_status_and_logs(deployed: Site) -> None:
    rows = {row["project"]: row for row in deployed.json("status")["replicas"]}
    assert rows["tiny-0"]["state"] == "running"
    assert rows["tiny-0"]["health"] == "healthy"
    assert rows["tiny-0"]["image"] == "onprem-llm/vllm-cpu:0.32.0"
    assert rows["open-webui"]["health"] == "healthy"
    assert "Application startup complete" in deployed.run("logs", "tiny", "--tail", "500").stdout


def test_gpus_are_tried_in_the_real_engines_image(deployed: Site) -> None:
    """The simulated GPUs reach its container; that torch for CPUs sees none of them is the right answer."""
    host = next(row["host"] for row in deployed.json("status")["replicas"] if row["project"] == "tiny-0")
    found = deployed.json("check", "--limit", host, "--image", "onprem-llm/vllm-cpu:0.32.0")["hosts"][host]["findings"]
    [one] = [one for one in found if one["check"] == "engine_image"]
    assert (one["level"], "+cpu is built without CUDA" in one["found"]) == ("warning", True)


def test_the_engine_is_closed_to_strangers_and_wants_its_key_of_the_gateway(deployed: Site) -> None:
    row = next(row for row in deployed.json("status")["replicas"] if row["project"] == "tiny-0")
    address, _, port = row["address"].rpartition(":")
    # This machine is no gateway: it does not even get a connection.
    with pytest.raises(OSError, match="timed out"):
        socket.create_connection((address, int(port)), timeout=5)
    gateway = deployed.lab.hosts[0]
    status = deployed.lab.exec_root(gateway, "python3", "-c", ASK, f"https://{row['address']}/v1/models")
    assert status.strip() == "401"


def test_the_engine_leaves_it_to_the_gateway_to_close_a_connection_that_idles(deployed: Site) -> None:
    """uvicorn's own 5 seconds are less than the gateway keeps some: a request on one of those would be lost."""
    row = next(row for row in deployed.json("status")["replicas"] if row["project"] == "tiny-0")
    again = deployed.lab.exec_root(deployed.lab.hosts[0], "python3", "-c", ASK_AGAIN, row["address"], "12")
    assert again.strip() == "200"


def test_no_secret_is_anywhere_it_should_not_be(
    deployed: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab, gateway = deployed.lab, deployed.lab.hosts[0]
    # Ansible's own log, where a person has one, is in the site's folder and scanned with it below.
    log = deployed.folder / "ansible.log"
    monkeypatch.setenv("ANSIBLE_LOG_PATH", str(log))
    deployed.run("deploy", "model.yaml", "--yes")
    deployed.run("chat", QUESTION)
    assert log.stat().st_size > 0
    script = "cd /srv/onprem-llm/secrets && for file in $(ls | grep -v ^engine); do cat $file; done"
    keys = lab.exec_root(gateway, "sh", "-c", script).split()
    # One line of each private key stands for all of it.
    pems = (
        "/srv/onprem-llm/secrets/engine.key /var/lib/onprem-llm/ca/ca.key /srv/onprem-llm/gateway/secrets/gateway.pem"
    )
    private = lab.exec_root(gateway, "sh", "-c", f"for pem in {pems}; do sed -n '/PRIVATE KEY/{{n;p;q}}' $pem; done")
    assert len(private.split()) == 3
    known = [*keys, *private.split(), PLANTED]
    assert len(keys) >= 3
    inspected = {
        host: lab.exec_root(host, "sh", "-c", 'ids=$(docker ps -aq); [ -z "$ids" ] || docker inspect $ids')
        for host in lab.hosts
    }
    # The page is on the gateway host: without it in there, nothing was looked at.
    assert "/open-webui" in inspected[gateway]
    logs = deployed.run("logs", "tiny", "--tail", "5000").stdout + deployed.run("logs", "open-webui").stdout
    for secret in known:
        assert secret not in logs
        for host in lab.hosts:
            assert secret not in inspected[host]
            assert secret not in lab.exec_root(host, "sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")
            found = lab.exec_root(
                host,
                "sh",
                "-c",
                f"grep -rlFs -e '{secret}' /srv/onprem-llm /var/lib/onprem-llm /etc /tmp /var/log /home /root"
                " | xargs -r stat -c '%a %U %n'",
                check=False,
            )
            for line in found.splitlines():
                mode, owner, path = line.split(" ", 2)
                assert owner == "root", line
                assert mode == "600", line
                assert "/secrets/" in path or path.endswith((".db", "/ca/ca.key")), line
    # What was written since this run began: the caches hold gigabytes that are older than every secret here.
    patterns = tmp_path / "patterns"
    patterns.write_text("".join(f"{secret}\n" for secret in known))
    began = deployed.folder / "inventory.ini"
    control = tmp_path / "control"
    control.write_text(PLANTED)  # Shows that the search finds what there is.
    places = [tmp_path, deployed.folder, "/tmp", Path.home() / ".ansible", Path.home() / ".cache/onprem-llm"]
    leaks = subprocess.run(
        ["find", *map(str, places), "-type", "f", "-newer", str(began), "!", "-path", str(patterns),
         "-exec", "grep", "-lFs", "-f", str(patterns), "{}", "+"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert set(leaks.stdout.splitlines()) == {str(control)}


def test_a_chat_in_the_browser(deployed: Site, tmp_path: Path) -> None:
    ui = next(row for row in deployed.json("status")["replicas"] if row["project"] == "open-webui")
    password = tmp_path / "password"
    password.write_text(
        deployed.lab.exec_root(deployed.lab.hosts[0], "cat", "/srv/onprem-llm/secrets/open-webui-admin").strip()
    )
    shots = Path(os.environ.get("ONPREM_LLM_ARTIFACTS", "artifacts"))
    shots.mkdir(exist_ok=True)
    browser = Path(__file__).parents[1] / "browser" / "chat.py"
    done = subprocess.run(
        [sys.executable, str(browser), "--url", f"http://{ui['address']}", "--email", "admin@example.com",
         "--password-file", str(password), "--message", QUESTION, "--expect", "Everest",
         "--screenshot", str(shots / "open-webui.png")],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def wait_for_answer(site: Site, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        done = subprocess.run(
            ["onprem-llm", "chat", QUESTION], cwd=site.folder, capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode == 0 and "Everest" in done.stdout:
            return
        assert time.monotonic() < end, done.stdout + done.stderr
        time.sleep(3)


def test_a_killed_engine_comes_back_by_itself(deployed: Site) -> None:
    row = next(row for row in deployed.json("status")["replicas"] if row["project"] == "tiny-0")
    pid = deployed.lab.exec_root(row["host"], "docker", "inspect", "--format", "{{.State.Pid}}", "tiny-0-vllm-1")
    deployed.lab.exec_root(row["host"], "kill", "-9", pid.strip())
    wait_for_answer(deployed, 300)


def test_a_rebooted_host_comes_back_serving(deployed: Site) -> None:
    row = next(row for row in deployed.json("status")["replicas"] if row["project"] == "tiny-0")
    subprocess.run(["docker", "restart", row["host"]], check=True, capture_output=True, timeout=180)
    wait_for_answer(deployed, 300)
    # Open WebUI starts beside it, and may be behind.
    end = time.monotonic() + 60
    while not (plan := deployed.json("plan", "model.yaml"))["noop"]:
        assert time.monotonic() < end, plan["changes"]
        time.sleep(3)


def test_down_removes_what_deploy_made(deployed: Site) -> None:
    deployed.run("down", "tiny", "--yes")
    for host in deployed.lab.hosts:
        assert containers(deployed.lab, host) == {}
        left = deployed.lab.exec_root(host, "sh", "-c", "ls /srv/onprem-llm || true").split()
        assert "tiny-0" not in left
    assert deployed.json("status")["replicas"] == []
    # Weights stay without --purge.
    stored = [
        deployed.lab.exec_root(host, "sh", "-c", "ls /srv/onprem-llm/weights || true") for host in deployed.lab.hosts
    ]
    assert any("model-" in names for names in stored)
