"""The clock: is it kept by somebody, and does it agree with the control host's."""

from __future__ import annotations

import time

from ansible.module_utils.host_preflight_findings import Finding, finding, judged, output_of


def clock_findings(control_time: float | None, max_skew: float) -> list[Finding]:
    """Return two findings. The skew includes the seconds that the task took to reach the host."""
    return [_synchronised(), _skew(time.time(), control_time, max_skew)]


def _synchronised() -> Finding:
    answer = output_of(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    found = {"yes": "synchronised", "no": "not synchronised"}.get(answer or "", "timedatectl does not say")
    remedy = "Point chrony or systemd-timesyncd at the site's time server: certificates and logs depend on the clock."
    return judged("clock_sync", answer == "yes", found, "synchronised by NTP", remedy, bad="warning")


def _skew(here: float, control_time: float | None, max_skew: float) -> Finding:
    if control_time is None:
        return finding("clock", "ok", "not compared", f"at most {max_skew:g} s off the control host's")
    ahead = here - control_time
    return judged(
        "clock",
        abs(ahead) <= max_skew,
        f"{abs(ahead):.0f} s {'ahead of' if ahead >= 0 else 'behind'} the control host's",
        f"at most {max_skew:g} s off",
        "Set the wrong one of the two: `timedatectl set-time`, or a time server.",
    )
