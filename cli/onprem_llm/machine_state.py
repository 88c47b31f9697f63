"""What hosts say of their disks, their container engine and the lock."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Disk:
    """Free and total bytes of the file system that holds `path`."""

    path: str
    free: int
    total: int
    device: int | None = None  # the same number is the same file system


@dataclass(frozen=True, slots=True)
class Engine:
    """The container engine of a host."""

    running: bool
    version: str | None
    compose: str | None
    cdi: bool
    runtimes: tuple[str, ...]
    root: str | None
    error: str | None
    cdi_devices: tuple[str, ...] = ()  # what stands after nvidia.com/gpu=: 0, GPU-…, all
    cdi_missing: tuple[str, ...] = ()  # what the specifications name and the host does not have


@dataclass(frozen=True, slots=True)
class Lock:
    """Who holds the lock; age in seconds."""

    owner: str
    age: float | None
    unit: str


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening TCP socket, and who holds it where that is known."""

    address: str
    port: int
    pid: int | None
    process: str | None
    container: str | None = None  # the container that publishes it

    @property
    def holder(self) -> str:
        """Who it is, for a person: `nginx (pid 42)`, or the container's name."""
        if self.container:
            return self.container
        return f"{self.process or 'a process that could not be named'}{f' (pid {self.pid})' if self.pid else ''}"
