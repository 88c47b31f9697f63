"""What a rehearsal showed: phases, attempts, verdict; as proof.json (canonical, signed) and as text."""

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from onprem_llm import __version__
from onprem_llm.bundle import layout
from onprem_llm.bundle.signing import PROOF, sign
from onprem_llm.lab.attempts import Attempt
from onprem_llm.output import human_bytes, human_seconds, table_text
from onprem_llm.prove.cluster import PHASE as CLUSTER
from onprem_llm.prove.explained import why
from onprem_llm.prove.likeness import Substitute
from onprem_llm.whole_files import PARTIAL, write_whole

SCHEMA = 1
FILE, SIGNATURE, TEXT = layout.PROOF

Kind = Literal["real", "substituted", "not tried"]


@dataclass
class Phase:
    """A phase: what was done, how near to the real thing, how long (s), how many bytes, and what came of it.

    `note` says what was substituted, or why it was not tried; `error` why it failed.
    """

    name: str
    kind: Kind
    note: str | None = None
    began: str | None = None
    seconds: float | None = None
    bytes: int | None = None
    digests: dict[str, str] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def result(self) -> str:
        """Say it in a word."""
        return "not tried" if self.kind == "not tried" else "failed" if self.error else "ok"


@dataclass
class Proof:
    """Everything that a rehearsal showed; times as ISO 8601 in UTC."""

    bundle: str
    inventory: str
    began: str
    phases: list[Phase] = field(default_factory=list)
    substitutes: list[Substitute] = field(default_factory=list)
    hosts: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    watched: dict[str, str | None] = field(default_factory=dict)
    """Host → why its recorder cannot be believed; None: it can. Empty: nothing was watched."""
    ended: str | None = None

    @property
    def unexplained(self) -> list[Attempt]:
        """Return the attempts that no entry of the table explains."""
        return [one for one in self.attempts if why(one) is None]

    @property
    def reasons(self) -> list[str]:
        """Return why this is no proof; none where it passed."""
        found = [f"{phase.name}: {phase.error.partition(chr(10))[0]}" for phase in self.phases if phase.error]
        found += [f"{host}: {problem}" for host, problem in self.watched.items() if problem]
        if not self.watched and not found:
            found.append("no host was watched")
        found += [f"{one.host} tried to reach {one.where}: {one.who}" for one in self.unexplained]
        if not found and not self._did_what_it_is_for:
            found.append("no deployment answered: none was tried on these hosts")
        return found

    @property
    def _did_what_it_is_for(self) -> bool:
        """Tell whether a deployment answered; of a bundle for a Ray cluster alone, whether that came up."""
        of = [phase for phase in self.phases if phase.name.startswith("first token")] or [
            phase for phase in self.phases if phase.name == CLUSTER
        ]
        return any(phase.result == "ok" for phase in of)

    @property
    def verdict(self) -> str:
        """Say whether it passed."""
        return "failed" if self.reasons else "passed"

    def as_json(self) -> dict[str, Any]:
        """Return the document."""
        attempts = [{**asdict(one), "explained": why(one), "phase": self._during(one.first)} for one in self.attempts]
        return {
            "schema_version": SCHEMA, "verdict": self.verdict, "reasons": self.reasons, "made_with": __version__,
            "bundle": self.bundle, "inventory": self.inventory, "began": self.began, "ended": self.ended,
            "phases": [{**asdict(phase), "result": phase.result} for phase in self.phases],
            "substitutes": [asdict(one) for one in self.substitutes], "hosts": self.hosts,
            "watched": self.watched, "attempts": attempts,
        }  # fmt: skip

    @property
    def data(self) -> bytes:
        """Return the canonical bytes: sorted keys, no spaces, a newline."""
        return json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"

    def _during(self, moment: str) -> str | None:
        """Name the last phase that had begun."""
        time = datetime.fromisoformat(moment)
        begun = [phase for phase in self.phases if phase.began and datetime.fromisoformat(phase.began) <= time]
        return begun[-1].name if begun else None

    @property
    def text(self) -> str:
        """Return the report for people."""
        return "\n\n".join(
            part for part in (self._phases(), self._substitutes(), self._attempts(), self._verdict()) if part
        )

    def _phases(self) -> str:
        rows = [
            [
                phase.name, phase.kind, phase.result, None if phase.seconds is None else human_seconds(phase.seconds),
                None if phase.bytes is None else human_bytes(phase.bytes), phase.note,
            ]
            for phase in self.phases
        ]  # fmt: skip
        return table_text(["phase", "how", "result", "time", "size", "note"], rows)

    def _substitutes(self) -> str:
        rows = [[one.host or "all", one.what, one.on_site, one.here] for one in self.substitutes]
        return "Substitutes:\n" + table_text(["host", "what", "on site", "here"], rows) if rows else ""

    def _attempts(self) -> str:
        if not self.attempts:
            return "Attempts to reach the outside: none." if self.watched else ""
        rows = [
            [
                one.host,
                one.first[11:19],
                self._during(one.first),
                one.where,
                one.count,
                one.who,
                why(one) or "UNEXPLAINED",
            ]
            for one in self.attempts
        ]
        columns = ["host", "utc", "during", "outside", "times", "by", "why"]
        return "Attempts to reach the outside:\n" + table_text(columns, rows)

    def _verdict(self) -> str:
        lines = [f"Verdict: {self.verdict}"]
        lines += [f"  {reason}" for reason in self.reasons]
        untried = [phase.name for phase in self.phases if phase.kind == "not tried"]
        stood_in = [phase.name for phase in self.phases if phase.kind == "substituted"]
        lines += [f"  on substitutes: {', '.join(stood_in)}"] if stood_in else []
        lines += [f"  not tried: {', '.join(untried)}"] if untried else []
        return "\n".join(lines)


def forget(folder: Path) -> None:
    """Remove the proof of an earlier rehearsal: what stands there is always of the last one that was begun."""
    for name in layout.PROOF:
        (folder / name).unlink(missing_ok=True)
        (folder / f"{name}{PARTIAL}").unlink(missing_ok=True)


def write(proof: Proof, folder: Path, key: Path | None) -> Path:
    """Write proof.json, its signature where there is a key, and the text; whole or not at all, proof.json last."""
    forget(folder)
    data = proof.data
    write_whole(folder / TEXT, (proof.text + "\n").encode())
    if key is not None:
        write_whole(folder / SIGNATURE, sign(data, key, PROOF))
    write_whole(folder / FILE, data)
    return folder / FILE
