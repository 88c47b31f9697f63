"""What every Compose file of ours has in common: quoting, secrets, labels, the digest, and text that never varies."""

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import yaml

from onprem_llm import fast_yaml
from onprem_llm.spec.deployment import GpuAccess

LABEL = "onprem-llm"
# What a process listens on that is kept from strangers by a firewall, or by a person's own choice.
EVERY_INTERFACE = str(IPv4Address(0))
COMPOSE_FILE = "compose.yaml"

# The shell reads the mounted file and becomes the engine: keys are in no argv and in no `docker inspect`.
# `$$` is compose's spelling of `$`.
WITH_SECRETS = ("/bin/sh", "-c", 'set -a; . /run/secrets/env; set +a; exec "$$@"', "sh")

# The one interpolation of ours: the role writes it to .env, so that changed secrets change the container.
SECRETS_VARIABLE = "${ONPREM_LLM_SECRETS}"

# Stands in a command for the revision, which is known last; as with the label, the digest does not cover it.
REVISION_MARK = "{onprem-llm revision}"

# Text that every YAML reader takes for text. Everything else is quoted: readers of YAML 1.1 and 1.2 differ about
# 1e3, 012, on and y.
PLAIN = re.compile(
    r"(?!(?:true|false|null|yes|no|on|off|nan|inf)$)(--)?[A-Za-z/][A-Za-z0-9_./@:-]*[A-Za-z0-9_./@-]", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A project's files (path -> text) and the digest that its containers carry."""

    project: str
    files: Mapping[str, str]
    digest: str

    def sums(self) -> dict[str, str]:
        """Return path -> sha256, as the probe and the orders spell a project's files."""
        return {path: hashlib.sha256(text.encode()).hexdigest() for path, text in sorted(self.files.items())}


@dataclass(frozen=True, slots=True)
class Draft:
    """A project before its revision is known: a new revision that renders the same must not restart anything."""

    project: str
    service: str
    body: Mapping[str, object]
    labels: Mapping[str, str]
    # Read by the container while it runs (a gateway's configuration): other text is a reload, not another container.
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Return the sha256 over all that is rendered, the revision and the files that are reloaded aside."""
        text = json.dumps([self.project, self.service, self.body, self.labels], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def finish(self, revision: int | None) -> Rendered:
        """Write the files, with the labels that are the state."""
        labels = dict(self.labels)
        body = dict(self.body)
        if revision is not None:
            labels[f"{LABEL}.revision"] = str(revision)
            body = {key: _revised(value, revision) for key, value in body.items()}
        labels[f"{LABEL}.digest"] = self.digest
        secret = "secrets" in body
        if secret:
            labels[f"{LABEL}.secrets"] = SECRETS_VARIABLE
        file: dict[str, object] = {"name": self.project, "services": {self.service: {**body, "labels": labels}}}
        if secret:
            file["secrets"] = {"env": {"file": "./secrets/env"}}
        return Rendered(self.project, {COMPOSE_FILE: to_yaml(file), **self.files}, self.digest)


def _revised(value: object, revision: int) -> object:
    if not isinstance(value, list):
        return value
    return [part.replace(REVISION_MARK, str(revision)) if isinstance(part, str) else part for part in value]


def to_yaml(value: Mapping[str, object]) -> str:
    """Write YAML in the order given; strings that some reader could take for something else are quoted."""
    return _written(json.dumps(value))


# A plan renders the same gateway for each of its moments, and writing YAML is most of what a plan takes.
@functools.lru_cache(maxsize=256)
def _written(value: str) -> str:
    dumper = _FastDumper if fast_yaml.writes_alike(value) else _Dumper
    return yaml.dump(json.loads(value), Dumper=dumper, sort_keys=False, allow_unicode=True, width=fast_yaml.WIDTH)


def user_text(value: str) -> str:
    """Spell text so that compose takes it as it stands: `$` begins an interpolation, `$$` is a dollar."""
    return value.replace("$", "$$")


def health_check(url: str, *, start_period: int, interval: int = 10) -> dict[str, object]:
    """Return a health check that needs nothing but the image's own python3; times in seconds.

    Failures while the engine starts do not count; compose's `up --wait` goes on at the first success. A certificate
    is not checked: the container asks itself.
    """
    imports, context = ("urllib.request", "")
    if url.startswith("https:"):
        imports, context = ("ssl, urllib.request", ", context=ssl._create_unverified_context()")
    program = f"import {imports}; urllib.request.urlopen('{url}', timeout=5{context})"
    return {
        "test": ["CMD", "python3", "-c", program],
        "interval": f"{interval}s",
        "timeout": f"{interval}s",
        "retries": 3,
        "start_period": f"{start_period}s",
    }


def gpu_reservation(access: GpuAccess | None, devices: Sequence[str] | None) -> dict[str, object]:
    """Return a service's claim on GPUs; `devices`: their names as the access path has them, None for all."""
    driver = "cdi" if access == "cdi" else "nvidia"
    which: dict[str, object] = {"count": "all"} if devices is None else {"device_ids": list(devices)}
    reservation = {"resources": {"reservations": {"devices": [{"driver": driver, **which, "capabilities": ["gpu"]}]}}}
    return {**({"runtime": "nvidia"} if access == "runtime" else {}), "deploy": reservation}


def published(address: str, port: int, inner: int) -> str:
    """Return a published port; every interface is said explicitly, an IPv6 address stands in brackets."""
    return f"[{address}]:{port}:{inner}" if ":" in address else f"{address}:{port}:{inner}"


class _Dumper(yaml.SafeDumper):
    """A safe dumper without anchors, and with our quoting."""

    def ignore_aliases(self, data: object) -> bool:
        return True


class _FastDumper(fast_yaml.Dumper):
    """The same over libyaml."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None if PLAIN.fullmatch(value) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


for _dumper in (_Dumper, _FastDumper):
    _dumper.add_representer(str, _text)
