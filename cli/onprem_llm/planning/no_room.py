"""What is said where no host can carry a replica."""

from collections.abc import Sequence

from onprem_llm.errors import InvalidError
from onprem_llm.output import table_text
from onprem_llm.planning.compatibility.placing import Compatibility
from onprem_llm.planning.memory.placing import Memory
from onprem_llm.planning.offers import Verdict, may_run_on, model_accepted
from onprem_llm.spec.deployment import Deployment

# Begins why a host is passed over that could be sent what it lacks.
LACKS = "it has not the"


class NoRoomError(InvalidError):
    """No host can carry a replica."""


def no_room(
    deployment: Deployment,
    project: str,
    verdicts: Sequence[Verdict],
    memory: Memory | None,
    compatibility: Compatibility | None,
) -> NoRoomError:
    """Return the error: the image that none of them runs, the memory that none of them has, else each host's reason."""
    wanted = deployment.resources
    may = [verdict.host for verdict in verdicts if may_run_on(deployment, verdict.host) and not verdict.closed]
    unlike = compatibility.refusal(may) if compatibility else None
    if unlike:
        return NoRoomError(unlike.message, details=unlike.details, hint=unlike.hint)
    models = f" of {' or '.join(wanted.gpu_models)}" if wanted.gpu_models else ""
    need = f"{wanted.gpus} GPUs{models}" if wanted.gpus else "a host"
    table = verdict_table(verdicts)
    suited = (tuple(gpu for gpu in host.gpus if model_accepted(gpu, wanted.gpu_models)) for host in may)
    refusal = memory.refusal(suited) if memory else None
    if refusal:
        sums, hint = refusal
        message = f"no host can carry {project}: the model does not fit into the memory of its GPUs"
        return NoRoomError(message, details=f"{table}\n\n{sums}", hint=hint)
    return NoRoomError(
        f"no host can carry {project}: it needs {need} on one host", details=table, hint=_remedy(verdicts)
    )


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Return what was found on each host, and why it was passed over."""
    rows = [
        (v.host.name, len(v.host.gpus), ", ".join(sorted({g.name for g in v.host.gpus})) or "-", len(v.free), v.why)
        for v in verdicts
    ]
    return table_text(("host", "gpus", "model", "free", "passed over because"), rows)


def _remedy(verdicts: Sequence[Verdict]) -> str:
    if all(not verdict.host.engine.running for verdict in verdicts):
        return "prepare the hosts first: onprem-llm bootstrap INVENTORY"
    hint = "change resources (gpus, gpu_models, hosts) in model.yaml, or free what holds the GPUs"
    if any((verdict.why or "").startswith(LACKS) for verdict in verdicts):
        hint += "; deploy with model.yaml sends weights, and images whose archive is in onprem_llm_site.images_dir"
    return hint
