"""Faults of lines put together by host: what is true of all lines to a host, or from it, is said once. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from onprem_llm.checks.network import Link
from onprem_llm.findings import names

ROLE = "network_check"


@dataclass(frozen=True)
class Side:
    """Lines with one fault: all those to or from `host`, as `whole` says, or a single one."""

    host: str
    links: tuple[Link, ...]
    whole: str = ""

    @property
    def device(self) -> str | None:
        """The interface to look at."""
        return next((link.device for link in self.links if link.source == self.host), None)


def sides(bad: Sequence[Link], every: Sequence[Link]) -> list[Side]:
    """Put the bad ones of `every` together by the host that all of them have in common, where there are two or more."""
    found: list[Side] = []
    left = dict.fromkeys(bad)
    for host in dict.fromkeys(end for link in bad for end in (link.target, link.source)):
        for whole in ("from", "to"):
            own = [link for link in every if host == (link.target if whole == "from" else link.source)]
            if len(own) > 1 and all(link in left for link in own):
                others = names([link.source if whole == "from" else link.target for link in own])
                found.append(Side(host, tuple(own), f"{whole} each of {others}"))
                for link in own:
                    del left[link]
    return [*found, *(Side(link.source, (link,)) for link in left)]
