"""A digest over what decides a plan, to tell whether the hosts moved since it was made.

Left out: free memory, disk, ages, uptimes, process ids, salted fingerprints and what gateways' checks find, which
differ between two looks at hosts that nobody touched. What Ray Serve says, too: it may be silent for a while, and what
left it is listed until it is gone. What it is told comes from the book, which is in, and its step compares for itself.
"""

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onprem_llm.book_state import Book
    from onprem_llm.hosts import Current, HostState, Project

# Sockets above belong to whoever asked for any free port; they come and go and decide nothing.
FIRST_EPHEMERAL_PORT = 32768


def digest_of(current: "Current") -> str:
    """Return 16 hex digits."""
    view = [current.unreachable, [_decisive(host) for host in current.hosts]]
    text = json.dumps(view, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _decisive(host: "HostState") -> list[object]:
    # Our own ports come and go with a container that starts over and over; its labels say what it wants.
    own = {(p.label("listen") or "").rpartition(":")[2] for p in host.projects.values()}
    # Ray's worker processes take ports of their range as they come and go; so does Ray Serve its own, with replicas.
    ranges = [range_ for ports in _guarded_for_ray(host) if (range_ := _range_of(ports))]
    own |= {str(port) for p in host.projects.values() for port in block_of(p.label("gang_ports"))}
    ports = sorted(
        {
            (s.address, s.port)
            for s in host.listeners
            if s.port < FIRST_EPHEMERAL_PORT and str(s.port) not in own and not any(s.port in one for one in ranges)
        }
    )
    claimed = {uuid for p in host.projects.values() for uuid in (p.label("gpus") or "").split(",")}
    gpus = [(g.uuid, g.name, g.memory_total, bool(g.processes) and g.uuid not in claimed) for g in host.gpus]
    engine = [host.engine.running, host.engine.cdi, sorted(host.engine.runtimes), sorted(host.engine.cdi_devices)]
    engine += [sorted(host.engine.cdi_missing)]
    images = sorted((i.id, sorted(i.tags), sorted(i.digests)) for i in host.images)
    weights = sorted((w.id, sorted(w.drift), w.complete) for w in host.weights.values())
    book = host.book and _decisive_book(host.book)
    projects = {name: _decisive_project(host, project) for name, project in host.projects.items()}
    wall = host.ray_firewall
    ray = [[sorted((ports, sorted(sources)) for ports, sources in wall.rules.items()), wall.active]] if wall else []
    strays: list[object] = ["strays"] if host.strays else []
    # What its clock has decided counts where it has: who is to be off is planned for otherwise.
    clocks = {
        name: (one.files, one.armed, one.order, sorted(one.decided.off) if one.decided else None,
               *filter(None, [one.resting]))
        for name, one in host.schedules.items()
    }  # fmt: skip
    strays += [clocks] if clocks else []
    return [host.name, host.cluster_address, ports, host.driver, gpus, engine, images, weights, book, projects,
            host.site, sorted(host.groups), sorted(host.keys), sorted(host.client_keys),
            _decisive_guards(host), *strays, *ray, *_decisive_lines(host), *_bad_lines(host)]  # fmt: skip


def _guarded_for_ray(host: "HostState") -> list[str]:
    labels = [project.label("ports") or "" for project in host.projects.values()]
    # Without a node the rules are of a cluster that was: whoever listens there is somebody else.
    return [*labels, *(host.ray_firewall.rules if host.ray_firewall else ())] if any(labels) else []


def _range_of(ports: str) -> range | None:
    first, _, last = ports.partition("-")
    last = last or first
    return range(int(first), int(last) + 1) if first.isdigit() and last.isdigit() else None


def block_of(label: str | None) -> range:
    """Return the ports that a gang's label names, 7600-7601; none where there is no such label."""
    first, _, last = (label or "").partition("-")
    return range(int(first), int(last) + 1) if first.isdigit() and last.isdigit() else range(0)


def _decisive_lines(host: "HostState") -> list[object]:
    # Which ports there are, not which are up: those that flap would refuse every plan.
    return [[host.gang_interface, sorted(host.rdma)]] if host.gang_interface or host.rdma else []


def _bad_lines(host: "HostState") -> list[object]:
    # Which, not how bad: figures differ with each measurement.
    lines = [(line.source, line.target) for line in (host.network.lines if host.network else ()) if line.problems]
    return [lines] if lines else []


def _decisive_book(book: "Book") -> list[object]:
    deployments = {
        name: (entry.revision, entry.images, {p: [*at.hosts, at.revision] for p, at in entry.replicas.items()},
               entry.pending, entry.last)
        for name, entry in book.deployments.items()
    }  # fmt: skip
    marks = {name: (mark.state, mark.was_drained, *filter(None, [mark.purpose])) for name, mark in book.hosts.items()}
    return [book.gateway, book.second, deployments, marks]


def _decisive_guards(host: "HostState") -> list[object]:
    # What a host runs that is no gateway host any more decides nothing, and may start over and over.
    ours = host.book is not None and (host.book.gateway or host.book.second)
    gateway, wall = host.gateway_state if ours else None, host.firewall
    away = sorted(name for name, server in gateway.servers.items() if server.admin != "ready") if gateway else []
    return [
        gateway and (gateway.running, gateway.pending_reload, away),
        wall and (sorted(wall.ports), sorted(wall.sources), wall.active, *map(str, wall.gangs)),
        {name: (sorted(c.names), c.ends_soon, c.written) for name, c in host.certificates.items()},
    ]


def _decisive_project(host: "HostState", project: "Project") -> list[object]:
    containers = sorted(
        (c.service, c.image, c.state in {"running", "restarting"}, c.health == "unhealthy", sorted(c.labels.items()))
        for c in project.containers
    )
    secrets = host.env_secrets.get(project.name, {})
    key = project.label("deployment")
    spread = key is not None and secrets.get("VLLM_API_KEY") == host.keys.get(key)
    found: list[object] = [project.path, project.files, project.secrets_digest, containers, sorted(secrets), spread]
    return found if project.stored is None else [*found, sorted(project.stored)]
