"""Facts as the probe records them, made up: for tests and benchmarks that need hosts without having any.

`applied` carries a plan out on facts, as the roles do on hosts, so that what comes after a deploy needs no hand-made
data.
"""

import copy
import hashlib
from ipaddress import IPv4Address
from typing import Any

import yaml

from onprem_llm.hosts import Current, fingerprint
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import ImageSource, Plan, Wanted, WantedDeployment
from onprem_llm.probe import parse_current
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.spec.site import Site, parse_site
from onprem_llm.spec.weights_identity import WeightsFile, WeightsManifest

# JSON as the probe writes it.
Facts = dict[str, Any]

SALT = "salt"
EVERYWHERE = str(IPv4Address(0))
GIB = 1024**3
H100 = "NVIDIA H100 80GB HBM3"
L4 = "NVIDIA L4"
VLLM_IMAGE = "vllm/vllm-openai:v0.11.0"
UI_IMAGE = "ghcr.io/open-webui/open-webui:v0.6.5"


def image_id(ref: str) -> str:
    """Return the id that an image of this name has in made-up facts."""
    return "sha256:" + hashlib.sha256(ref.encode()).hexdigest()


def gpu(host: str, index: int, name: str = H100, **changes: object) -> Facts:
    """Return one idle GPU."""
    return {
        "index": index,
        "uuid": f"GPU-{host}-{index}",
        "name": name,
        "memory_total": 81559,
        "memory_used": 4,
        "compute_cap": "9.0",
        "processes": [],
        **changes,
    }


def host(
    name: str, number: int, *, gpus: int = 0, model: str = H100, gateway: bool = False, **changes: object
) -> Facts:
    """Return what the probe says of a prepared host with nothing on it."""
    disk = {"path": "/srv", "free": 900 * GIB, "total": 1000 * GIB, "device": 1}
    return {
        "schema": 1,
        "host": {"hostname": name, "os_name": "Debian GNU/Linux 13 (trixie)", "arch": "x86_64", "cpus": 16,
                 "memory_total": 256 * GIB, "memory_available": 200 * GIB},
        "disks": {"data_root": disk, "weights": disk, "docker": disk},
        "addresses": [f"10.0.{number // 250}.{number % 250 + 1}"],
        "default_address": f"10.0.{number // 250}.{number % 250 + 1}",
        "listeners": [{"address": EVERYWHERE, "port": 22, "pid": 7, "process": "sshd", "container": None}],
        "gpus": {"tool": gpus > 0, "driver": "580.95.05", "cuda": "13.0", "error": None,
                 "devices": [gpu(name, index, model) for index in range(gpus)]},
        "engine": {"running": True, "version": "26.1.5", "compose": "2.26.1", "cdi": True, "runtimes": ["runc"],
                   "root": "/var/lib/docker", "error": None, "cdi_devices": [str(index) for index in range(gpus)]},
        "images": [],
        "projects": {},
        "keys": {},
        "env_secrets": {},
        "weights": {},
        "book": {"gateway": True, "deployments": {}} if gateway else None,
        "lock": None,
        "site": {},
        "groups": ["gpu"] if gpus else [],
        "ansible_host": None,
        **changes,
    }  # fmt: skip


def lab(gpus: int = 2) -> dict[str, Facts]:
    """Return two hosts as `lab up` makes them; the first is the gateway."""
    return {f"lab-{n}": host(f"lab-{n}", n, gpus=gpus, gateway=n == 1) for n in (1, 2)}


def weights(name: str = "tiny", size: int = 5_000_000) -> WeightsManifest:
    """Return the manifest of a small folder of weights."""
    files = (
        WeightsFile("config.json", 700, hashlib.sha256(b"config").hexdigest(), 1),
        WeightsFile("model.safetensors", size, hashlib.sha256(f"{name} {size}".encode()).hexdigest(), 1),
    )
    identity = hashlib.sha256(f"{name} {size}".encode()).hexdigest()[:12]
    return WeightsManifest(f"{name}-{identity}", name, files, sum(file.size for file in files))


def archive(ref: str, *, as_id: str | None = None) -> ImageSource:
    """Return an image that lies as an archive on the control host."""
    return ImageSource(ref, id=as_id or image_id(ref), archive=f"/images/{ref.replace('/', '_')}.tar", bytes=2 * GIB)


def deployment(
    text: str, manifest: WeightsManifest | None = None, image: ImageSource | None = None
) -> WantedDeployment:
    """Return a deployment as `deploy` hands it to planning: weights and image looked at."""
    spec = parse_deployment(text, "model.yaml")
    references = {name: {"from_env": name} for name in spec.secret_env}
    prints = {name: fingerprint(SALT, f"value of {name}") for name in spec.secret_env}
    chosen = manifest or weights(spec.name)
    image = image or archive(spec.engine.image)
    return WantedDeployment(spec, chosen, f"/models/{chosen.name}", image, prints, references)


def wanted(facts: dict[str, Facts], focus: WantedDeployment) -> Wanted:
    """Return the book with one deployment added or changed."""
    others = [WantedDeployment(parse_deployment(entry.model_yaml, name))
              for name, entry in parse_current(facts).book.items() if name != focus.deployment.name]  # fmt: skip
    return Wanted((*others, focus), focus=focus.deployment.name, ui_image=archive(UI_IMAGE))


def planned(facts: dict[str, Facts], focus: WantedDeployment, site: Site | None = None) -> Plan:
    """Plan one deployment on these facts."""
    return plan(site or Site(), wanted(facts, focus), parse_current(facts))


def applied(done: Plan, facts: dict[str, Facts]) -> dict[str, Facts]:
    """Return the facts as they are once the plan was carried out."""
    after = copy.deepcopy(facts)
    for step in done.steps:
        for name, order in step.orders.items():
            {"stage": _stage, "apply": _apply, "remove": _remove, "record": _record}[step.kind](
                after, name, dict(order), done
            )
    return after


def _stage(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    state = facts[name]
    for image in order["images"]:
        for other in state["images"]:
            other["tags"] = [tag for tag in other["tags"] if tag != image["ref"]]
        known = image["id"] or image_id(image["ref"])
        digests = [image["pull"]] if image["pull"] else []
        there = next((other for other in state["images"] if other["id"] == known), None)
        if there:
            there["tags"].append(image["ref"])
        else:
            state["images"].append({"id": known, "tags": [image["ref"]], "digests": digests})
    for item in order["weights"]:
        size = sum(file["size"] for file in item["files"])
        state["weights"][item["id"]] = {
            "path": item["path"], "files": len(item["files"]), "bytes": size, "drift": [], "complete": True,
        }  # fmt: skip


def _apply(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    keys = facts[order["keys_host"]]["keys"]
    for key in order["keys"]:
        keys.setdefault(key, fingerprint(SALT, f"key {key}"))
        facts[name]["keys"][key] = keys[key]
    for project in order["projects"]:
        values = {
            entry["name"]: ";".join(keys[key] for key in entry["keys"]) for entry in project["secrets"]["entries"]
        }
        values |= {env: fingerprint(SALT, f"value of {env}") for env in project["secrets"]["values"]}
        secrets = hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:16]
        text = done.files[name][project["name"]]["compose.yaml"]
        facts[name]["env_secrets"][project["name"]] = values
        facts[name]["projects"][project["name"]] = {
            "path": project["path"],
            "files": dict(project["files"]),
            "secrets_digest": secrets,
            "containers": [_container(facts[name], text.replace("${ONPREM_LLM_SECRETS}", secrets))],
        }


def _container(state: Facts, text: str) -> Facts:
    project = yaml.safe_load(text)
    (service, body), *_ = project["services"].items()
    known = next(i["id"] for i in state["images"] if body["image"] == i["id"] or body["image"] in i["digests"])
    return {
        "service": service, "id": f"container of {project['name']}", "name": f"{project['name']}-{service}-1",
        "image": known, "state": "running", "health": "healthy", "exit_code": 0, "restarts": 0,
        "started_at": "2026-11-21T00:00:00Z", "labels": body["labels"],
    }  # fmt: skip


def _remove(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    for project in order["projects"]:
        facts[name]["projects"].pop(project["name"], None)
        facts[name]["env_secrets"].pop(project["name"], None)
    for key in order["keys"]:
        facts[name]["keys"].pop(key, None)


def _record(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    deployments = facts[name]["book"]["deployments"]
    if order.get("removed"):
        entry = deployments.pop(order["deployment"], {"revision": 0})
        facts[name]["book"].setdefault("removed", {})[order["deployment"]] = entry["revision"]
        return
    deployments[order["deployment"]] = {
        "revision": order["revision"], "model_yaml": done.model_yaml, "images": order["images"],
        "recorded_at": "2026-11-21T00:00:00Z",
    }  # fmt: skip


MODEL = """\
api_version: 1
name: {name}
model: ./models/{name}
engine:
  image: {image}
  engine_args: {{max_model_len: 8192, gpu_memory_utilization: 0.9, tensor_parallel_size: {gpus}}}
resources: {{gpus: {gpus}, gpu_models: [{model}]}}
port: {port}
"""


def large_site(hosts: int = 64, deployments: int = 10) -> tuple[dict[str, Facts], list[WantedDeployment]]:
    """Return a site of 8-GPU hosts on which all deployments but the last run, and the deployments."""
    facts = {
        f"node-{n:02}": host(f"node-{n:02}", n, gpus=8, model=H100 if n % 4 else L4, gateway=n == 0)
        for n in range(hosts)
    }
    models = [
        deployment(MODEL.format(name=f"model-{n}", image=VLLM_IMAGE, gpus=2 ** (n % 4), model="H100", port=8000 + n))
        for n in range(deployments)
    ]
    for item in models[:-1]:
        facts = applied(planned(facts, item), facts)
    return facts, models


def site(**settings: object) -> Site:
    """Return site settings."""
    return parse_site(settings, "inventory.ini")


def current(facts: dict[str, Facts], unreachable: tuple[str, ...] = ()) -> Current:
    """Return typed hosts."""
    return parse_current(facts, unreachable)
