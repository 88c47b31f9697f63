"""A report of a check: findings and facts of every host, as it is printed, saved and read again."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from onprem_llm.errors import InvalidError
from onprem_llm.findings import Finding, findings_of
from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.run_events import HostFailure

KIND = "onprem-llm-check"
SCHEMA = 1


@dataclass(frozen=True)
class Report:
    """What was found: host -> findings, host -> the facts that the role returned, and the hosts that did not answer."""

    made_at: str
    """When, in ISO 8601, UTC."""
    findings: Mapping[str, tuple[Finding, ...]]
    facts: Mapping[str, Mapping[str, object]]
    failures: tuple[HostFailure, ...] = ()
    network: Mapping[str, object] | None = None
    """The lines between the hosts, as checks/network.py reads them; None where they were not measured."""

    def as_document(self) -> dict[str, object]:
        """Return what --json prints and --save writes."""
        network = {"network": self.network} if self.network is not None else {}
        return {
            "kind": KIND,
            "schema": SCHEMA,
            "made_at": self.made_at,
            "hosts": {
                host: {"findings": [asdict(one) for one in those], "facts": self.facts.get(host, {})}
                for host, those in self.findings.items()
            },
            "failures": [asdict(failure) for failure in self.failures],
            **network,
        }

    def as_bytes(self) -> bytes:
        """Return the document as a file has it."""
        return (json.dumps(self.as_document(), indent=1, ensure_ascii=False) + "\n").encode()


def read_report(path: Path, *, network: bool = False) -> Report:
    """Read a saved report; InvalidError for what is none, or none of this version's.

    `network`: its lines between hosts are wanted, so it is a check with --network that a person is told of.
    """
    hint = f"name a file that `onprem-llm check {'--network ' if network else ''}--save FILE` has written"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidError(f"{path}: {error.strerror or error}", hint=hint) from None
    except ValueError as error:
        raise InvalidError(f"{path}: found no JSON ({error}), expected a report of a check", hint=hint) from None
    if not is_mapping(document) or document.get("kind") != KIND or not is_mapping(document.get("hosts")):
        raise InvalidError(f"{path}: found another document, expected a report of a check (kind: {KIND})", hint=hint)
    if document.get("schema") != SCHEMA:
        found = document.get("schema")
        raise InvalidError(
            f"{path}: found schema {found!r}, expected {SCHEMA}",
            hint="save a report again with this version of onprem-llm",
        )
    return _report(document)


def _report(document: Mapping[str, object]) -> Report:
    hosts = {str(name): host for name, host in _mapping(document["hosts"]).items() if is_mapping(host)}
    failures = document.get("failures")
    entries = [one for one in failures if is_mapping(one)] if is_list(failures) else []
    return Report(
        made_at=str(document.get("made_at") or "an unknown time"),
        findings={name: findings_of(name, host.get("findings")) for name, host in hosts.items()},
        facts={name: _mapping(host.get("facts")) for name, host in hosts.items()},
        failures=tuple(
            HostFailure(
                str(one.get("host") or ""),
                str(one.get("task") or ""),
                str(one.get("message") or ""),
                unreachable=bool(one.get("unreachable")),
            )
            for one in entries
        ),
        network=network if is_mapping(network := document.get("network")) else None,
    )


def _mapping(value: object) -> Mapping[str, object]:
    return value if is_mapping(value) else {}
