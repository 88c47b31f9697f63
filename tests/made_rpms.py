"""Signed stand-in packages for dnf, in repositories with NVIDIA's streams: by rpmbuild and createrepo_c."""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.made_specs import spec, stream


@dataclass
class Key:
    """A key that signs packages, in a keyring of its own."""

    folder: Path

    @property
    def public(self) -> Path:
        return self.folder / "key.asc"

    def make(self) -> "Key":
        self.folder.mkdir(mode=0o700, parents=True)
        self.gpg("--passphrase", "", "--quick-gen-key", "stand-in <stand-in@example.com>", "rsa2048", "sign", "never")
        self.public.write_bytes(self.gpg("--armor", "--export"))
        return self

    def gpg(self, *words: str) -> bytes:
        argv = ["gpg", "--batch", "--quiet", "--homedir", str(self.folder), *words]
        try:
            return subprocess.run(argv, check=True, capture_output=True).stdout
        finally:
            end_agents(self.folder)


@dataclass
class Rpms:
    """A repository in a folder."""

    folder: Path
    specs: list[str] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)

    def add(
        self, name: str, version: str, requires: str = "", epoch: int = 0, files: Mapping[str, bytes] | None = None
    ) -> str:
        """Describe a package (version-release; files are put there as they are); return it as a stream names it."""
        number, _, release = version.partition("-")
        own = {f"/usr/share/stand-ins/{name}-{number}-{release}": f"{name} {number}\n".encode()}
        sources = {}
        for path, data in {**(files or {}), **own}.items():
            source = self.folder.parent / f".files-{name}-{version}-{Path(path).name}"
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_bytes(data)
            sources[path] = str(source)
        self.specs.append(spec(name, version, sources, requires=requires, epoch=epoch))
        return f"{name}-{epoch}:{version}.x86_64"

    def stream(self, name: str, artifacts: Sequence[str]) -> None:
        self.streams.append(stream(name, len(self.streams), artifacts))

    def build(self, key: Key) -> None:
        """Build and sign the packages, and make the index."""
        self.folder.mkdir(parents=True, exist_ok=True)
        work = self.folder.parent / f".{self.folder.name}-work"
        work.mkdir()
        for number, text in enumerate(self.specs):
            (work / f"{number}.spec").write_text(text)
        macros = {"_topdir": work / "build", "_rpmdir": self.folder, "_gpg_name": "stand-in", "_gpg_path": key.folder}
        macros |= {"__gpg": "/usr/bin/gpg"}
        if self.specs:
            specs = sorted(map(str, work.glob("*.spec")))
            _run(["rpmbuild", "-bb", "--quiet", *_defined(macros), *specs])
            _run(["rpmsign", *_defined(macros), "--addsign", *sorted(map(str, self.folder.glob("*/*.rpm")))])
            end_agents(key.folder)
        _run(["createrepo_c", "--quiet", str(self.folder)])
        if self.streams:
            (work / "modules.yaml").write_text("".join(self.streams))
            _run(["modifyrepo_c", "--mdtype=modules", str(work / "modules.yaml"), str(self.folder / "repodata")])


def end_agents(*homes: Path) -> None:
    """End the agents that gpg, or dnf by it, started for keyrings in these folders."""
    for home in homes:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True, capture_output=True)


def agents(folder: Path) -> list[str]:
    """Return the command lines of gpg-agents whose keyrings are below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = process.read_bytes().split(b"\0")
            if words[0].endswith(b"gpg-agent") and f"{folder}/".encode() in b" ".join(words):
                found.append(b" ".join(words).decode())
    return found


def _defined(macros: Mapping[str, object]) -> list[str]:
    return [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
