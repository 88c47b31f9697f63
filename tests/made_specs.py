"""What rpmbuild and createrepo read of stand-in packages: a spec of files, and a stream of NVIDIA's module."""

from collections.abc import Iterable, Mapping
from pathlib import Path

SPEC = """\
Name: {name}
Version: {version}
Release: {release}
Epoch: {epoch}
Summary: stand-in for {name}
License: MIT
BuildArch: {arch}
AutoReqProv: no
{requires}
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
  context: c{number:07d}
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


def spec(
    name: str, version: str, sources: Mapping[str, str], *, requires: str = "", epoch: int = 0, arch: str = "x86_64"
) -> str:
    """Return a package's spec. `version`: version-release; `sources`: path in it -> file where it is built."""
    number, _, release = version.partition("-")
    install = [
        f"mkdir -p %{{buildroot}}{Path(path).parent}; cp {source} %{{buildroot}}{path}"
        for path, source in sources.items()
    ]
    return SPEC.format(
        name=name, version=number, release=release, epoch=epoch, arch=arch, install="\n".join(install),
        files="\n".join(sources), requires=f"Requires: {requires}" if requires else "",
    )  # fmt: skip


def stream(name: str, number: int, artifacts: Iterable[str]) -> str:
    """Return the stream, the `number`th of its file; artifacts are name-epoch:version-release.arch."""
    return STREAM.format(stream=name, number=number, artifacts=", ".join(f'"{one}"' for one in artifacts))
