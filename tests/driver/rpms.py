"""Stand-in packages for dnf, with the streams of NVIDIA's module, built on the host with rpmbuild and createrepo."""

from dataclasses import dataclass, field
from pathlib import Path

from tests.driver.kit import Host

SPEC = """\
Name: {name}
Version: {version}
Release: {release}
Epoch: {epoch}
Summary: stand-in
License: none
BuildArch: {arch}
AutoReqProv: no
{more}
%description
stand-in
%install
mkdir -p %{{buildroot}}
{install}
%files
{files}
"""
STREAM = """\
---
document: modulemd
version: 2
data:
  name: nvidia-driver
  stream: "{stream}"
  version: 20251001000000
  context: {context}
  arch: x86_64
  summary: Nvidia driver for {stream} branch
  description: stand-in
  license: {{module: [MIT]}}
  profiles:
    default: {{rpms: [nvidia-driver-cuda]}}
  artifacts:
    rpms: [{artifacts}]
...
"""


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
        number, _, release = version.partition("-")
        install = []
        for count, (path, data) in enumerate((files or {}).items()):
            source = self.folder / f"{name}-{number}-{count}"
            source.write_bytes(data)
            source.chmod(0o755 if path.startswith("/usr/bin/") else 0o644)
            install += [
                f"mkdir -p %{{buildroot}}{Path(path).parent}",
                f"cp /srv/specs/{source.name} %{{buildroot}}{path}",
            ]
        spec = self.folder / f"{name}-{number}-{len(self.specs)}.spec"
        spec.write_text(SPEC.format(
            name=name, version=number, release=release, epoch=epoch, arch=arch, install="\n".join(install),
            files="\n".join(files or {}), more=f"Requires: {requires}" if requires else "",
        ))  # fmt: skip
        self.specs.append(spec.name)

    def stream(self, name: str, *artifacts: str) -> None:
        """Describe a stream of the module nvidia-driver; artifacts are name-epoch:version-release.arch."""
        quoted = ", ".join(f'"{one}"' for one in artifacts)
        self.streams.append(STREAM.format(stream=name, context=f"c{len(self.streams):07d}", artifacts=quoted))

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
