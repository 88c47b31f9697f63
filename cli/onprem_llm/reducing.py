"""Carry out one all-reduce over the hosts with GPUs, in the image of their engines."""

import secrets
from collections.abc import Mapping

from onprem_llm.checks.all_reduce import Document, judged, parts
from onprem_llm.checks.network import Network
from onprem_llm.checks.trial import trials
from onprem_llm.connection import Connection
from onprem_llm.findings import Finding
from onprem_llm.output import Progress, note
from onprem_llm.probe_values import mapping
from onprem_llm.runner import RunResult, run
from onprem_llm.seam import run_folder, write_orders

PLAYBOOK = "all_reduce.yml"


def reduce(
    connection: Connection, progress: Progress, facts: Mapping[str, Document], network: Network, image: str | None
) -> list[Finding]:
    """Try it where two hosts or more have GPUs and one image; after KeyboardInterrupt no container is left."""
    orders, notes = parts({host: trials(host, known, image)[0] for host, known in facts.items()}, network)
    if not orders:
        return notes
    name = secrets.token_hex(4)
    try:
        wanted = {host: {"do": "reduce", "run": name, **one} for host, one in orders.items()}
        title = f"Adding up over {len(orders)} hosts in the engines' image"
        result = _play(connection, wanted, progress, title)
    except BaseException:
        stopped = _play(connection, {host: {"do": "stop", "run": name} for host in orders}, None, "")
        for failure in stopped.failures:
            note(f"{failure.host}: the trial's container could not be removed; it ends by itself, within 3 minutes")
        raise
    if result.failures:
        # A host on which it did not begin: the others ended in vain, and are removed too.
        left = [host for host in orders if host in {failure.host for failure in result.failures}]
        _play(connection, {host: {"do": "stop", "run": name} for host in left}, None, "")
    answers = {host: mapping(result.returned.get(host, {}).get("all_reduce")) for host in orders}
    answers |= {failure.host: {"error": failure.message} for failure in result.failures}
    return judged(answers, network)


def _play(
    connection: Connection, orders: Mapping[str, Document], progress: Progress | None, title: str
) -> RunResult:  # fmt: skip
    with run_folder() as folder:
        variables = {"onprem_llm_order_file": str(write_orders(folder, 0, orders))}
        return run(PLAYBOOK, connection, hosts=list(orders), variables=variables, progress=progress, title=title)
