"""Whether a host is well after its driver was changed, by what it said before and says now. Pure."""

from collections.abc import Mapping

from onprem_llm.checks.difference import changes
from onprem_llm.checks.report import Report
from onprem_llm.findings import findings_of
from onprem_llm.probe_values import mapping

Returned = Mapping[str, object]


def trouble(host: str, then: str, before: Returned, after: Returned) -> str | None:
    """Say what is worse than before: the driver, cards by UUID, what gpu_check judges. None: all is well."""
    runs = mapping(after.get("driver_upgrade")).get("loaded")
    if runs != then:
        return f"found that {f'driver {runs}' if runs else 'no driver'} runs, expected {then}"
    was, now = _report(host, before), _report(host, after)
    worse = [one for one in changes(was, now).get(host, ()) if one.level == "error" and one.check == "gpus"]
    known = {one.check for one in was.findings[host] if one.level == "error"}
    worse += [one for one in now.findings[host] if one.level == "error" and one.check not in known]
    if not worse:
        return None
    first = worse[0]
    return f"found {first.found}, expected {first.expected}. {first.remedy}".strip()


def _report(host: str, returned: Returned) -> Report:
    return Report("", {host: findings_of(host, returned.get("findings"))}, {host: mapping(returned.get("gpu_check"))})
