"""`onprem-llm bootstrap`: checks, container engine, GPU checks, on every host."""

import sys
from dataclasses import asdict, replace

import click

from onprem_llm import output
from onprem_llm.bootstrapping import Prepared, Report, carry_out, prepare
from onprem_llm.certificates import hand_over
from onprem_llm.connection import Connection
from onprem_llm.errors import UsageError
from onprem_llm.findings import Finding, findings_table
from onprem_llm.options import connection_options
from onprem_llm.rebooting import reboot
from onprem_llm.runner import raise_for_failures

REBOOT_HINT = (
    "Let bootstrap do it (onprem_llm_site.reboot: auto, or a terminal to ask on), or do it yourself: "
    "onprem-llm host drain HOST, reboot it, bootstrap again, onprem-llm host undrain HOST."
)
# Shown although all is well: what a host has is what people ask.
ALWAYS = {"gpus", "driver", "gpu_access", "container_engine", "engine"}


@click.command("bootstrap", short_help="Prepare every host: checks, container engine, GPU driver.")
@connection_options(argument=True)
@click.option(
    "--upgrade-driver",
    "driver",
    metavar="VERSION",
    help="Bring the hosts' NVIDIA driver to a branch (580) or version (580.95.05), and do nothing else.",
)
@click.option("--check", is_flag=True, help="Look, say what is found, and change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--break-lock", is_flag=True, help="With --upgrade-driver: take the lock from a run that is dead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--verbose", "-v", is_flag=True, help="Show the checks that passed, too.")
def command(
    driver: str | None, check: bool, yes: bool, break_lock: bool, as_json: bool, verbose: bool, connection: Connection
) -> None:  # fmt: skip
    """Prepare every host: checks, Docker with Compose, GPU driver and container toolkit; the first is the gateway.

    A second run changes nothing and says so. A host that fails does not stop the others. A driver that runs is left
    alone, and a host is rebooted for its driver only as `reboot` in the site's settings says (--yes is no leave).

    --upgrade-driver takes one host after the other, a canary first: drained, upgraded, looked at, let in again. It
    stops at the first bad host; a second run goes on there.

    \b
    Example:
      onprem-llm bootstrap inventory.ini
      onprem-llm bootstrap inventory.ini --limit gpu --ask-become-pass
      onprem-llm bootstrap inventory.ini --upgrade-driver 580 --check
    """
    if driver is not None:
        from onprem_llm.commands.upgrade_driver import upgrade_driver  # a job of its own

        upgrade_driver(driver, connection, check=check, yes=yes, break_lock=break_lock, as_json=as_json)
        return
    if break_lock:
        raise UsageError("--break-lock: found no --upgrade-driver, expected one", hint="bootstrap alone takes no lock")
    with output.progress() as progress:
        prepared = prepare(connection, progress)
    report = prepared.report
    if not check and report.able:
        report = _carry_out(prepared, connection, yes=yes, as_json=as_json, verbose=verbose)
    show(report, check=check, as_json=as_json, verbose=verbose)
    if report.root:
        (output.note if as_json else output.say)(hand_over(report.root, connection.inventory))
    result = report.as_result()
    if connection.skip_unreachable:
        result = replace(result, failures=tuple(one for one in result.failures if not one.unreachable))
    raise_for_failures(result, doing="checking the hosts" if check else "preparing the hosts")


def _carry_out(prepared: Prepared, connection: Connection, *, yes: bool, as_json: bool, verbose: bool) -> Report:
    report = prepared.report
    if not yes:
        if not as_json:
            output.say(findings_text(report, verbose=verbose))
        output.agree(f"\nPrepare {', '.join(report.able)}?", yes=yes)
    with output.progress() as progress:
        report = carry_out(prepared, connection, progress)
    if report.reboots and _may_reboot(prepared, yes=yes, as_json=as_json):
        with output.progress() as progress:
            report = reboot(prepared, connection, progress)
    return report


def _may_reboot(prepared: Prepared, *, yes: bool, as_json: bool) -> bool:
    """Say whether hosts may be rebooted now: --yes agrees to bootstrap, never to a reboot."""
    policy = prepared.site.reboot
    if policy != "ask" or yes or as_json or not sys.stdin.isatty():
        return policy == "auto"
    reasons = "\n".join(f"  {host}: {'; '.join(why)}" for host, why in prepared.report.reboots.items())
    hosts = ", ".join(prepared.report.reboots)
    output.say(f"These hosts want a reboot before their GPUs can be used:\n{reasons}")
    return output.confirm(f"Reboot {hosts} now, one after the other, each drained first?", yes=False)


def show(report: Report, *, check: bool, as_json: bool, verbose: bool) -> None:
    """Print what was found and done."""
    if as_json:
        output.show_json(as_document(report))
        return
    parts = [findings_text(report, verbose=verbose), "" if check else ending(report)]
    output.say("\n\n".join(part for part in parts if part))


def findings_text(report: Report, *, verbose: bool) -> str:
    """Lay out what needs a person's eye, one line for all hosts of which the same is true, and count the rest."""
    every = [finding for host in report.hosts for finding in report.findings.get(host, ())]
    return findings_table(every, always=ALWAYS, verbose=verbose)


def ending(report: Report) -> str:
    """Say in words what has changed, and which host is the gateway."""
    changed = [host for host in report.able if report.changed.get(host)]
    lines = [f"Changed: {', '.join(changed)}." if changed else "Nothing changed: the hosts are as they should be."]
    if not report.able:
        lines = ["No host was prepared."]
        if report.gateway is None and not report.gateway_note:  # who it is was not looked for
            return lines[0]
    for host, why in report.reboots.items():
        lines.append(f"{host} wants a reboot before its GPUs can be used: {'; '.join(why)}.")
    if report.reboots:
        lines.append(REBOOT_HINT)
    if report.gateway is None and report.gateway_note:
        lines.append(report.gateway_note)
    elif report.gateway is None:
        lines.append("The gateway is not among these hosts: it is the first of the inventory, or of its group gateway.")
    elif report.gateway in report.able or not report.records_gateway:
        beside = f", and {', '.join(report.seconds)} beside it" if report.seconds else ""
        lines.append(f"Gateway: {report.gateway}{beside}.")
    else:
        lines.append(f"No gateway is recorded yet: {report.gateway} must be prepared for that.")
    return "\n".join(lines)


def as_document(report: Report) -> dict[str, object]:
    """Return the report for --json."""
    bad = {failure.host: failure for failure in report.failures}
    return {
        "gateway": report.gateway,
        "gateway_note": report.gateway_note,
        "second_gateways": list(report.seconds),
        "reboot": {host: list(why) for host, why in report.reboots.items()},
        "hosts": {host: _host_document(host, report, bad.get(host) is not None) for host in report.hosts},
        "failures": [asdict(failure) for failure in report.failures],
    }


def _host_document(host: str, report: Report, failed: bool) -> dict[str, object]:
    findings: tuple[Finding, ...] = report.findings.get(host, ())
    return {
        "ok": not failed,
        "changed": report.changed.get(host, 0),
        "findings": [asdict(finding) for finding in findings],
    }
