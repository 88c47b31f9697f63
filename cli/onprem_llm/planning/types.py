"""What goes into a plan and what comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from onprem_llm.bundle.registry_view import ImageParts
from onprem_llm.gateway_state import Certificate
from onprem_llm.planning.memory.model_files import ModelFiles
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.weights_identity import WeightsManifest

# `wait`: the container is right and still starting; only its start is waited for.
Action = Literal["create", "update", "restart", "wait", "remove", "keep"]
StepKind = Literal[
    "registry",
    "stage",
    "fan_out",
    "apply",
    "gateway",
    "route",
    "restore",
    "stop",
    "remove",
    "pending",
    "record",
    "marks",
    "book_copy",
    "ray_image",
    "ray_nodes",
    "ray_drain",
    "ray_serve",
    "schedule",
    "schedule_rest",
]
Verb = Literal["deploy", "scale", "rollback", "restart", "down", "move", "host", "cluster"]
EndpointKind = Literal["api", "ui"]
Order = Mapping[str, object]

PLAN_VERSION = 4
UI_PROJECT = "open-webui"
# Plans about hosts: their `deployment` is a host's name, or says which hosts.
ABOUT_HOSTS: frozenset[Verb] = frozenset({"host", "cluster"})


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image as model.yaml names it, and where its bytes can come from.

    `id` is known from an archive's manifest; `pull` is `repo@sha256:…` from a registry. With neither, hosts must have
    the tag already. `bytes` is the archive's size, 0 when there is none. `nearby` is where hosts pull it from instead
    that have it in a registry of their own: host -> pull.
    """

    ref: str
    id: str | None = None
    archive: str | None = None
    pull: str | None = None
    bytes: int = 0
    exact: bool = False  # no other image will do, whatever its tag says: the one of a revision that is put back
    nearby: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RegistryStore:
    """What the site's own registry is to serve, and the folder on the control host that has it, absolute."""

    source: str
    images: Mapping[str, str]  # ref -> digest
    blobs: Mapping[str, int]  # hex sha256 -> bytes
    links: Mapping[str, str]  # path -> the digest in it
    parts: Mapping[str, ImageParts] = field(default_factory=dict)  # ref -> what it takes of that


@dataclass(frozen=True, slots=True)
class WantedDeployment:
    """One deployment that is to be. `weights` and `image` are None for those of the book that are not being changed."""

    deployment: Deployment
    weights: WeightsManifest | None = None
    source: str | None = None  # the folder of the weights on the control host, absolute
    image: ImageSource | None = None
    env_fingerprints: Mapping[str, str] = field(default_factory=dict)  # salted as the probe's
    env_references: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # {"HF_TOKEN": {"from_env": "X"}}
    notes: tuple[str, ...] = ()  # what is unusual about the weights
    only: tuple[str, ...] = ()  # hosts that new replicas may go to; none named: all
    files: ModelFiles | None = None  # what its own files say, where they are on the control host


@dataclass(frozen=True, slots=True)
class Wanted:
    """All deployments of the book with one added or changed (`focus`) or taken away (`remove`)."""

    deployments: tuple[WantedDeployment, ...]
    focus: str | None = None
    remove: str | None = None
    purge: bool = False
    restart: bool = False  # roll over the deployment in focus though nothing differs
    verb: Verb = "deploy"
    gateways_only: bool = False  # of one on Ray: neither Serve nor the book, however its cluster is
    ui_image: ImageSource | None = None
    gateway_image: ImageSource | None = None
    registry: RegistryStore | None = None  # the site's own
    registry_image: ImageSource | None = None
    given_certificate: Certificate | None = None  # of the gateway, in the files that the site names
    ui_env_fingerprints: Mapping[str, str] = field(default_factory=dict)
    ui_env_references: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def named(self, name: str) -> WantedDeployment | None:
        """Find a deployment by name."""
        return next((item for item in self.deployments if item.deployment.name == name), None)


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one thing (a project, weights, an image) on one host, and why."""

    host: str
    subject: str
    action: Action
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One playbook with an order a host. Relative paths in orders are relative to the run folder.

    `undo` takes the step back when it or a later one fails, last step first; a record ends that: what is written in the
    book stays.
    """

    kind: StepKind
    title: str
    orders: Mapping[str, Order]
    undo: "tuple[Step, ...]" = ()

    @property
    def playbook(self) -> str:
        """The playbook's file name."""
        return f"{self.kind}.yml"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that take part."""
        return tuple(self.orders)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where something answers. kind: `api` (an engine) or `ui`; key_file is on the gateway host, readable by root."""

    kind: EndpointKind
    name: str
    host: str
    url: str
    served_name: str | None = None
    key_file: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that deploy or down will do. Holds no secret: `secrets` says where values come from.

    `deployment` is a host's name where the verb is `host`, and the Ray cluster's where it is `cluster`.
    """

    based_on: str
    gateway: str
    deployment: str
    verb: Verb
    revision: int
    model_yaml: str
    steps: tuple[Step, ...] = ()
    files: Mapping[str, Mapping[str, Mapping[str, str]]] = field(
        default_factory=dict
    )  # host -> project -> path -> text
    changes: tuple[Change, ...] = ()
    send_bytes: Mapping[str, int] = field(default_factory=dict)
    endpoints: tuple[Endpoint, ...] = ()
    warnings: tuple[str, ...] = ()
    passed_over: Mapping[str, str] = field(default_factory=dict)  # host -> why no new replica goes there
    secrets: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)  # project -> env -> reference
    version: int = PLAN_VERSION

    @property
    def is_noop(self) -> bool:
        """Tell whether nothing at all is to be done."""
        return not self.steps
