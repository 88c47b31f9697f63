"""Plain ssh with the settings that the inventory gives: for output that streams, where Ansible is the wrong tool."""

import os
import shlex
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError, UnreachableError
from onprem_llm.private_files import askpass
from onprem_llm.remedies import remedy

# ssh's own failure; anything else is the program's.
SSH_FAILED = 255
SUDO_ASKS = "onprem-llm: Missing sudo password"

# sudo's password comes twice, as the first two lines of stdin: sudo asks again after a wrong one, and would wait for
# ever, so it is tried first. `sudo -n` succeeds where none is needed; `-k` makes sudo take the line even where it
# remembers the person.
AS_ROOT = f"""
IFS= read -r word
if [ "$(id -u)" = 0 ]; then IFS= read -r word; exec "$@"
elif ! command -v sudo >/dev/null; then echo "sudo: command not found" >&2; exit 127
elif sudo -n true 2>/dev/null; then IFS= read -r word; exec sudo -n -- "$@"
elif [ "$ASK" = no ]; then echo "{SUDO_ASKS}" >&2; exit 1
elif ! printf "%s\\n" "$word" | sudo -k -S -p '' true; then exit 1
else exec sudo -k -S -p '' -- "$@"
fi
"""

# Runs the program in a session of its own and ends it when our side is gone: then stdin ends. The line of stdin
# after those is the program's own stdin in base64: a shell reads a line byte by byte, so nothing after it is swallowed.
# dash knows no `kill -- -GROUP`. Before setsid has run there is no group yet.
WATCHED = """
exec 3<&0
IFS= read -r data <&3
printf %s "$data" | base64 -d | setsid "$@" 3<&- &
child=$!
{ cat <&3 >/dev/null; kill -TERM "-$child" || kill -TERM "$child"; } 2>/dev/null >&2 &
watcher=$!
exec 3<&-
wait "$child"; code=$?
kill "$watcher" 2>/dev/null
exit "$code"
"""


@dataclass(frozen=True)
class Route:
    """How one host is reached; see playbooks/routes.yml."""

    host: str
    local: bool
    address: str
    port: str | None
    user: str | None
    key: Path | None
    options: tuple[str, ...]
    """What the inventory adds for this host: a jump host, a known_hosts file."""
    defaults: tuple[str, ...] = ()
    """What ansible.cfg says for all hosts."""
    groups: tuple[str, ...] = ()
    password: str | None = field(default=None, repr=False)
    become_password: str | None = field(default=None, repr=False)

    @property
    def arguments(self) -> list[str]:
        """Return ssh's options and the address; a program's command line may follow. Nothing in it can ask a person."""
        words = ["-o", "StrictHostKeyChecking=yes"] if not self._checking_named else []
        words += ["-o", f"BatchMode={'no' if self.password else 'yes'}", "-o", "NumberOfPasswordPrompts=1"]
        # A shared ssh master is not used: it outlives a Ctrl-C.
        words += ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
        words += [*self.person, *self.options, *self.defaults]
        # Last, so that the inventory's count first: a host that is off must not hold us for minutes.
        words += ["-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"]
        return [*words, self.address]

    @property
    def person(self) -> list[str]:
        """Return who we are there: port, user and key."""
        words = ["-o", f"Port={self.port}"] if self.port else []
        words += ["-o", f"User={self.user}"] if self.user else []
        words += ["-o", f"IdentityFile={self.key}"] if self.key else []
        return words

    @property
    def _checking_named(self) -> bool:
        return any("stricthostkeychecking" in word.lower() for word in (*self.options, *self.defaults))


def routes(connection: Connection, hosts: Sequence[str] | None = None) -> dict[str, Route]:
    """Ask Ansible how hosts are reached, in the inventory's order; None: all in the limit. 0.9 s, no host is asked."""
    from onprem_llm.runner import run

    result = run("routes.yml", connection, hosts=hosts, unlogged=True)
    silent = [host for host in result.hosts if "route" not in result.returned.get(host, {})]
    if silent:
        raise OnpremError(
            f"Ansible cannot say how these hosts are reached: {', '.join(silent)}",
            details="\n".join(f"{failure.host}: {failure.message}" for failure in result.failures) or None,
            hint=f"see which variable has no value: ansible-inventory -i {connection.inventory} --host {silent[0]}",
        )
    return {host: _route(host, result.returned[host]["route"], connection) for host in result.hosts}


def _route(host: str, found: Mapping[str, Any], connection: Connection) -> Route:
    options = shlex.split(f"{found['common_arguments'] or ''} {found['extra_arguments'] or ''}")
    key = found["key"] or connection.private_key
    return Route(
        host=host,
        local=found["connection"] in ("local", "ansible.builtin.local"),
        address=str(found["address"]),
        port=str(found["port"]) if found["port"] else None,
        user=found["user"] or None,
        key=Path(key).expanduser() if key else None,
        options=tuple(options),
        groups=tuple(found["groups"]),
        defaults=tuple(shlex.split(found["arguments"] or "")),
        password=found["password"] or connection.ssh_password or _password_named("ANSIBLE_CONNECTION_PASSWORD_FILE"),
        become_password=found["become_password"]
        or connection.become_password
        or _password_named("ANSIBLE_BECOME_PASSWORD_FILE"),
    )


def _password_named(variable: str) -> str | None:
    """Read a password where ansible would: a plain file that the user's environment names."""
    path = os.environ.get(variable)
    if not path or os.access(path, os.X_OK) or not Path(path).is_file():
        return None
    return Path(path).read_text(encoding="utf-8").strip()


def stream(host: str, argv: Sequence[str], connection: Connection, *, stdin: bytes = b"") -> Iterator[bytes]:
    """Run `argv` as root on a host and yield its stdout as it comes. Closing the iterator ends the remote program.

    Raises UnreachableError where ssh fails, OnpremError with the program's stderr where its exit code is not 0.
    """
    yield from stream_route(routes(connection, [host])[host], argv, stdin=stdin)


def stream_route(route: Route, argv: Sequence[str], *, stdin: bytes = b"") -> Iterator[bytes]:
    """As `stream`, for a caller that follows many programs and has asked for the routes once."""
    with tempfile.TemporaryFile() as errors, started(route, argv, stdin, errors) as process:
        output = process.stdout
        if output is None:
            raise AssertionError("stdout is a pipe")
        while data := os.read(output.fileno(), 65536):
            yield data
        code = process.wait()
        if code:
            errors.seek(0)
            raise failure(route, argv, code, errors.read().decode(errors="replace").strip())


@contextmanager
def started(route: Route, argv: Sequence[str], stdin: bytes, errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program; at the end its stdin is closed, which ends it over there, and then ssh here."""
    with ExitStack() as stack:
        extra = stack.enter_context(askpass(route.password)) if route.password and not route.local else {}
        process = subprocess.Popen(
            command_line(route, argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "SSH_ASKPASS_REQUIRE": "never", **extra},
            # A Ctrl-C on our terminal reaches us alone, so that we end the other side first.
            start_new_session=True,
        )
        stack.callback(_end, process)
        _feed(process, f"{route.become_password or ''}\n".encode() * 2 + b64encode(stdin) + b"\n")
        yield process


def command_line(route: Route, argv: Sequence[str]) -> list[str]:
    """Return the exact command that is started here."""
    ask = "yes" if route.become_password else "no"
    words = ["env", f"ASK={ask}", "sh", "-c", AS_ROOT, "sh", "sh", "-c", WATCHED, "sh", *argv]
    return words if route.local else ["ssh", *route.arguments, shlex.join(words)]


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    if process.stdin is None:
        raise AssertionError("stdin is a pipe")
    try:
        process.stdin.write(data)
        process.stdin.flush()
    except BrokenPipeError:
        return  # it has ended already; its exit code and stderr say why


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream_end in (process.stdin, process.stdout):
        try:
            if stream_end:
                stream_end.close()
        except BrokenPipeError:
            continue
    try:
        process.wait(timeout=3)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()


def failure(route: Route, argv: Sequence[str], code: int, errors: str) -> OnpremError:
    """Return the error for a program, or for ssh itself, that ended with `code` and wrote `errors`."""
    last = "\n".join(errors.splitlines()[-20:])
    if code == SSH_FAILED and not route.local:
        kind: type[OnpremError] = UnreachableError
        message = f"{route.host}: ssh could not connect"
    else:
        kind, message = OnpremError, f"{route.host}: `{shlex.join(argv)}` ended with exit code {code}"
    return kind(message, details=last or None, hint=remedy(errors, route.host))
