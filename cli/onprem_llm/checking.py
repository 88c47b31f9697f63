"""Check hosts: a look at the GPUs of each, a trial in the image of its engines, and the lines between them."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from onprem_llm.checks.report import Report
from onprem_llm.checks.trial import trials
from onprem_llm.connection import Connection
from onprem_llm.findings import Finding, findings_of
from onprem_llm.output import Progress
from onprem_llm.probe_values import mapping
from onprem_llm.run_events import HostFailure
from onprem_llm.runner import run

if TYPE_CHECKING:
    from onprem_llm.networking import Measured


def check(
    connection: Connection, progress: Progress, *, image: str | None = None, try_image: bool = True,
    network: int | None = None,
) -> Report:  # fmt: skip
    """Return the report of every host; those that do not answer are its failures, not an exception.

    `try_image`: with a trial of the GPUs in the image of the engines there, else in `image`.
    `network`: measure the lines between hosts, so many seconds of bandwidth each way, and tell the gateway's book
    what is wrong with them.
    """
    result = run("check.yml", connection, progress=progress, title="Looking at GPUs and drivers")
    findings = {host: findings_of(host, values.get("findings")) for host, values in result.returned.items()}
    facts = {host: mapping(values.get("gpu_check")) for host, values in result.returned.items()}
    failures = result.failures
    if try_image:
        more, failed = _tried(connection, progress, facts, image)
        findings = {host: (*those, *more.get(host, ())) for host, those in findings.items()}
        failures = (*failures, *failed)
    lines: Measured | None = None
    if network is not None:
        lines, more = _measured(connection, progress, network, facts if try_image else {}, image)
        findings = {host: (*findings.get(host, ()), *more.get(host, ())) for host in {**findings, **more}}
        facts = {host: facts.get(host, {}) for host in findings}
        failures = (*failures, *(one for one in lines.failures if one.host not in {known.host for known in failures}))
    made_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    report = Report(made_at, findings, facts, failures, lines.document if lines else None)
    if lines is None:
        return report
    from onprem_llm.checks.network_kept import kept
    from onprem_llm.networking import keep

    untold = keep(connection, lines, kept(report, "this report"), progress)
    return replace(report, failures=(*report.failures, *untold))


def _measured(
    connection: Connection,
    progress: Progress,
    seconds: int,
    facts: Mapping[str, Mapping[str, object]],
    image: str | None,
) -> "tuple[Measured, dict[str, tuple[Finding, ...]]]":
    """Measure the lines; return what came of it, and findings.

    Where two hosts or more of `facts` have GPUs and an image for them, let them add up one tensor over the lines.
    """
    from onprem_llm.checks.network import network_of  # a check without it does without its parts
    from onprem_llm.checks.network_judge import judge
    from onprem_llm.networking import measure

    result = measure(connection, progress, seconds=seconds)
    known = network_of(result.document)
    found = judge(known)
    if any(one.get("gpus") for one in facts.values()):
        from onprem_llm.reducing import reduce  # hosts without GPUs do without

        for one in reduce(connection, progress, facts, known, image):
            found[one.host] = (*found.get(one.host, ()), one)
    return result, found


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
