"""How a rank stands: written by the running program, read by its container's health check."""

from __future__ import annotations

import json
import os
import time
from typing import NamedTuple

HEALTHY, ILL, WAITS = 0, 1, 75
ANSWER_S = 5.0


class State(NamedTuple):
    """What the health check is told. `at` is of the clock that counts from the host's start."""

    phase: str  # waiting, starting, ready or ending
    text: str
    at: float
    silence: float  # seconds without a new state after which the program counts as hung
    health: str | None = None  # rank 0: the engine is asked itself


def write(path: str, state: State) -> None:
    """Write the state, whole or not at all."""
    part = f"{path}.{os.getpid()}"
    with open(part, "w", encoding="utf-8") as file:  # noqa: PTH123  a health check every 5 s imports as little as it can
        json.dump(state._asdict(), file)
    os.replace(part, path)  # noqa: PTH105


def healthy(path: str) -> tuple[int, str]:
    """Return the health check's exit code and its words. WAITS: not healthy, and a restart would not help."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            state = State(**json.load(file))
    except (OSError, ValueError, TypeError) as error:
        return ILL, f"the gang's program has not begun: {error}"
    age = time.monotonic() - state.at
    if age > state.silence:
        return ILL, f"the gang's program hangs: nothing for {age:.0f} s"
    if state.phase in ("starting", "ready") and state.health:
        return (
            (HEALTHY, state.text) if answers(state.health) else (ILL, f"{state.text}; {state.health} does not answer")
        )
    return (HEALTHY if state.phase == "ready" else WAITS), state.text


def answers(url: str) -> bool:
    """Tell whether the engine says of itself that it is well. Its certificate is not checked: the host asks itself."""
    import ssl
    import urllib.request

    # Not the default context: that reads all of the image's certificates, every 5 s.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=ANSWER_S) as answer:
            return int(answer.status) == 200
    except (OSError, ValueError):
        return False
