"""A second deploy of the same file against `ansible all -m ping` on the same hosts: how long does "nothing to do" take?

Makes a lab of its own (ONPREM_LLM_BENCH_HOSTS hosts, 2 by default), bootstraps it, deploys the tests' stub engine on it
(what is measured never talks to the engine), and measures both commands in turn, five times each, with the same forks,
pipelining and warm connections. Ends with one line of JSON; exits 1 where the bar is missed or something changed.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("ONPREM_LLM_CACHE") or Path.home() / ".cache" / "onprem-llm")
STUB = CACHE / "test" / "images" / "stub-engine-1.tar"
LAB = "bench"
HOSTS = int(os.environ.get("ONPREM_LLM_BENCH_HOSTS", "2"))
ROUNDS = 5
BAR = 3.0  # times the ping, at most
FORKS = 16

SETTINGS = "onprem_llm_site: {images_dir: images, open_webui: {enabled: false}}\n"
MODEL = """\
api_version: 1
name: bench
model: model
task: completion
engine: {image: "onprem-llm/stub-engine:1", engine_args: {max_model_len: 512}}
resources: {gpus: 0}
port: 8000
timeouts: {start: 120, readiness: 60}
"""
# What the command line sets for its own runs, so that both sides have it.
TUNED = {
    "ANSIBLE_PIPELINING": "True",
    "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s",
    "ANSIBLE_HOST_KEY_CHECKING": "True",
}


def run(*command: str, folder: Path) -> str:
    """Run a command in the site's folder and return its output; end with all of it where it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **TUNED},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def timed(*command: str, folder: Path) -> tuple[float, str]:
    """Return the seconds of a command, and its output."""
    begun = time.perf_counter()
    text = run(*command, folder=folder)
    return time.perf_counter() - begun, text


def lay_out(folder: Path) -> None:
    """Write a site as a person has one, with a model folder that is valid and small."""
    for name in ("group_vars", "images", "model"):
        (folder / name).mkdir()
    (folder / "group_vars" / "all.yml").write_text(SETTINGS)
    (folder / "model.yaml").write_text(MODEL)
    (folder / "images" / STUB.name).symlink_to(STUB)
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / "model" / name).write_text("{}")


def prepare(folder: Path) -> None:
    """Make the lab and deploy on it."""
    if not STUB.is_file():
        run("sh", str(ROOT / "tests/e2e/stub_engine/build.sh"), folder=folder)
    lay_out(folder)
    run("onprem-llm", "lab", "up", "--name", LAB, "--hosts", str(HOSTS), "--ready", folder=folder)
    run("onprem-llm", "bootstrap", "--yes", folder=folder)
    run("onprem-llm", "deploy", "model.yaml", "--yes", folder=folder)


def measure(folder: Path) -> tuple[list[float], list[float]]:
    """Return the seconds of each ping and of each deploy, taken in turn after one of each to warm up."""
    ping = ("ansible", "all", "-i", "inventory.ini", "-m", "ansible.builtin.ping", "--forks", str(FORKS))
    deploy = ("onprem-llm", "deploy", "model.yaml", "--yes", "--forks", str(FORKS), "--json")
    pings, deploys = [], []
    for number in range(ROUNDS + 1):
        ping_seconds, _ = timed(*ping, folder=folder)
        deploy_seconds, text = timed(*deploy, folder=folder)
        if json.loads(text)["steps"]:
            sys.exit(f"the second deploy had something to do:\n{text}")
        if number:
            pings.append(ping_seconds)
            deploys.append(deploy_seconds)
    return pings, deploys


def main() -> int:
    """Measure, say it to a person, then to a machine."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            prepare(folder)
            pings, deploys = measure(folder)
        finally:
            run("onprem-llm", "lab", "down", "--name", LAB, folder=folder)
    ping, deploy = statistics.median(pings), statistics.median(deploys)
    print(f"{HOSTS} hosts, {FORKS} forks, pipelining, warm connections; median of {ROUNDS}, in turn")
    print(f"  ansible all -m ping        {ping:6.2f} s   {' '.join(f'{one:.2f}' for one in pings)}")
    print(f"  onprem-llm deploy, no-op   {deploy:6.2f} s   {' '.join(f'{one:.2f}' for one in deploys)}")
    print(f"  {deploy / ping:.2f} times the ping; at most {BAR:.0f} is the bar")
    result = {"name": "noop-deploy", "hosts": HOSTS, "ratio": round(deploy / ping, 2), "bar": BAR}
    print(
        json.dumps({**result, "deploy_s": round(deploy, 3), "ping_s": round(ping, 3), "against": "ansible all -m ping"})
    )
    return int(deploy / ping > BAR)


if __name__ == "__main__":
    sys.exit(main())
