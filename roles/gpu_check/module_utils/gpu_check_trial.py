# SPDX-License-Identifier: Apache-2.0
"""A trial of GPUs inside an image: the container's arguments, its program, and what the answer means. Pure."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.gpu_check_findings import ERROR, OK, WARNING, Finding, finding

CHECK = "engine_image"
MARK = "onprem-llm-trial:"
OVER = 142  # what the program ends with when its time is over
# Runs in the image, with its Python and its torch. Entries of -1, 0 and 1: every sum is exact in half precision too, so
# that a product is right or wrong, and never nearly right. The first process watches the
# time: it ends, and with it the container, although the driver may hang and the other cannot be killed.
WATCH = r"""
import json, os, sys, time
worker = os.fork()
if worker:
    end = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < end:
        done, status = os.waitpid(worker, os.WNOHANG)
        if done:
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
        time.sleep(0.1)
    os.kill(worker, 9)
    os._exit(142)
"""
SCRIPT = (
    WATCH
    + r"""
answer = {"torch": None, "cuda": None, "error": None, "gpus": []}
def multiply(torch, device, kind):
    size = 512
    left = (torch.arange(size * size).reshape(size, size) * 7919 % 3 - 1)
    right = (torch.arange(size * size).reshape(size, size) * 104729 % 3 - 1).T
    product = left.to(device, kind) @ right.to(device, kind)
    return bool((product.cpu().to(torch.int64) == left @ right).all())
try:
    import torch
    answer["torch"], answer["cuda"] = torch.__version__, torch.version.cuda
    if answer["cuda"]:
        torch.cuda.init()
    for number in range(torch.cuda.device_count()):
        one = {"name": torch.cuda.get_device_name(number), "right": None, "error": None}
        answer["gpus"].append(one)
        try:
            one["right"] = all(multiply(torch, f"cuda:{number}", kind) for kind in (torch.float32, torch.float16))
        except Exception as error:
            one["error"] = f"{type(error).__name__}: {error}"
except Exception as error:
    answer["error"] = f"{type(error).__name__}: {error}"
print("onprem-llm-trial:" + json.dumps(answer), flush=True)
"""
)
DRIVER = "The image wants another driver than the host's: take an image that is built for this one, or upgrade it."
FABRIC = "Fabric Manager must run, in the driver's exact version: systemctl status nvidia-fabricmanager."
TOOLKIT = (
    "The container did not get the GPU: onprem-llm bootstrap installs NVIDIA's container toolkit and makes the CDI "
    "specification anew where it does not fit. gpu_access (cdi, gpus, runtime) in model.yaml chooses another way."
)
# What CUDA says, and what is behind it; the first that fits.
CAUSES = (
    ("Error 803", DRIVER),
    ("Error 802", FABRIC),
    ("system not yet initialized", FABRIC),
    ("driver version is insufficient", DRIVER),
    ("no kernel image is available", "The image's torch has no code for this GPU: take an image that is built for it."),
    ("unsupported display driver", DRIVER),
    ("forward compatibility was attempted", DRIVER),
    ("out of memory", "Something else fills the GPU: see other_programs, or stop the engine there and try again."),
)


def arguments(trial: dict[str, Any], name: str) -> list[str]:
    """Return docker run's arguments before the image: what an engine gets of GPUs, and nothing else of it."""
    devices = trial["devices"]
    ways = {
        "cdi": [part for one in devices or ["nvidia.com/gpu=all"] for part in ("--device", one)],
        # The value is read as CSV: the quotes keep the list of devices together.
        "gpus": ["--gpus", '"device={}"'.format(",".join(devices)) if devices else "all"],
        "runtime": ["--runtime", "nvidia", "--env", "NVIDIA_VISIBLE_DEVICES=" + (",".join(devices) or "all")],
    }
    fixed = ["--rm", "--name", name, "--label", "onprem-llm.trial=1", "--pull", "never", "--network", "none"]
    return [*fixed, "--ipc", "host", *ways[trial["access"]], "--entrypoint", "python3"]


def answer_of(text: str) -> dict[str, Any] | None:
    """Return what the program said, None where it did not come to its end."""
    for line in reversed(text.splitlines()):
        if line.startswith(MARK):
            try:
                return dict(json.loads(line[len(MARK) :]))
            except ValueError:
                return None
    return None


def trial_finding(
    trial: dict[str, Any], code: int | None, text: str, answer: dict[str, Any] | None, timeout: float
) -> Finding:
    """Judge a trial by its answer, or by how it ended without one."""
    count = trial["gpus"]
    expected = f"torch sees {count or 'the'} GPU{'' if count == 1 else 's'} and multiplies right"
    if answer is None:
        level, found, remedy = _silent(trial, code, text, timeout)
    else:
        level, found, remedy = _answered(answer, count)
    return finding(CHECK, level, f"{trial.get('name') or trial['image']}: {found}", expected, remedy)


def in_reach(trial: dict[str, Any], code: int | None, answer: dict[str, Any] | None) -> bool:
    """Say whether the container had its GPUs, whatever became of them: one that hangs would hang by any way."""
    if answer is None:
        return code is None or code == OVER
    return bool(answer["gpus"]) and len(answer["gpus"]) >= trial["gpus"]


def another_way(access: str) -> str:
    """Return what is to be done where another way works."""
    return f"By {access} it works here: `gpu_access: {access}` in model.yaml, and deploy."


def _silent(trial: dict[str, Any], code: int | None, text: str, timeout: float) -> tuple[str, str, str]:
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")[:300]
    if code is None or code == OVER:
        return ERROR, f"no answer within {timeout:g} s", "Look at `journalctl -k | grep -i nvrm`: the GPU may hang."
    if "No such image" in text or "unable to find image" in text.lower():
        return OK, "not tried, the image is not on this host (nothing is pulled here)", ""
    if "could not select device driver" in text or "CDI" in text or "unknown or invalid runtime" in text.lower():
        return ERROR, f"no GPU by {trial['access']}: {last}", TOOLKIT
    if "exec" in text and "python3" in text:
        return WARNING, "it has no python3: this is no engine's image", "Name an engine's image with --image."
    return (
        ERROR,
        f"ended with {code}: {last}",
        _remedy(text, "Run it by hand: docker run --rm IMAGE with the same GPUs."),
    )


def _answered(answer: dict[str, Any], count: int) -> tuple[str, str, str]:
    torch, gpus = f"torch {answer['torch']}", answer["gpus"]
    if answer["torch"] is None:
        return WARNING, f"no torch in it ({answer['error']})", "Name an engine's image with --image."
    if not gpus and answer["cuda"] is None:
        return WARNING, f"sees no GPU: {torch} is built without CUDA", "An image for CPUs. For GPUs take one with CUDA."
    if not gpus:
        error = answer["error"] or "CUDA says that there is none"
        return ERROR, f"sees no GPU ({torch}, CUDA {answer['cuda']}): {error}", _remedy(error, TOOLKIT)
    broken = [f"GPU {number}: {one['error']}" for number, one in enumerate(gpus) if one["error"]]
    if broken:
        remedy = _remedy(" ".join(broken), "Look at gpu_memory and xid of this host.")
        return ERROR, f"{torch}: {'; '.join(broken)}"[:400], remedy
    wrong = [str(number) for number, one in enumerate(gpus) if not one["right"]]
    if wrong:
        remedy = "It calculates wrongly: take the host out (onprem-llm host drain HOST) and have the card replaced."
        return ERROR, f"GPU {', '.join(wrong)} multiplied wrongly ({torch})", remedy
    if count and len(gpus) != count:
        return ERROR, f"sees {len(gpus)} of {count} GPUs ({torch})", TOOLKIT
    text = f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''} seen, products right ({torch}, CUDA {answer['cuda']})"
    return OK, text, ""


def _remedy(text: str, otherwise: str) -> str:
    return next((remedy for words, remedy in CAUSES if words in text), otherwise)
