# SPDX-License-Identifier: Apache-2.0
"""How long a message takes there and back, and how far apart two clocks are: the same exchange tells both."""

import time

COUNT, SECONDS = 60, 1.0  # exchanges at most, and how long they may take together
ANSWER = 5  # seconds for one


def delay(line):
    """Exchange times with the other host; raises Lost.

    Returns rtt_median and rtt_worst (seconds), offset (the other's clock less ours, seconds) and bound: the true
    offset is within `bound` of it. The exchange that took the least tells the offset best: its two ways differ by no
    more than what it took.
    """
    found = []
    until = time.monotonic() + SECONDS
    while len(found) < COUNT and (len(found) < 3 or time.monotonic() < until):
        began, sent = time.perf_counter(), time.time()
        answer = line.ask(ANSWER, do="time")
        taken = time.perf_counter() - began
        there = max(0.0, float(answer["sent"]) - float(answer["came"]))
        middle = (float(answer["came"]) + float(answer["sent"])) / 2
        found.append((max(0.0, taken - there), middle - (sent + taken / 2)))
    trips = sorted(trip for trip, _ in found)
    least, offset = min(found)
    return {"rtt_median": trips[len(trips) // 2], "rtt_worst": trips[-1], "offset": offset, "bound": least / 2}


def answered(line, came):
    """Answer one exchange; `came` is time.time() of when it did."""
    line.say(came=came, sent=time.time())
