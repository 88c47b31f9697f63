"""The site's Ray cluster: `onprem_llm_site.ray`. Which hosts are in it, the inventory's groups say."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from onprem_llm.spec.fields import ImageRef, Model, Port

# What each node listens on by a name of its own; the rest of the range is for Ray's worker processes, one port each.
NAMED_PORTS = 12
FEWEST_WORKER_PORTS = 48


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


class RayCluster(Model):
    """What the nodes of the cluster run and listen on.

    `image` has Ray and vLLM in it; `serve_port` is Ray Serve's, on each host of the cluster, for the gateways alone.
    `head_store`: where the head keeps what it knows, its applications too: in memory, or in RocksDB on its host's disk.
    `object_store`: bytes of each host's /dev/shm that Ray's object store may take.
    """

    image: ImageRef | None = None
    ports: RayPorts = RayPorts()
    serve_port: Port = 8100
    head_store: Literal["memory", "rocksdb"] = "memory"
    object_store: Annotated[int, Field(ge=80 * 1024 * 1024)] = 1024 * 1024 * 1024

    @model_validator(mode="after")
    def _apart(self) -> "RayCluster":
        if self.ports.first <= self.serve_port <= self.ports.last:
            raise ValueError(
                f"serve_port: found {self.serve_port}, which is one of ports ({self.ports.first} to {self.ports.last})"
            )
        return self
