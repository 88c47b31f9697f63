# SPDX-License-Identifier: Apache-2.0
"""One all-reduce over hosts, in the engine's image: the container's arguments, its program, what it said. Pure.

The program is written from torch.distributed's documents: NCCL where torch sees a GPU, Gloo on the processor.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.gpu_check_trial import OVER, WATCH, answer_of, arguments

# What is added up is known beforehand: rank r brings r + 1 everywhere, so that a wrong sum shows.
SCRIPT = (
    WATCH
    + r"""
import datetime
part = json.loads(sys.argv[2])
answer = {"torch": None, "backend": None, "nccl": None, "right": None, "seconds": None, "error": None}
def reduce(torch, distributed):
    cuda = torch.cuda.is_available()
    answer["backend"] = "nccl" if cuda else "gloo"
    if cuda:
        answer["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    address = "[%s]" % part["address"] if ":" in part["address"] else part["address"]
    distributed.init_process_group(
        answer["backend"], init_method="tcp://%s:%d" % (address, part["port"]), rank=part["rank"],
        world_size=part["world"], timeout=datetime.timedelta(seconds=float(sys.argv[1])),
    )
    values = torch.empty(part["bytes"] // 4, dtype=torch.float32, device="cuda:0" if cuda else "cpu")
    times = []
    for _ in range(7):
        values.fill_(part["rank"] + 1)
        distributed.barrier()
        if cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        distributed.all_reduce(values)
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    answer["seconds"] = sorted(times[2:])[2]
    answer["right"] = bool((values == part["world"] * (part["world"] + 1) // 2).all())
    distributed.barrier()
try:
    import torch
    import torch.distributed
    answer["torch"] = torch.__version__
    reduce(torch, torch.distributed)
except Exception as error:
    answer["error"] = "%s: %s" % (type(error).__name__, error)
print("onprem-llm-trial:" + json.dumps(answer), flush=True)
os._exit(0)
"""
)
# NCCL says once, with NCCL_DEBUG=INFO: `NCCL INFO Using network IB`, or Socket, or what a plugin is called.
_NETWORK = re.compile(r"NCCL INFO Using network (\S+)")
INFINIBAND = Path("/dev/infiniband")


def command(trial: dict[str, Any], part: dict[str, Any], name: str, limit: float) -> list[str]:
    """Return docker's arguments: the GPUs as an engine gets them, the host's own network, RDMA where there is any."""
    given = arguments(trial, name)
    given[given.index("--network") + 1] = "host"
    given.remove("--rm")  # what it said is read after its end
    # RDMA pins memory, more than a container may otherwise.
    rdma = ["--device", str(INFINIBAND), "--cap-add", "IPC_LOCK", "--ulimit", "memlock=-1"]
    rdma = rdma if INFINIBAND.exists() else []
    names = [f"{kind}_SOCKET_IFNAME={part['interface']}" for kind in ("NCCL", "GLOO") if part.get("interface")]
    env = [word for one in [*names, "NCCL_DEBUG=INFO"] for word in ("--env", one)]
    program = [trial["image"], "-c", SCRIPT, str(limit), json.dumps(part)]
    return ["run", "--detach", *rdma, *env, *given, *program]


def said(code: int, text: str, limit: float) -> dict[str, Any]:
    """Return what a container's log says: the program's answer, or `error`; `network`: what NCCL went over."""
    found = answer_of(text)
    if found is None:
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
        why = f"no answer within {limit:g} s" if code == OVER else f"ended with {code}: {last[:300]}"
        found = {"error": why}
    network = _NETWORK.search(text)
    return {**found, "network": network.group(1) if network else None}
