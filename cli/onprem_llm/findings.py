"""What was looked at on hosts, and how it is laid out: one line for all hosts of which the same is true."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.output import table_text

COLUMNS = ("host", "check", "level", "found", "expected")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at on a host; `level` is ok, warning or error, `remedy` empty where all is well."""

    host: str
    role: str
    check: str
    level: str
    found: str
    expected: str
    remedy: str


def findings_of(host: str, raw: object) -> tuple[Finding, ...]:
    """Read the findings that a role returned."""
    entries = [entry for entry in raw if is_mapping(entry)] if is_list(raw) else []
    names = ("role", "check", "level", "found", "expected", "remedy")
    return tuple(Finding(host, *(str(entry.get(name) or "") for name in names)) for entry in entries)


def findings_table(
    every: Sequence[Finding], *, always: Collection[str], verbose: bool, columns: Sequence[str] = COLUMNS
) -> str:
    """Lay out what needs a person's eye and checks that are `always` shown, what to do, and the number of the rest."""
    shown = [finding for finding in every if verbose or finding.level != "ok" or finding.check in always]
    alike: dict[Finding, list[str]] = {}
    for finding in shown:
        alike.setdefault(replace(finding, host=""), []).append(finding.host)
    rows = [[names(hosts), f.check, f.level, f.found, f.expected] for f, hosts in alike.items()]
    parts = [table_text(columns, rows)] if rows else []
    by_remedy: dict[tuple[str, str], list[str]] = {}
    for one, hosts in alike.items():
        if one.remedy:
            into = by_remedy.setdefault((one.check, one.remedy), [])
            into += [host for host in hosts if host not in into]
    remedies = [f"  {check} ({names(hosts)}): {remedy}" for (check, remedy), hosts in by_remedy.items()]
    parts += ["\n".join(["What to do:", *remedies])] if remedies else []
    if len(shown) < len(every):
        parts.append(f"{len(every) - len(shown)} more checks passed; --verbose shows them.")
    return "\n\n".join(parts)


def names(hosts: Sequence[str]) -> str:
    """Name the hosts, or count them where they are many."""
    return ", ".join(hosts) if len(hosts) <= 4 else f"{len(hosts)} hosts ({hosts[0]} …)"


def by_level(findings: Mapping[str, Sequence[Finding]], level: str) -> list[str]:
    """Return the hosts that have a finding of this level."""
    return [host for host, those in findings.items() if any(one.level == level for one in those)]
