"""The site's settings: the mapping `onprem_llm_site` of the inventory's group_vars. Every setting has a default."""

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from onprem_llm.spec.fields import (
    ControlPath,
    Env,
    ImageRef,
    Listen,
    Model,
    Names,
    Port,
    SecretRef,
    Url,
    absolute_path,
    secret_env,
)
from onprem_llm.spec.gateway import GatewaySettings
from onprem_llm.spec.problems import checked
from onprem_llm.spec.ray import RayCluster

PREFIX = "onprem_llm_site"

# What the rendering of Open WebUI sets: its engines, its accounts, and that it asks nobody outside.
OWNED_UI_ENV = {
    "ANONYMIZED_TELEMETRY",
    "DO_NOT_TRACK",
    "ENABLE_OPENAI_API",
    "ENABLE_PERSISTENT_CONFIG",
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_HUB_OFFLINE",
    "OFFLINE_MODE",
    "OPENAI_API_BASE_URLS",
    "OPENAI_API_KEYS",
    "SCARF_NO_ANALYTICS",
    "WEBUI_ADMIN_EMAIL",
    "WEBUI_ADMIN_PASSWORD",
    "WEBUI_SECRET_KEY",
}


def _host_path(value: str) -> str:
    path = absolute_path(value)
    if path.count("/") < 2:
        raise ValueError(f"found {value!r}, expected a folder of its own such as /srv/onprem-llm")
    return path


def _registry_address(value: str) -> str:
    if "://" in value or "/" in value or not value:
        raise ValueError(f"found {value!r}, expected host or host:port, as in image names (registry.local:5000)")
    return value


def _network(value: str) -> str:
    try:
        return str(ipaddress.IPv4Network(value))
    except ValueError:
        raise ValueError(f"found {value!r}, expected an IPv4 network such as 10.200.0.0/16") from None


HostPath = Annotated[str, AfterValidator(_host_path)]


class WeightsDir(Model):
    """Where weights lie on the hosts; `shared` says that all hosts see one folder (NFS)."""

    path: HostPath | None = None
    shared: bool = False


class Registry(Model):
    """A registry that hosts pull images from."""

    address: Annotated[str, AfterValidator(_registry_address)]
    ca_file: ControlPath | None = None
    username: str | None = None
    password: SecretRef | None = None

    @model_validator(mode="after")
    def _both(self) -> "Registry":
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together: give both or none")
        return self


class PackageMirrors(Model):
    """Where bootstrap's packages come from, instead of what the hosts have configured."""

    debian: Url | None = None
    debian_security: Url | None = None
    ubuntu: Url | None = None
    docker: Url | None = None
    cuda: Url | None = None
    nvidia_container_toolkit: Url | None = None


class NvidiaDriver(Model):
    """The driver that bootstrap installs on hosts whose NVIDIA GPUs have none; one that runs is left alone.

    `branch`: 580, say; without it the one with long-term support where it serves the GPUs, else the newest that does.
    """

    install: bool = True
    branch: Annotated[int, Field(ge=400, le=9999)] | None = None
    kernel_modules: Literal["auto", "open", "proprietary"] = "auto"
    build: Literal["auto", "dkms", "precompiled"] = "auto"
    run_file: ControlPath | None = None


class NvidiaContainerToolkit(Model):
    """What gives containers the GPUs, on hosts that have NVIDIA's; one that is whole and new enough is left alone.

    `version`: 1.18.2, say; without it the newest that the hosts' sources have.
    """

    install: bool = True
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] | None = None


class Proxy(Model):
    """The proxy that package managers and the container engine use."""

    http: Url | None = None
    https: Url | None = None
    no_proxy: Names = ()


class Pool(Model):
    """Networks of /size are cut out of base for Docker's networks."""

    base: Annotated[str, AfterValidator(_network)]
    size: Annotated[int, Field(ge=8, le=29)]

    @model_validator(mode="after")
    def _fits(self) -> "Pool":
        prefix = ipaddress.IPv4Network(self.base).prefixlen
        if self.size < prefix:
            raise ValueError(f"size {self.size} is larger than its base {self.base}: expected {prefix} to 29")
        return self


class Docker(Model):
    """The container engine's settings that a site decides."""

    address_pools: Annotated[tuple[Pool, ...], Field(strict=False)] | None = None


class GangPorts(Model):
    """TCP ports that the engines of a gang, one model on several hosts, listen on; `check --network` tries them."""

    first: Port = 7600
    last: Port = 7663

    @model_validator(mode="after")
    def _in_order(self) -> "GangPorts":
        if not 0 <= self.last - self.first < 1024:
            raise ValueError(f"found {self.first} to {self.last}, expected 1 to 1024 ports, the first one first")
        return self


class OpenWebui(Model):
    """The web page to chat on."""

    enabled: bool = True
    image: ImageRef = "ghcr.io/open-webui/open-webui:v0.6.5"
    port: Port = 3000
    listen: Listen = "cluster"
    admin_email: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")] = "admin@example.com"
    env: Env = Field(default_factory=dict)

    @field_validator("env")
    @classmethod
    def _env_not_owned(cls, value: dict[str, str | SecretRef]) -> dict[str, str | SecretRef]:
        owned = [name for name in value if name in OWNED_UI_ENV]
        if owned:
            raise ValueError(f"set by the plan: {', '.join(owned)}; remove them")
        return value

    @property
    def secret_env(self) -> dict[str, SecretRef]:
        """The environment that travels as a secret."""
        return secret_env(self.env)


class Site(Model):
    """What is true for every deployment of an inventory.

    `fan_out`: whether hosts pass weights and images on to each other: auto (from 1 GiB on), always, never.
    """

    data_root: HostPath = "/srv/onprem-llm"
    weights_dir: WeightsDir = WeightsDir()
    fan_out: Literal["auto", "always", "never"] = "auto"
    images_dir: str | None = None
    registry: Registry | None = None
    registry_dir: str | None = None
    registry_image: ImageRef = "onprem-llm/registry:1"
    registry_port: Port = 5000
    gang_ports: GangPorts = GangPorts()
    ray: RayCluster = RayCluster()
    packages_dir: str | None = None
    package_mirrors: PackageMirrors = PackageMirrors()
    proxy: Proxy | None = None
    extra_ca: ControlPath | None = None
    docker: Docker = Docker()
    nvidia_driver: NvidiaDriver = NvidiaDriver()
    nvidia_container_toolkit: NvidiaContainerToolkit = NvidiaContainerToolkit()
    reboot: Literal["ask", "auto", "never"] = "ask"
    open_webui: OpenWebui = OpenWebui()
    gateway: GatewaySettings = GatewaySettings()
    public_port: Port = 8080

    @model_validator(mode="after")
    def _one_place_for_each(self) -> "Site":
        if self.registry_dir is not None and self.registry is not None:
            raise ValueError("found registry_dir and registry: images come from one, leave the other out")
        if self.packages_dir is not None and self.package_mirrors != PackageMirrors():
            raise ValueError(
                "found packages_dir and package_mirrors: packages come from one of them, leave the other out"
            )
        return self

    @property
    def weights_path(self) -> str:
        """The folder of all weights on a host."""
        return self.weights_dir.path or f"{self.data_root}/weights"

    def project_path(self, project: str) -> str:
        """The folder of a project on a host."""
        return f"{self.data_root}/{project}"

    def key_path(self, key: str) -> str:
        """The file of a key on a host."""
        return f"{self.data_root}/secrets/{key}"


def parse_site(raw: Mapping[str, object], where: str) -> Site:
    """Check the mapping; `where` names where it came from (the inventory). InvalidError shows every problem."""
    return checked(Site, raw, where=where, prefix=PREFIX)
