"""The machine's docker engine, through the docker SDK: DOCKER_HOST, TLS and docker's contexts as the user set them up.

Importing the SDK takes 0.1 s: only what `lab` commands use may import this module.
"""

import functools
import io
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import ParamSpec, TypeVar

import docker
from docker.errors import APIError, BuildError, DockerException, NotFound
from docker.models.containers import Container
from requests.exceptions import RequestException

from onprem_llm.errors import OnpremError
from onprem_llm.lab.gpu.stand_in import File

# Every container, volume and network of a lab carries this label; its value is the lab's name.
LABEL = "onprem-llm.lab"

# The longest silence of a call: a build's slowest step, an `exec` that waits for a boot.
TIMEOUT_S = 900

P = ParamSpec("P")
T = TypeVar("T")


@functools.cache
def client() -> docker.DockerClient:
    """Return the client; OnpremError unless a docker engine answers."""
    try:
        made = docker.from_env(timeout=TIMEOUT_S, use_ssh_client=True)
        made.ping()
    except (DockerException, RequestException) as error:
        start = "sh images/ensure-engine.sh (as root: it installs and starts one), or start your own"
        denied = "run as root, or add yourself to the group docker"
        raise OnpremError(
            "no docker engine answers, and rehearsal hosts are containers on one",
            details=str(error),
            hint=denied if "Permission denied" in str(error) else start,
        ) from None
    return made


def explained(work: Callable[P, T]) -> Callable[P, T]:
    """Decorate what calls the engine: the SDK's errors become OnpremErrors with what the engine said."""

    @functools.wraps(work)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return work(*args, **kwargs)
        except BuildError as error:
            log = "".join(str(line.get("stream", "")) for line in error.build_log)
            details = "\n".join([*log.strip().splitlines()[-6:], str(error)])
            raise OnpremError("docker could not build the host image", details=details) from None
        except (DockerException, RequestException) as error:
            said = str(error.explanation if isinstance(error, APIError) else error)
            hint = "free some disk: docker system df" if "no space left" in said else None
            raise OnpremError("docker failed", details=said, hint=hint) from None

    return wrapper


def find(name: str) -> Container | None:
    """Return the container of that name; None if there is none."""
    try:
        return client().containers.get(name)
    except NotFound:
        return None


def labelled(lab: str) -> dict[str, str | list[str] | bool]:
    """Return a filter for what belongs to a lab, as the SDK's `list` functions take it."""
    return {"label": f"{LABEL}={lab}"}


def exec_root(container: str, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run `argv` as root in `container`, without its sshd; exit code 1 if it is switched off."""
    api = client().api
    try:
        run = api.exec_create(container, list(argv))["Id"]
        out, err = api.exec_start(run, demux=True)
        code = api.exec_inspect(run)["ExitCode"]
    except APIError as error:
        return subprocess.CompletedProcess(list(argv), 1, "", str(error.explanation))
    texts = [(part or b"").decode(errors="replace") for part in (out, err)]
    return subprocess.CompletedProcess(list(argv), 1 if code is None else code, *texts)


def put(container: str, files: Sequence[File]) -> None:
    """Put files into a running container, owned by root; what is there is overwritten."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for file in files:
            entry, content = tarfile.TarInfo(file.path.lstrip("/")), file.text.encode()
            entry.size, entry.mode = len(content), file.mode
            tar.addfile(entry, io.BytesIO(content))
    # Made here, since folders that docker makes while it unpacks are not always readable for everybody.
    exec_root(container, ["mkdir", "-p", *sorted({str(PurePosixPath(file.path).parent) for file in files})])
    client().api.put_archive(container, "/", archive.getvalue())
