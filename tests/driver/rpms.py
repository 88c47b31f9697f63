"""Stand-in packages for dnf, with the streams of NVIDIA's module, built on the host with rpmbuild and createrepo."""

from dataclasses import dataclass, field
from pathlib import Path

from tests.driver.kit import Host
from tests.made_specs import spec, stream


@dataclass
class DnfRepository:
    """A folder of packages on a host."""

    host: Host
    folder: Path
    specs: list[str] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)

    def add(
        self, name: str, version: str, *, requires: str = "", files: dict[str, bytes] | None = None, epoch: int = 0,
        arch: str = "x86_64",
    ) -> None:  # fmt: skip
        """Describe a package: version is version-release; files are put there as they are."""
        number = version.partition("-")[0]
        sources = {}
        for count, (path, data) in enumerate((files or {}).items()):
            source = self.folder / f"{name}-{number}-{count}"
            source.write_bytes(data)
            source.chmod(0o755 if path.startswith("/usr/bin/") else 0o644)
            sources[path] = f"/srv/specs/{source.name}"
        file = self.folder / f"{name}-{number}-{len(self.specs)}.spec"
        file.write_text(spec(name, version, sources, requires=requires, epoch=epoch, arch=arch))
        self.specs.append(file.name)

    def stream(self, name: str, *artifacts: str) -> None:
        """Describe a stream of the module nvidia-driver; artifacts are name-epoch:version-release.arch."""
        self.streams.append(stream(name, len(self.streams), artifacts))

    def give(self) -> None:
        """Build all, and make it the host's only repository."""
        (self.folder / "modules.yaml").write_text("".join(self.streams))
        self.host.send(self.folder, "/srv/specs")
        self.host.run(
            "cd /srv/specs; mkdir -p /srv/standin /etc/yum.repos.d;"
            "rpmbuild -bb --quiet --define '_rpmdir /srv/standin' --define '_topdir /srv/build' *.spec;"
            "createrepo_c --quiet /srv/standin; modifyrepo_c --mdtype=modules modules.yaml /srv/standin/repodata;"
            "rm -f /etc/apt/sources.list.d/*;"
            "printf '[cuda]\\nname=cuda\\nbaseurl=file:///srv/standin\\ngpgcheck=0\\n' > /etc/yum.repos.d/cuda.repo"
        )
