"""In which order hosts pass weights on: a slow line in the middle of a chain slows all behind it, so it comes last."""

from collections.abc import Mapping, Sequence

# Of what all but the fastest quarter have; lines of one kind differ by less.
SLOW = 0.6


def chain_order(hosts: Sequence[str], rates: Mapping[str, float]) -> list[str]:
    """Return the hosts with slow ones last. `hosts[0]` has everything and stays first.

    `rates` are bytes a second at which each host pulled from the one before it in `hosts`, the first from the last. A
    host whose lines in and out are both slow is slow itself. Of one slow line between two good ones nobody knows which
    end it is: both go behind, in their order, and no good one is behind the two. Not measured counts as slow.
    """
    first, rest = hosts[0], list(hosts[1:])
    known = [rates[host] for host in hosts if host in rates]
    if len(rest) < 2 or not known:
        return list(hosts)
    limit = SLOW * sorted(known, reverse=True)[len(known) // 4]
    after = dict(zip(hosts, [*hosts[1:], first], strict=True))
    slow_in = {host for host in hosts if rates.get(host, 0) < limit}
    slow = {host for host in slow_in if after[host] in slow_in} - {first}
    unclear: set[str] = set()
    for host in rest:
        if after[host] in slow_in and not {host, after[host]} & (slow | {first}) and host not in slow_in:
            unclear |= {host, after[host]}
    if rest[0] in slow_in and rest[0] not in slow:
        unclear.add(rest[0])
    speed = {host: max(rates.get(host, 0), rates.get(after[host], 0)) for host in rest}
    good = [host for host in rest if host not in slow | unclear]
    return [
        first,
        *good,
        *(host for host in rest if host in unclear),
        *sorted((host for host in rest if host in slow), key=lambda host: -speed[host]),
    ]
