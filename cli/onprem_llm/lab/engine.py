"""The machine's docker engine, by its command line: contexts, DOCKER_HOST and TLS then work as the user set them up."""

import json
import subprocess
from collections.abc import Sequence

from onprem_llm.errors import OnpremError

# Every container, volume and network of a lab carries this label; its value is the lab's name.
LABEL = "onprem-llm.lab"


def docker(*argv: str, stdin: str | None = None, timeout_s: float = 120) -> str:
    """Run `docker ARGV` and return its stdout; OnpremError with its last lines when it fails."""
    done = _run(["docker", *argv], stdin=stdin, timeout_s=timeout_s)
    if done.returncode != 0:
        raise OnpremError(f"docker {argv[0]} failed", details=_tail(done.stderr), hint=_hint(done.stderr))
    return done.stdout.strip()


def require_engine() -> None:
    """Raise OnpremError unless a docker engine answers."""
    done = _run(["docker", "version", "--format", "{{.Server.Version}}"], stdin=None, timeout_s=30)
    if done.returncode != 0 or not done.stdout.strip():
        raise OnpremError(
            "no docker engine answers, and rehearsal hosts are containers on one",
            details=_tail(done.stderr),
            hint=_hint(done.stderr)
            or "sh images/ensure-engine.sh (as root: it installs and starts one), or start your own",
        )


def exec_root(container: str, argv: Sequence[str], *, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `argv` as root in `container`, without its sshd; the caller looks at the exit code."""
    flags = ["--interactive"] if stdin is not None else []
    return _run(["docker", "exec", *flags, container, *argv], stdin=stdin, timeout_s=600)


def inspect(kind: str, name: str) -> dict[str, object] | None:
    """Return what docker knows of a `container`, `image`, `network` or `volume`; None if there is none of that name."""
    done = _run(["docker", kind, "inspect", name], stdin=None, timeout_s=60)
    if done.returncode != 0:
        return None
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found[0] if found else None


def labelled(kind: str, lab: str) -> list[str]:
    """Return the names of the `container`s, `volume`s or `network`s of a lab, sorted."""
    flags = ["--all"] if kind == "container" else []
    column = "{{.Names}}" if kind == "container" else "{{.Name}}"
    lines = docker(kind, "ls", *flags, "--filter", f"label={LABEL}={lab}", "--format", column)
    return sorted(lines.split())


def _run(command: list[str], *, stdin: str | None, timeout_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, input=stdin or "", capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except FileNotFoundError:
        raise OnpremError("there is no `docker` command", hint="sh images/ensure-engine.sh installs docker") from None
    except subprocess.TimeoutExpired:
        raise OnpremError(f"{' '.join(command[:3])}: no answer within {timeout_s:.0f} s") from None


def _hint(stderr: str) -> str | None:
    if "no space left" in stderr:
        return "free some disk: docker system df"
    if "permission denied" in stderr and ".sock" in stderr:
        return "run as root, or add yourself to the group docker"
    return None


def _tail(text: str, lines: int = 6) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
