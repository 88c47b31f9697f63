"""What a replica over several hosts has more than one on a single host: ranks, and how they reach each other."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from onprem_llm.rendering.compose import LABEL
from onprem_llm.rendering.gang import LABEL_PROGRAM, GangRank, program_digest

LABEL_RDMA = f"{LABEL}.rdma"
RDMA_DEVICES = "/dev/infiniband"
# Ports of one gang, in a row: the runner's, and torch's meeting point. All others are the kernel's choice: Gloo, NCCL
# and ZeroMQ cannot be told.
BLOCK = 2
# Ranks leave nothing behind in a /dev/shm of their own when they are killed; Docker's 64 MB are too few.
SHM_SIZE = "16g"
# No replica's project ends so: those end with their number.
_RANK = re.compile(r"-rank(\d+)$")


@dataclass(frozen=True, slots=True)
class Rank:
    """One part of a gang: which, of how many, and how it reaches the others.

    `first` is the first of the gang's BLOCK ports, which are the same on all of its hosts. `token` tells one making of
    the gang from another: ranks that were rendered apart never meet.
    """

    rank: int
    size: int
    leader: str  # the first rank's address
    me: str  # this one's
    interface: str  # the network interface that has it
    first: int
    rdma: tuple[str, ...] = ()  # ports that it talks through: mlx5_0:1
    token: str = ""
    names: Mapping[str, str] = field(default_factory=dict)  # project -> address, of all ranks

    @property
    def ports(self) -> range:
        """The ports that are this gang's on each of its hosts."""
        return range(self.first, self.first + BLOCK)

    def with_token(self, token: str) -> "Rank":
        """Return the same, of this making of the gang."""
        return replace(self, token=token)


def rank_project(leader: str, rank: int) -> str:
    """Name the project of a rank; the first rank's is the replica's."""
    return f"{leader}-rank{rank}" if rank else leader


def rank_of(project: str) -> int:
    """Return which rank of its replica a project is."""
    found = _RANK.search(project)
    return int(found[1]) if found else 0


def replica_of(project: str) -> str:
    """Return the name of the replica that a project is, or is a rank of."""
    return _RANK.sub("", project)


def place_of(rank: Rank, health: str) -> GangRank:
    """Return what the program that starts the engine once all ranks are there wants to know.

    `health`: where the engine of the first rank says that it is well.
    """
    leader = f"[{rank.leader}]:{rank.first}" if ":" in rank.leader else f"{rank.leader}:{rank.first}"
    return GangRank(rank.rank, rank.size, leader, rank.me, rank.token, None if rank.rank else health)


def engine_flags(rank: Rank, address: str, port: int) -> list[str]:
    """Return the engine's flags of a rank; the first one answers requests at `address` and `port`."""
    where = ["--nnodes", str(rank.size), "--node-rank", str(rank.rank)]
    where += ["--master-addr", rank.leader, "--master-port", str(rank.first + 1)]
    return [*where, *(["--headless"] if rank.rank else ["--host", address, "--port", str(port)])]


def environment(rank: Rank) -> dict[str, str]:
    """Return what engine, Gloo and NCCL are told: without it they guess among a host's networks."""
    adapters = {"NCCL_IB_HCA": "=" + ",".join(rank.rdma)} if rank.rdma else {}
    return {
        "GLOO_SOCKET_IFNAME": rank.interface,
        "NCCL_SOCKET_IFNAME": f"={rank.interface}",
        "VLLM_HOST_IP": rank.me,
        **adapters,
    }


def body(rank: Rank) -> dict[str, object]:
    """Return the service's fields: the host's own network, who is who there, RDMA devices where there are any."""
    # Torch asks for the names of the addresses that it meets: of a resolver that is not there, for seconds.
    found: dict[str, object] = {"network_mode": "host", "extra_hosts": dict(rank.names)}
    if rank.rdma:
        # What is registered for RDMA must stay in memory.
        found |= {"devices": [f"{RDMA_DEVICES}:{RDMA_DEVICES}"], "cap_add": ["IPC_LOCK"], "ulimits": {"memlock": -1}}
    return found


def labels(rank: Rank, replica: str) -> dict[str, str]:
    """Return the labels of a rank; `replica` is the first one's project."""
    return {
        f"{LABEL}.gang": replica,
        f"{LABEL}.rank": str(rank.rank),
        f"{LABEL}.size": str(rank.size),
        f"{LABEL}.gang_ports": f"{rank.ports[0]}-{rank.ports[-1]}",
        f"{LABEL}.gang_address": rank.me,
        **({LABEL_RDMA: ",".join(rank.rdma)} if rank.rdma else {}),
        # What the container reads as it starts: another program is another container.
        LABEL_PROGRAM: program_digest(),
    }
