"""Check the hosts' GPUs: one look at every host, and one trial in the image of its engines where there is one."""

from collections.abc import Mapping
from datetime import UTC, datetime

from onprem_llm.checks.report import Report
from onprem_llm.checks.trial import trials
from onprem_llm.connection import Connection
from onprem_llm.findings import Finding, findings_of
from onprem_llm.output import Progress
from onprem_llm.probe_values import mapping
from onprem_llm.run_events import HostFailure
from onprem_llm.runner import run


def check(connection: Connection, progress: Progress, *, image: str | None = None, try_image: bool = True) -> Report:
    """Return the report of every host; those that do not answer are its failures, not an exception.

    `try_image`: with a trial of the GPUs in the image of the engines there, else in `image`.
    """
    result = run("check.yml", connection, progress=progress, title="Looking at GPUs and drivers")
    findings = {host: findings_of(host, values.get("findings")) for host, values in result.returned.items()}
    facts = {host: mapping(values.get("gpu_check")) for host, values in result.returned.items()}
    failures = result.failures
    if try_image:
        more, failed = _tried(connection, progress, facts, image)
        findings = {host: (*those, *more.get(host, ())) for host, those in findings.items()}
        failures = (*failures, *failed)
    made_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Report(made_at, findings, facts, failures)


def _tried(
    connection: Connection, progress: Progress, facts: Mapping[str, Mapping[str, object]], image: str | None
) -> tuple[dict[str, tuple[Finding, ...]], tuple[HostFailure, ...]]:
    """Try the GPUs of every host that has an image for it; return findings, and the hosts that failed meanwhile."""
    orders: dict[str, Mapping[str, object]] = {}
    found: dict[str, tuple[Finding, ...]] = {}
    for host, known in facts.items():
        wanted, notes = trials(host, known, image)
        found[host] = tuple(notes)
        if wanted:
            orders[host] = {"trials": wanted}
    if not orders:
        return found, ()
    from onprem_llm.seam import run_folder, write_orders  # 250 ms, all of planning: a look alone does without

    with run_folder() as folder:
        result = run(
            "try_gpus.yml",
            connection,
            hosts=list(orders),
            variables={"onprem_llm_order_file": str(write_orders(folder, 0, orders))},
            progress=progress,
            title="Trying the GPUs in the engines' image",
        )
    for host, values in result.returned.items():
        found[host] = (*found.get(host, ()), *findings_of(host, values.get("trials")))
    return found, result.failures
