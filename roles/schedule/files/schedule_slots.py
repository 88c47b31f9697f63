# SPDX-License-Identifier: Apache-2.0
"""The replicas of a deployment on this host: started, or stopped once no request runs on them."""

import http.client
import ssl
import subprocess
import time
import urllib.error
import urllib.request

IDLE_S = 15.0  # without a request before a replica stops; a gateway whose clock is behind by less costs nobody anything
LIMIT_S = 300  # of docker's commands
ANSWER_S = 5.0
RUNNING = ("running", "restarting", "paused")
COUNTED = ("vllm:num_requests_running", "vllm:num_requests_waiting")

# The engine's certificate is for the gateways, under another name; this asks its own machine.
UNVERIFIED = ssl.create_default_context()
UNVERIFIED.check_hostname = False
UNVERIFIED.verify_mode = ssl.CERT_NONE
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=UNVERIFIED))


class SlotError(Exception):
    """What docker said; for a person."""


def docker(*words):
    """Run docker and return its output. SlotError where it fails."""
    try:
        done = subprocess.run(
            ["docker", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SlotError(f"docker {words[0]}: {error}") from error
    said = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        raise SlotError("docker {} ended with {}: {}".format(" ".join(words[:2]), done.returncode, said[-500:]))
    return said


def states(project):
    """Return the states of a project's containers; none where it has none."""
    return docker("ps", "--all", "--filter", "label=onprem-llm.project=" + project, "--format", "{{.State}}").split()


def compose(project, path, *words):
    """Run docker compose on a project."""
    folder = ["--project-directory", path, "--file", path + "/compose.yaml", "--project-name", project]
    return docker("compose", *folder, *words)


def requests(url):
    """Return how many requests an engine has; None where that cannot be said, 0 where nothing listens there."""
    try:
        with OPENER.open(url, timeout=ANSWER_S) as answer:
            lines = answer.read().decode("utf-8", "replace").splitlines()
    except urllib.error.URLError as error:
        return 0 if isinstance(getattr(error, "reason", None), ConnectionRefusedError) else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    counts = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(COUNTED)]
    return int(sum(counts)) if counts else None


class Slots:
    """Brings this host's replicas to what the table says, a look at a time."""

    def __init__(self, say):
        """`say` writes a line to the journal."""
        self.say = say
        self.idle = {}  # project -> since when nothing runs on it

    def look(self, table, running, begun):
        """Start and stop what can be now; return whether there is something to wait for.

        `running`: all that are to run. `begun`: when this began, in seconds since 1970: `drain` seconds later a
        replica is stopped whatever runs on it.
        """
        pending, problems = False, []
        for project, slot in sorted(table.slots.items()):
            try:
                pending = self._look_at(table, project, slot, running, begun) or pending
            except SlotError as error:  # the others do what is due all the same
                problems.append(f"{project}: {error}")
        if problems:
            raise SlotError("; ".join(problems))
        return pending

    def _look_at(self, table, project, slot, running, begun):
        """Start or stop one replica if that can be now; return whether there is something to wait for."""
        on = any(state in RUNNING for state in states(project))
        if project not in running:
            return on and not self._stopped(table, project, slot, begun)
        self.idle.pop(project, None)
        if not on:
            self.say(f"{project}: started, as the schedule says")
            compose(project, slot["path"], "up", "--detach", "--no-recreate")
        return False

    def _stopped(self, table, project, slot, begun):
        """Stop a replica where it is idle, or its time is over; return whether it was."""
        count, now = requests(slot["metrics"]), time.time()
        if count != 0:
            self.idle.pop(project, None)
        idle = count == 0 and now - self.idle.setdefault(project, now) >= IDLE_S
        if not idle and now < begun + table.drain:
            return False
        left = "no request runs on it" if idle else f"its requests had {table.drain} s to end"
        self.say(f"{project}: stopped, as the schedule says; {left}")
        compose(project, slot["path"], "stop")
        self.idle.pop(project, None)
        return True
