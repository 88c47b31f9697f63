"""A second deploy of the same file against `ansible all -m ping` on the same hosts: how long does "nothing to do" take?

Makes a lab of its own (ONPREM_LLM_BENCH_HOSTS hosts, 2 by default), bootstraps it, deploys the tests' stub engine on it
(what is measured never talks to the engine), and measures both commands in turn, five times each, with the same forks,
pipelining and warm connections. Ends with one line of JSON; exits 1 where the bar is missed or something changed.
"""

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from beside_a_ping import FORKS, ROUNDS, in_turn, run

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("ONPREM_LLM_CACHE") or Path.home() / ".cache" / "onprem-llm")
STUB = CACHE / "test" / "images" / "stub-engine-1.tar"
LAB = "bench"
HOSTS = int(os.environ.get("ONPREM_LLM_BENCH_HOSTS", "2"))
BAR = 3.0  # times the ping, at most

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


def look(text: str) -> None:
    """End where a deploy had something to do."""
    if json.loads(text)["steps"]:
        sys.exit(f"the second deploy had something to do:\n{text}")


def main() -> int:
    """Measure, say it to a person, then to a machine."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            prepare(folder)
            deploy_again = ("onprem-llm", "deploy", "model.yaml", "--yes", "--json")
            pings, deploys = in_turn(deploy_again, "inventory.ini", folder, look)
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
