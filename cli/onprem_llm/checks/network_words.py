"""Figures of lines between hosts, as people read them. Pure."""

from collections.abc import Iterable


def rate_text(rate: float) -> str:
    """Return 941 Mbit/s, 9.41 Gbit/s for bit/s."""
    for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}" if rate < 1000 * size else f"{rate / size:.0f} {unit}"
    return f"{rate / 1e3:.3g} kbit/s"


def time_text(seconds: float) -> str:
    """Return 0.12 ms, 3.2 s for seconds."""
    size = abs(seconds)
    if size >= 1:
        return f"{size:.3g} s" if size < 1000 else f"{size:.0f} s"
    return f"{size * 1e3:.2g} ms" if size < 0.1 else f"{size * 1e3:.0f} ms"


def ports_text(ports: Iterable[int]) -> str:
    """Return 7600-7603, 7610 for ports."""
    spans: list[list[int]] = []
    for port in sorted(set(ports)):
        if spans and port == spans[-1][1] + 1:
            spans[-1][1] = port
        else:
            spans.append([port, port])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
