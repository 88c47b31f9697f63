"""Which of the hosts that say that they are the gateway counts: one that was lost may come back and say so still."""

from collections.abc import Mapping

# Hosts that the book says these of are not waited for, and have no say: nothing that counts is there.
GONE = ("lost", "removed")


def counting(states: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """Return the hosts that no other one calls gone; all, where none is left.

    `states`: a host that says that it is the gateway -> what its book says of hosts, by name.
    """
    gone = {name for marks in states.values() for name, state in marks.items() if state in GONE}
    return tuple(name for name in states if name not in gone) or tuple(states)
