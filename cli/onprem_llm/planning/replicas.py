"""The replicas of the deployment that is being changed: placed, rendered, compared."""

from dataclasses import dataclass

from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import Claim, bind_address, reached_at
from onprem_llm.planning.difference import Outcome, SecretEntry, compare
from onprem_llm.planning.placement import Placement, access_path, device_names, place
from onprem_llm.planning.staging import HostImage, image_for
from onprem_llm.planning.types import ImageSource, WantedDeployment
from onprem_llm.rendering.vllm import Replica, draft
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.site import Site
from onprem_llm.spec.weights_identity import WeightsManifest

# What a readiness request asks, by task: path below the engine's address, and the body beside the model's name.
REQUESTS: dict[str, tuple[str, dict[str, object]]] = {
    "chat": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Are you ready?"}], "max_tokens": 1, "temperature": 0},
    ),
    "completion": ("/v1/completions", {"prompt": "Ready", "max_tokens": 1, "temperature": 0}),
    "embed": ("/v1/embeddings", {"input": "Ready"}),
    "rerank": ("/v1/rerank", {"query": "Ready", "documents": ["ready", "not yet"]}),
}


@dataclass(frozen=True, slots=True)
class PlannedReplica:
    """One replica of the new revision on its host."""

    placement: Placement
    image: HostImage
    claim: Claim
    outcome: Outcome
    secrets: tuple[SecretEntry, ...]

    @property
    def host(self) -> HostState:
        """The host."""
        return self.placement.host


def plan_replicas(
    site: Site,
    wanted: WantedDeployment,
    manifest: WeightsManifest,
    current: Current,
    *,
    revision: int,
    why: tuple[str, ...],
) -> tuple[PlannedReplica, ...]:
    """Place each replica, render it and compare it with what its host has."""
    deployment = wanted.deployment
    entry = current.book.get(deployment.name)
    recorded = entry.images.get(deployment.engine.image) if entry else None
    source = wanted.image or ImageSource(deployment.engine.image)
    planned = []
    for placement in place(deployment, current, known=entry is not None):
        host = placement.host
        image = image_for(host, source, recorded)
        claim = Claim(placement.project, bind_address(deployment.listen, host, deployment.name), deployment.port)
        replica = _replica(site, deployment, manifest, placement, image, claim)
        outcome = compare(
            host,
            draft(replica),
            revision=revision,
            image_id=image.id,
            secrets=_secrets(wanted, host, current),
            why=why + _image_reason(deployment, recorded, image),
        )
        entries = (SecretEntry("VLLM_API_KEY", (deployment.name,)),)
        planned.append(PlannedReplica(placement, image, claim, outcome, entries))
    return tuple(planned)


def _replica(
    site: Site, deployment: Deployment, manifest: WeightsManifest, placement: Placement, image: HostImage, claim: Claim
) -> Replica:
    access = access_path(deployment, placement.host)
    return Replica(
        deployment=deployment,
        index=placement.index,
        image=image.reference,
        weights_path=f"{site.weights_path}/{manifest.id}",
        weights_name=manifest.name,
        address=claim.address,
        gpus=tuple(gpu.uuid for gpu in placement.gpus),
        devices=device_names(placement, deployment, access),
        gpu_access=access,
    )


def project_order(
    site: Site,
    outcome: Outcome,
    entries: tuple[SecretEntry, ...],
    values: list[str],
    *,
    wait: int,
    readiness: dict[str, object] | None,
) -> dict[str, object]:
    """Return one project of apply.yml's order."""
    rendered = outcome.rendered
    return {
        "name": rendered.project,
        "path": site.project_path(rendered.project),
        "files": rendered.sums(),
        "wait": wait,
        "recreate": outcome.recreate,
        "secrets": {"entries": [entry.order() for entry in entries], "values": values},
        "readiness": readiness,
    }


def readiness(deployment: Deployment, claim: Claim, host: HostState) -> dict[str, object]:
    """Return the request that must be answered before a replica counts as started."""
    path, body = REQUESTS[deployment.task]
    return {
        "url": reached_at(claim, host),
        "method": "POST",
        "path": path,
        "body": {"model": deployment.served_name, **body},
        "status": 200,
        "timeout": deployment.timeouts.readiness,
        "key": deployment.name,
    }


def _secrets(wanted: WantedDeployment, host: HostState, current: Current) -> dict[str, str | None]:
    name = wanted.deployment.name
    made = current.gateway.keys.get(name) if current.gateway else None
    # A host whose own copy of the key is another one gets the gateway's, and the engine must read it anew.
    key = made if host.keys.get(name) == made else None
    user = {env: wanted.env_fingerprints.get(env) for env in wanted.deployment.secret_env}
    return {"VLLM_API_KEY": key, **user}


def _image_reason(deployment: Deployment, recorded: str | None, image: HostImage) -> tuple[str, ...]:
    if recorded is None or recorded in {image.reference, image.id}:
        return ()
    return (f"image {deployment.engine.image} is another one: {_short(recorded)} -> {_short(image.reference)}",)


def _short(reference: str) -> str:
    head, mark, digest = reference.partition("sha256:")
    return f"{head}{mark}{digest[:12]}"
