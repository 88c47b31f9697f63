"""Whether hosts are still what a lock was made for."""

from collections.abc import Collection

from onprem_llm.spec.facts import ARCHITECTURES, Facts, HostFacts
from onprem_llm.spec.lock import Lock, LockedPackages

AGAIN = (
    "collect the facts again (onprem-llm facts export, or collect.sh), and make the lock and the bundle again with them"
)


def drift(lock: Lock, facts: Facts, hosts: Collection[str] = ()) -> tuple[str, ...]:
    """Return a sentence for each thing in which the hosts are not what the lock has; none where all is well.

    `hosts` are names that are to be served, of which some may have no facts. A lock without packages says nothing of
    releases and kernels.
    """
    problems = [f"{name}: it is not in the facts: {AGAIN}" for name in sorted(set(hosts) - set(facts.hosts))]
    for name, host in facts.hosts.items():
        problems += [f"{name}: {what}: {AGAIN}" for what in _of_host(lock, host)]
    return tuple(problems)


def _of_host(lock: Lock, host: HostFacts) -> list[str]:
    if host.platform != lock.platform:
        return [f"found {host.platform}, and the lock is for {lock.platform}"]
    if not lock.packages:
        return []
    release = _release(lock, host)
    if release is None:
        known = ", ".join(f"{one.os} {one.release} ({one.architecture})" for one in lock.packages)
        return [f"found {host.os.id} {host.os.version_id}, and the lock has packages for {known}"]
    missing = sorted(set(host.kernels.all) - set(release.kernels))
    if not missing:
        return []
    running = "which runs" if host.kernels.running in missing else "which is installed: a reboot may choose it"
    return [
        f"found the kernel {', '.join(missing)}, {running}, and the lock knows {', '.join(release.kernels) or 'none'}"
    ]


def _release(lock: Lock, host: HostFacts) -> LockedPackages | None:
    wanted = (host.os.id, host.os.version_id, ARCHITECTURES[host.architecture])
    return next((one for one in lock.packages if (one.os, one.release, one.architecture) == wanted), None)
