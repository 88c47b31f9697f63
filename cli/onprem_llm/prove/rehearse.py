"""The rehearsal itself: each phase timed and marked, each attempt to get out written down, no host left at the end."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from onprem_llm.errors import OnpremError
from onprem_llm.prove import cluster, site_inventory
from onprem_llm.prove import hosts as lab_hosts
from onprem_llm.prove.course import Course
from onprem_llm.prove.likeness import Likeness
from onprem_llm.prove.page import fetch
from onprem_llm.prove.proof import Kind, Phase, Proof
from onprem_llm.prove.tool import Ended
from onprem_llm.spec.deployment import Deployment, parse_deployment
from onprem_llm.spec.lock import FILE as LOCK
from onprem_llm.spec.lock import Lock, LockedDeployment, read_lock
from onprem_llm.spec.site import PREFIX
from onprem_llm.stop_signals import no_stops

QUESTION = "What is the highest mountain?"
ANSWERING = {"chat", "completion"}
PAGE = "open-webui"
# Bootstrap leaves it beside the inventory, and never writes over another one's.
ROOT_CERTIFICATE = "onprem-llm-ca.crt"


class Tool(Protocol):
    """Runs onprem-llm."""

    def __call__(self, *words: str) -> Ended:
        """Run a command; OnpremError where it fails."""


@dataclass(frozen=True)
class Asked:
    """What a rehearsal is of: the bundle's folders, who may have signed them, the inventory as it is on site.

    `bases` are the bundles that the site has already, in the order in which they came.
    `vaults` are the files with the passwords of what is encrypted in it.
    `site` is the folder that the bundle is loaded into, `settle` how many seconds are watched after the last answer.
    """

    folders: tuple[Path, ...]
    allowed: Path
    facts: tuple[Path, ...]
    bases: tuple[Path, ...]
    groups: dict[str, tuple[str, ...]]
    given: dict[str, dict[str, Any]]
    likeness: Callable[[Lock], Likeness]
    site: Path
    lab: str
    settle: float
    keep: bool = False
    vaults: tuple[Path, ...] = ()


class Rehearsal:
    """One rehearsal; `run` fills the proof, and raises nothing but what stops it from outside."""

    def __init__(self, asked: Asked, proof: Proof, tool: Tool, say: Callable[[str], None]) -> None:
        """Begin nothing yet."""
        self._asked, self._proof, self._tool, self._say = asked, proof, tool, say
        self._hosts: lab_hosts.Hosts | None = None
        self._deployments: dict[str, Deployment] = {}
        passwords = [word for path in asked.vaults for word in ("--vault-password-file", str(path))]
        self._inventory = ["-i", str(asked.site / site_inventory.FILE), *passwords]
        self._course = Course(proof, self._received, say)
        self._phase = self._course.phase

    def run(self) -> OnpremError | None:
        """Go through the phases up to the first that fails; look at the attempts; take the hosts down.

        Return why they are still there, where they could not be removed: that is no fault of the bundle's.
        """
        lock = self._load()
        if lock is None:
            return None
        try:
            self._use(lock)
            self._watch()
        except BaseException:
            if trouble := self._down():
                self._say(trouble.message)
            raise
        return self._down()

    def _received(self) -> int | None:
        try:
            return self._hosts.received() if self._hosts else None
        except (OnpremError, OSError):
            return None  # a number in a table is not worth the rehearsal

    def _load(self) -> Lock | None:
        """Verify and load; None where that failed."""
        signed = ["--allowed-signers", str(self._asked.allowed), "--json"]
        folders = [str(path) for path in self._asked.folders]
        with self._phase("verify") as phase:
            self._bundle(phase, self._tool("bundle", "verify", *folders, *signed).json)
        if self._course.failed:
            return None
        place = ["--to", str(self._asked.site)]
        for base in self._asked.bases:
            with self._phase(f"load {base.name}", note="what the site has already") as phase:
                self._bundle(phase, self._tool("bundle", "load", str(base), *place, *signed).json)
            if self._course.failed:
                return None
        facts = [word for path in self._asked.facts for word in ("--facts", str(path))]
        with self._phase("load") as phase:
            self._bundle(phase, self._tool("bundle", "load", *folders, *place, *facts, *signed).json)
            lock = read_lock(self._asked.site / LOCK)
            self._deployments = {one.name: parse_deployment(one.text, one.file) for one in lock.deployments}
            return lock
        return None

    @staticmethod
    def _bundle(phase: Phase, report: dict[str, Any]) -> None:
        phase.bytes = int(report["bytes"])
        phase.digests = {name: report[f"{name}_sha256"] for name in ("manifest", "lock")}
        phase.found = {"files": report["files"], "signer": report["signer"], "result": report["result"]}
        if report["result"] != "whole":
            raise OnpremError(f"the bundle is {report['result']}", details=f"absent: {report.get('absent_volumes')}")

    def _use(self, lock: Lock) -> None:
        with self._phase("hosts", "substituted", "containers on a network with no way out"):
            likeness = self._asked.likeness(lock)
            self._proof.substitutes += likeness.substitutes
            self._hosts = lab_hosts.up(self._asked.lab, likeness, self._asked.site.parent, self._say)
            self._describe(likeness)
            self._proof.watched = self._hosts.probe()
        if not self._course.failed:
            self._bootstrap(likeness)
        if not self._course.failed and cluster.has_cluster(self._asked.given.values(), lock):
            self._cluster()
        for one in lock.deployments:
            if not self._course.failed:
                self._deploy(one, lock)
        if not self._course.failed and lock.deployments:
            self._page()

    def _describe(self, likeness: Likeness) -> None:
        hosts = self._hosts
        if hosts is None:
            return
        data, changed = site_inventory.inventory_data(
            self._asked.groups, self._asked.given, hosts.reach, self._asked.site, hosts.lab.subnet
        )
        site_inventory.write(data, self._asked.site)
        self._proof.substitutes += changed
        self._proof.hosts = [
            {"name": one.name, "system": likeness.os, "gpus": one.gpus, "address": hosts.addresses[one.name]}
            for one in likeness.hosts
        ]

    def _bootstrap(self, likeness: Likeness) -> None:
        if likeness.ready:
            note = f"no packages for {likeness.os} in the bundle: hosts that have them already"
            self._course.untried("packages", note)
        (self._asked.site / ROOT_CERTIFICATE).unlink(missing_ok=True)
        kind: Kind = "substituted" if likeness.ready else "real"
        with self._phase("bootstrap", kind, "on hosts with the packages" if likeness.ready else None) as phase:
            phase.found = {"gateway": self._tool("bootstrap", *self._inventory, "--yes", "--json").json["gateway"]}

    def _cluster(self) -> None:
        """Bring the Ray cluster up: a deployment may go there, and its image is in the bundle."""
        if self._is_elsewhere:
            self._course.untried(cluster.PHASE, cluster.ELSEWHERE)
            return
        if not cluster.has_head(self._asked.groups):
            self._course.untried(cluster.PHASE, cluster.NO_HEAD)
            return
        with self._phase(cluster.PHASE) as phase:
            self._tool("cluster", "up", *self._inventory, "--yes", "--json")
            phase.found = cluster.joined(self._tool("cluster", "status", *self._inventory, "--json").json)

    def _deploy(self, locked: LockedDeployment, lock: Lock) -> None:
        deployment = self._deployments[locked.name]
        lies = str(self._asked.site / LOCK)
        asked = [str(self._asked.site / locked.file), "--locked", lies, *self._inventory, "--json"]
        if deployment.backend == "ray" and self._is_elsewhere:
            self._not_deployed(locked, cluster.ELSEWHERE)
            return
        if deployment.resources.gpus:
            with self._phase(f"plan {locked.name}"):
                self._tool("plan", *asked)
            self._not_deployed(locked, "needs GPUs, and those of these hosts compute nothing")
            return
        with self._phase(f"deploy {locked.name}") as phase:
            phase.digests = _digests(locked, deployment, lock)
            self._tool("deploy", *asked, "--yes")
        if not self._course.failed:
            self._first_token(deployment)

    @property
    def _is_elsewhere(self) -> bool:
        """Whether somebody else runs the site's Ray cluster."""
        return any(cluster.elsewhere(variables.get(PREFIX)) for variables in self._asked.given.values())

    def _not_deployed(self, locked: LockedDeployment, note: str) -> None:
        self._course.untried(f"deploy {locked.name}", note)
        self._course.untried(f"first token {locked.name}", note)

    def _first_token(self, deployment: Deployment) -> None:
        name = f"first token {deployment.name}"
        if deployment.task not in ANSWERING:
            self._course.untried(name, f"its task is {deployment.task}")
            return
        with self._phase(name) as phase:
            words = [QUESTION, "--deployment", deployment.name, "--max-tokens", "16", *self._inventory, "--json"]
            answer = str(self._tool("chat", *words).json["answer"])
            phase.found = {"question": QUESTION, "answer": answer}
            if not answer.strip():
                raise OnpremError("it answered with nothing")

    def _page(self) -> None:
        with self._phase("page") as phase:
            rows = self._tool("status", *self._inventory, "--json").json["replicas"]
            address = next((row["address"] for row in rows if row["project"] == PAGE), None)
            if address is None:
                phase.kind, phase.note = "not tried", "no page is deployed: no chat model, or switched off"
                return
            title, phase.bytes = fetch(f"http://{address}/")
            phase.found = {"title": title}

    def _watch(self) -> None:
        """Wait for what comes late, then read the recorders, and see that they still see."""
        if self._hosts is None:
            return
        with self._phase("watch", note=f"{self._asked.settle:.0f} s after the last answer"):
            time.sleep(0 if self._course.failed else self._asked.settle)
            later = self._hosts.probe()
            self._proof.watched = {name: self._proof.watched.get(name) or later[name] for name in later}
            self._proof.attempts = self._hosts.attempts()

    def _down(self) -> OnpremError | None:
        """Remove the hosts; a second Ctrl-C does not stop that. Return why it could not be done."""
        if self._asked.keep and self._hosts is not None:
            self._say(f"The hosts are up until: onprem-llm lab down --name {self._asked.lab}")
            self._say(f"Their inventory, with the site's settings: {self._asked.site / site_inventory.FILE}")
            return None
        with no_stops():
            try:
                # The site's settings stay nowhere: not all of them are for everybody.
                (self._asked.site / site_inventory.FILE).unlink(missing_ok=True)
                lab_hosts.down(self._asked.lab, self._asked.site.parent, self._say)
            except OnpremError as error:
                return error
        return None


def _digests(locked: LockedDeployment, deployment: Deployment, lock: Lock) -> dict[str, str]:
    image = lock.image(deployment.engine.image)
    return {
        locked.file: f"sha256:{locked.sha256}",
        **({deployment.engine.image: image.digest} if image else {}),
        "weights": locked.weights,
    }
