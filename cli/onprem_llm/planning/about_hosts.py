"""Plans about hosts rather than a deployment: they have no revision."""

from collections.abc import Mapping, Sequence

from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.types import Change, Plan, Step, Verb

Files = Mapping[str, Mapping[str, Mapping[str, str]]]


def host_plan(
    verb: Verb,
    about: str,
    current: Current,
    gateway: HostState,
    steps: Sequence[Step | None],
    changes: Sequence[Change] = (),
    *,
    files: Files | None = None,
    send_bytes: Mapping[str, int] | None = None,
    warnings: Sequence[str] = (),
    secrets: Files | None = None,
) -> Plan:
    """Return the plan; `about`: a host's name, or words for several. Steps that are not needed are None."""
    return Plan(
        based_on=current.digest(),
        gateway=gateway.name,
        deployment=about,
        verb=verb,
        revision=0,
        model_yaml="",
        steps=tuple(step for step in steps if step is not None),
        files=files or {},
        changes=tuple(changes),
        send_bytes=send_bytes or {},
        warnings=tuple(warnings),
        secrets=secrets or {},
    )
