"""`bundle verify` against `sha256sum`, `bundle create` against `cp -r`, a delta against the whole, in one run.

Weights of ONPREM_LLM_BENCH_GB (4 by default) in eight files are made in ONPREM_LLM_BENCH_DIR (the system's temporary
folder) and are in memory for all sides. `create` is measured onto the same file system, where files are shared, and
onto another one (ONPREM_LLM_BENCH_OTHER, /dev/shm by default), where they are copied. Times include Python's start.
Beside sha256sum, which on some systems does not use what the processor has for it, stands openssl, which does; it has
no bar. Ends with one line of JSON; exits 1 where a bar is missed.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.bundle.kit import LAUNCH, Bench, Connected, Keys
from tests.made_weights import random_safetensors

GB = 10**9
SIZE = float(os.environ.get("ONPREM_LLM_BENCH_GB", "4")) * GB
ROUNDS = int(os.environ.get("ONPREM_LLM_BENCH_ROUNDS", "3"))
CORES = os.cpu_count() or 1
BARS = {"verify_of_sha256sum_times_cores": 0.8, "create_of_cp": 1.3, "create_copied_of_cp": 1.3, "delta_of_whole": 0.03}


def weights() -> dict[str, bytes]:
    """A model of eight equal files and small ones; random bytes are made once and told apart by their first ones."""
    count = int(SIZE * 0.99 / 8)
    body = bytearray(random_safetensors(count, 1))
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}" * 1000,
        "changed.safetensors": random_safetensors(int(SIZE * 0.01), 2),
    }
    for number in range(8):
        body[-8:] = number.to_bytes(8, "big")
        files[f"model-{number}.safetensors"] = bytes(body)
    return files


def command(*arguments: object, cwd: Path, environment: dict[str, str]) -> Callable[[], None]:
    """Return what runs a command; it must succeed."""

    def run() -> None:
        done = subprocess.run(
            [str(one) for one in arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}")

    return run


def seconds(work: Callable[[], None], before: Callable[[], None] = lambda: None) -> float:
    """Return how long it takes, after something that is not counted."""
    before()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def turns(sides: dict[str, tuple[Callable[[], None], Callable[[], None]]]) -> dict[str, float]:
    """Measure all sides in turn, ROUNDS times; return the medians."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, (before, work) in sides.items():
            taken[name].append(seconds(work, before))
    return {name: statistics.median(values) for name, values in taken.items()}


def later(root: Path, keys: Keys, files: dict[str, bytes]) -> Bench:
    """The same machine with one file of 1 % changed."""
    changed = {**files, "changed.safetensors": random_safetensors(int(SIZE * 0.01), 3)}
    return Bench(root, Connected(root / "later", weights=changed).make(), keys)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def delta_ratio(root: Path, bench: Bench, files: dict[str, bytes]) -> float:
    bench.run("have", root / "bundle", "-o", root / "have.json")
    later(root, bench.keys, files).create(root / "delta", "--have", root / "have.json")
    return size_of(root / "delta") / size_of(root / "bundle")


def main() -> int:
    named = os.environ.get("ONPREM_LLM_BENCH_DIR")
    other = Path(tempfile.mkdtemp(dir=os.environ.get("ONPREM_LLM_BENCH_OTHER", "/dev/shm")))
    root = Path(tempfile.mkdtemp(dir=named))
    try:
        return measure(root, other)
    finally:
        shutil.rmtree(root)
        shutil.rmtree(other)


def measure(root: Path, other: Path) -> int:
    files = weights()
    bench = Bench(root, Connected(root / "here", weights=files).make(), Keys(root / "keys").make())
    environment = {**os.environ, "ONPREM_LLM_CACHE": str(bench.here.cache)}
    bench.create(root / "bundle")

    def bundle(*arguments: object) -> Callable[[], None]:
        return command(sys.executable, "-c", LAUNCH, "bundle", *arguments, cwd=root, environment=environment)

    def new(place: Path, work: Callable[[], None]) -> tuple[Callable[[], None], Callable[[], None]]:
        return lambda: shutil.rmtree(place, ignore_errors=True), work

    def create(place: Path) -> tuple[Callable[[], None], Callable[[], None]]:
        return new(place, bundle("create", "--lock", bench.here.lock, "-o", place))

    def copy(place: Path) -> tuple[Callable[[], None], Callable[[], None]]:
        return new(place, command("cp", "-r", root / "bundle", place, cwd=root, environment=environment))

    blobs = sorted((root / "bundle" / "blobs" / "sha256").iterdir())
    took = turns({
        "sha256sum": (lambda: None, command("sha256sum", *blobs, cwd=root, environment=environment)),
        "openssl": (lambda: None, command("openssl", "dgst", "-sha256", *blobs, cwd=root, environment=environment)),
        "verify": (lambda: None, bundle("verify", root / "bundle", "--allowed-signers", bench.keys.allowed)),
        "cp": copy(root / "copied"),
        "create": create(root / "created"),
        "cp_to_other": copy(other / "copied"),
        "create_on_other": create(other / "created"),
    })  # fmt: skip
    subprocess.run(["diff", "-rq", "-x", "manifest.json.sig", root / "bundle", other / "created"], check=True)
    ratios = {
        "verify_of_sha256sum_times_cores": took["sha256sum"] / took["verify"] / CORES,
        "verify_of_openssl_times_cores": took["openssl"] / took["verify"] / CORES,
        "create_of_cp": took["create"] / took["cp"],
        "create_copied_of_cp": took["create_on_other"] / took["cp_to_other"],
        "delta_of_whole": delta_ratio(root, bench, files),
    }
    return show(took, ratios, size_of(root / "bundle"))


def show(took: dict[str, float], ratios: dict[str, float], size: int) -> int:
    print(f"{size / GB:.2f} GB on {CORES} cores, medians of {ROUNDS}")
    for name, value in took.items():
        print(f"{name:18} {value:7.2f} s   {size / 2**30 / value:6.2f} GiB/s")
    good = {
        name: ratios[name] >= bar if name.startswith("verify") else ratios[name] <= bar for name, bar in BARS.items()
    }  # fmt: skip
    for name, value in ratios.items():
        bar = f"(bar {BARS[name]}){'' if good[name] else '   MISSED'}" if name in BARS else ""
        print(f"{name:34} {value:.3f}   {bar}".rstrip())
    summary = {
        "name": "bundle",
        "compared": "verify: sha256sum's speed times the cores; create: cp -r, shared and copied; delta: the whole",
        "bytes": size, "cores": CORES, **{f"{name}_s": round(value, 3) for name, value in took.items()},
        **{name: round(value, 4) for name, value in ratios.items()}, "bars": BARS, "ok": all(good.values()),
    }  # fmt: skip
    print(json.dumps(summary))
    return 0 if summary["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
