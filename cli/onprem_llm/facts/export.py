"""Facts of the hosts of an inventory, through the probe."""

from onprem_llm import __version__
from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError
from onprem_llm.output import Progress, note
from onprem_llm.probe_values import mapping, texts
from onprem_llm.run_events import RunResult
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.spec.facts import Facts, parse_facts


def collect(connection: Connection, progress: Progress) -> Facts:
    """Ask every host of the inventory what it is. Every one must answer, but with `skip_unreachable`."""
    result = run("probe.yml", connection, variables={"onprem_llm_facts": True}, progress=progress, title="Asking")
    silent = [one.host for one in result.failures if one.unreachable]
    if connection.skip_unreachable and len(silent) == len(result.failures) < len(result.hosts):
        if silent:
            note(f"Left out, they do not answer: {', '.join(silent)}. Their facts are missing in the file.")
    else:
        hint = "mend what is said above; or leave out what does not answer: --skip-unreachable; or collect the facts "
        hint += "there by hand: onprem-llm facts collect-script"
        raise_for_failures(result, doing="collecting facts (nothing was written)", hint=hint)
    return facts_of(result)


def facts_of(result: RunResult) -> Facts:
    """Make facts of what the probe returned; OnpremError where a host could not say what it is."""
    hosts = {}
    for name in sorted(result.returned):
        answer = mapping(result.returned[name].get("facts"))
        said = mapping(answer.get("facts"))
        if not said:
            details = "\n".join(texts(answer.get("problems")))
            raise OnpremError(f"{name} could not say what it is", details=details, hint="run the command again")
        hosts[name] = {**said, "collected_with": f"onprem-llm {__version__}"}
    return parse_facts({"schema_version": 1, "hosts": hosts}, "what the hosts said")
