"""A dnf of our own, for another release than this machine's: its own folders, nothing installed, dnf 4's library."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onprem_llm.caches import cache_folder
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.json_values import is_mapping
from onprem_llm.locking.blobs import hint_for
from onprem_llm.locking.repositories import REPOSITORIES, System, dnf_repositories, key_file, wanted
from onprem_llm.weights.lock import held

PROGRAM = Path(__file__).with_name("dnf_program.py")
# The system's: dnf's library is its own, and in no virtual environment.
PYTHON = "/usr/bin/python3"


@dataclass(frozen=True, slots=True)
class DnfRoot:
    """dnf for one release and architecture. Everything that it writes is below `folder`."""

    system: System
    folder: Path
    repositories: Sequence[Mapping[str, object]] = field(default_factory=tuple)

    @property
    def name(self) -> str:
        """Name it for people: rocky 9.6 (amd64)."""
        return f"{self.system.os} {self.system.release} ({self.system.architecture})"

    def look(self, names: Sequence[str], *, fresh: bool = False) -> Mapping[str, Any]:
        """Return what the repositories have of these names, and NVIDIA's streams; `fresh`: fetch package lists."""
        return self._ask(f"the package lists of {self.name}", {"look": list(names)}, fresh=fresh)

    def resolve(self, groups: Sequence[Mapping[str, object]]) -> Sequence[Mapping[str, Any]]:
        """Return the closures of groups ({install, stream}) on an empty machine, put together."""
        said = self._ask(f"the packages of {self.name}", {"resolve": list(groups)})
        found: Sequence[Mapping[str, Any]] = said["packages"]
        return found

    def download(self, wanted: Sequence[str], folder: Path, *, fresh: bool = False) -> Sequence[Path]:
        """Fetch packages (name-version.architecture) whose signatures are good, and return their files."""
        what = f"packages of {self.name}, which may have newer versions by now: make the lock again then"
        said = self._ask(what, {"download": list(wanted), "to": str(folder)}, fresh=fresh)
        return [Path(one) for one in said["files"]]

    def _ask(self, what: str, request: Mapping[str, object], *, fresh: bool = False) -> Mapping[str, Any]:
        words = self.system.words
        asked = {
            **request, "root": str(self.folder), "repositories": [dict(one) for one in self.repositories],
            "releasever": words["release"], "arch": words["machine"], "basearch": words["machine"],
            "platform": f"platform:el{words['major']}", "expire": 0 if fresh else -1,
        }  # fmt: skip
        try:
            done = subprocess.run(
                [PYTHON, str(PROGRAM)], input=json.dumps(asked), capture_output=True, text=True, check=False
            )
            answer: object = json.loads(done.stdout)
        except FileNotFoundError:
            raise self._no_dnf(PYTHON) from None
        except ValueError:
            raise OnpremError(f"{what}: dnf gave no answer", details=done.stderr[-800:]) from None
        finally:
            self._end_agents()
        if not is_mapping(answer):
            raise OnpremError(f"{what}: dnf gave no answer", details=done.stdout[-800:])
        if answer.get("missing"):
            raise self._no_dnf(str(answer["error"]))
        if "error" in answer:
            raise InvalidError(
                f"{what}: dnf says",
                details="\n".join(f"  {line}" for line in str(answer["error"]).splitlines()[-8:]),
                hint=hint_for(
                    str(answer["error"]),
                    "see that this machine reaches its mirrors, or name others: --package-mirror NAME=URL",
                ),
            )
        return answer

    def _end_agents(self) -> None:
        """End the gpg-agents of dnf's keyrings: where an index is signed it starts one, and leaves it running."""
        for home in self.folder.glob("cache/*/pubring"):
            with suppress(FileNotFoundError):
                argv = ["gpgconf", "--homedir", str(home), "--kill", "all"]
                subprocess.run(argv, capture_output=True, check=False)

    def _no_dnf(self, found: str) -> OnpremError:
        return OnpremError(
            f"dnf is not on this machine ({found}), and only dnf says what the packages of {self.name} need",
            hint="apt-get install dnf createrepo-c (on the RHEL family: dnf install createrepo_c), or leave packages "
            "out: --skip packages",
        )


@contextmanager
def opened(system: System, mirrors: Mapping[str, str], keys: Mapping[str, str]) -> Iterator[DnfRoot]:
    """Give a release's dnf to one of us at a time: RefusedError says who has it. InvalidError without its mirror."""
    if system.os not in mirrors:
        layout = f"with {system.release}/BaseOS and {system.release}/AppStream in it"
        raise InvalidError(
            f"this machine knows no mirror of {system.os}",
            hint=f"name one: --package-mirror {system.os}=URL ({layout})",
        )
    folder = cache_folder() / "dnf" / f"{system.os}-{system.release}-{system.architecture}"
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / ".lock", f"the package lists of {system.os} {system.release}"):
        found: list[Mapping[str, object]] = []
        for one in wanted(system, mirrors):
            key = key_file(REPOSITORIES[one.name], system, mirrors[one.name], keys, folder / "keys")
            found += dnf_repositories(one, system, mirrors[one.name], key)
        yield DnfRoot(system, folder, tuple(found))
