"""The site's Ray cluster: `onprem_llm_site.ray`. Which hosts are in it, the inventory's groups say; or it exists, at an
address.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from onprem_llm.spec.fields import MAX_PORT, ControlPath, ImageRef, Model, Port, absolute_path

# What each node listens on by a name of its own; the rest of the range is for Ray's worker processes, one port each.
NAMED_PORTS = 12
FEWEST_WORKER_PORTS = 48
# Ray's own port for its dashboard.
DASHBOARD_PORT = 8265
ADDRESS = re.compile(r"(?:(https?)://)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::([0-9]{1,5}))?/?")
# What only nodes of our own have.
OF_OUR_NODES = ("image", "ports", "head_store", "object_store")


class RayPorts(Model):
    """TCP ports that Ray's processes listen on, the same on each host of the cluster."""

    first: Port = 20000
    last: Port = 20999

    @model_validator(mode="after")
    def _wide_enough(self) -> "RayPorts":
        fewest = NAMED_PORTS + FEWEST_WORKER_PORTS
        if self.last - self.first + 1 < fewest:
            raise ValueError(f"found {self.first} to {self.last}, expected {fewest} ports or more, the first one first")
        return self


def _dashboard(value: str) -> str:
    """Return http(s)://HOST:PORT."""
    found = ADDRESS.fullmatch(value)
    port = int(found.group(3) or DASHBOARD_PORT) if found else 0
    if found is None or not 0 < port <= MAX_PORT:
        raise ValueError(
            f"found {value!r}, expected where the dashboard of the cluster's head answers: http://HOST:PORT, "
            f"https://HOST:PORT or HOST:PORT; without a port {DASHBOARD_PORT} is meant"
        )
    return f"{found.group(1) or 'http'}://{found.group(2)}:{port}"


class RayCluster(Model):
    """What the nodes of the cluster run and listen on; or where one is that somebody else runs.

    `image` has Ray and vLLM in it; `serve_port` is Ray Serve's, on each host of the cluster, for the gateways alone.
    `head_store`: where the head keeps what it knows, its applications too: in memory, or in RocksDB on its host's disk.
    `object_store`: bytes of each host's /dev/shm that Ray's object store may take.
    `address`: of the dashboard of a cluster that exists, http(s)://HOST:PORT; `token_file` has its token, on the
    control host; `weights` is where its nodes see the gateway host's folder of weights.
    """

    image: ImageRef | None = None
    ports: RayPorts = RayPorts()
    serve_port: Port = 8100
    head_store: Literal["memory", "rocksdb"] = "memory"
    object_store: Annotated[int, Field(ge=80 * 1024 * 1024)] = 1024 * 1024 * 1024
    address: Annotated[str, AfterValidator(_dashboard)] | None = None
    token_file: ControlPath | None = None
    weights: Annotated[str, AfterValidator(absolute_path)] | None = None

    @model_validator(mode="after")
    def _apart(self) -> "RayCluster":
        if self.address is None and self.ports.first <= self.serve_port <= self.ports.last:
            raise ValueError(
                f"serve_port: found {self.serve_port}, which is one of ports ({self.ports.first} to {self.ports.last})"
            )
        return self

    @model_validator(mode="after")
    def _ours_or_theirs(self) -> "RayCluster":
        if self.address is None:
            alone = [name for name in ("token_file", "weights") if getattr(self, name) is not None]
            if alone:
                raise ValueError(
                    f"{alone[0]}: found it without address, expected both or none: it is for a cluster that somebody "
                    "else runs"
                )
            return self
        ours = [name for name in OF_OUR_NODES if getattr(self, name) != type(self).model_fields[name].default]
        if ours:
            raise ValueError(
                f"{', '.join(ours)}: found with address, expected nothing: somebody else runs the nodes of the cluster "
                f"at {self.address}. Leave it out; or leave address out for a cluster of your own"
            )
        if self.weights is None:
            raise ValueError(
                "weights: found nothing, expected the path at which the nodes of the cluster at "
                f"{self.address} see the gateway host's folder of weights (by NFS, say)"
            )
        return self
