"""Facts as the probe records them, made up: for tests and benchmarks that need hosts without having any.

`applied` carries a plan out on facts, as the roles do on hosts, so that what comes after a deploy needs no hand-made
data.
"""

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any

from onprem_llm import fast_yaml
from onprem_llm.hosts import Current
from onprem_llm.planning.plan import plan
from onprem_llm.planning.plan_paths import check_paths
from onprem_llm.planning.revisions import weights_of
from onprem_llm.planning.types import ImageSource, Plan, Step, Wanted, WantedDeployment
from onprem_llm.probe import parse_current
from onprem_llm.secret_values import fingerprint
from onprem_llm.serve_state import told_digest
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.spec.site import Site, parse_site
from onprem_llm.spec.weights_identity import WeightsFile, WeightsManifest

# JSON as the probe writes it.
Facts = dict[str, Any]

SALT = "salt"
STARTED = 1_795_219_200  # when containers start, unless a host's clock says otherwise: 2026-11-21
EVERYWHERE = str(IPv4Address(0))
GIB = 1024**3
H100 = "NVIDIA H100 80GB HBM3"
L4 = "NVIDIA L4"
VLLM_IMAGE = "vllm/vllm-openai:v0.11.0"
UI_IMAGE = "ghcr.io/open-webui/open-webui:v0.6.5"
GATEWAY_IMAGE = "onprem-llm/gateway:1"


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
        "schema": 2,
        "host": {"hostname": name, "os_name": "Debian GNU/Linux 13 (trixie)", "arch": "x86_64", "cpus": 16,
                 "memory_total": 256 * GIB, "memory_available": 200 * GIB},
        "disks": {"data_root": disk, "weights": disk, "docker": disk},
        "addresses": [f"10.0.{number // 250}.{number % 250 + 1}"],
        "default_address": f"10.0.{number // 250}.{number % 250 + 1}",
        "listeners": [{"address": EVERYWHERE, "port": 22, "pid": 7, "process": "sshd", "container": None}],
        "gpus": {"tool": gpus > 0, "driver": "580.95.05", "cuda": "13.0", "error": None,
                 "devices": [gpu(name, index, model) for index in range(gpus)]},
        "engine": {"running": True, "version": "26.1.5", "compose": "2.26.1", "cdi": True, "runtimes": ["runc"],
                   "root": "/var/lib/docker", "error": None, "cdi_missing": [],
                   "cdi_devices": [f"nvidia.com/gpu={index}" for index in range(gpus)]},
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
    images = {"ui_image": archive(UI_IMAGE), "gateway_image": archive(GATEWAY_IMAGE)}
    return Wanted((*others, focus), focus=focus.deployment.name, **images)


def again(facts: dict[str, Facts], name: str, image: ImageSource | None = None, **change: object) -> WantedDeployment:
    """Return a deployment as `scale`, `rollback` and `restart` hand it to planning: its weights are on hosts only."""
    entry = parse_current(facts).book[name]
    spec = parse_deployment(entry.model_yaml, name).model_copy(update=change)
    known = str(weights_of(entry.model_yaml))
    source = ImageSource(spec.engine.image, id=entry.images[spec.engine.image], exact=True)
    return WantedDeployment(spec, WeightsManifest(known, known.rpartition("-")[0], (), 0), image=image or source)


def without(facts: dict[str, Facts], name: str, **changes: object) -> Wanted:
    """Return the book without one deployment."""
    others = [WantedDeployment(parse_deployment(entry.model_yaml, other))
              for other, entry in parse_current(facts).book.items() if other != name]  # fmt: skip
    images = {"ui_image": archive(UI_IMAGE), "gateway_image": archive(GATEWAY_IMAGE)}
    return replace(Wanted(tuple(others), remove=name, verb="down", **images), **changes)


def planned(
    facts: dict[str, Facts],
    focus: WantedDeployment,
    site: Site | None = None,
    *,
    unreachable: Sequence[str] = (),
    left_out: Sequence[str] = (),
    **changes: object,
) -> Plan:
    """Plan one deployment on these facts; `changes` to what is wanted, such as its verb."""
    unseen = (*unreachable, *left_out)
    seen = {name: state for name, state in facts.items() if name not in unseen}
    hosts = parse_current(seen, unseen, left_out)
    done = plan(site or Site(), replace(wanted(seen, focus), **changes), hosts)
    check_paths(done, site or Site())
    return done


def _copied(facts: dict[str, Facts]) -> dict[str, Facts]:
    """Return hosts of their own. They are JSON, as from a probe: by way of its text this takes half as long."""
    copied: dict[str, Facts] = json.loads(json.dumps(facts))
    return copied


def applied(done: Plan, facts: dict[str, Facts]) -> dict[str, Facts]:
    """Return the facts as they are once the plan was carried out."""
    facts = _copied(facts)
    for step in done.steps:
        _carry_out(step, facts, done)
    return facts


def moments(done: Plan, facts: dict[str, Facts], steps: Sequence[Step] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield each step's title and the facts after it, so that what clients see in between can be judged."""
    facts = _copied(facts)
    yield "before", _copied(facts)
    for step in done.steps if steps is None else steps:
        _carry_out(step, facts, done)
        yield step.title, _copied(facts)


def _carry_out(step: Step, facts: dict[str, Facts], done: Plan) -> None:
    for name, order in step.orders.items():
        DOING[step.kind](facts, name, dict(order), done)


def cut_off(done: Plan, facts: dict[str, Facts], title: str) -> dict[str, Facts]:
    """Return the facts after a plan that was killed at the end of step `title`: nothing is taken back."""
    return next(then for step, then in moments(done, facts) if step == title)


def failed_at(
    done: Plan, facts: dict[str, Facts], title: str, *, missed: Collection[str] | None = ()
) -> dict[str, Facts]:
    """Return the facts after a plan whose step `title` failed at its end: all is taken back, but for a record.

    `missed`: hosts and projects that the step had not come to when it failed; None: it came to none.
    """
    upto = next(number for number, step in enumerate(done.steps) if step.title == title)
    back: list[Step] = []
    for step in done.steps[: upto + 1]:
        back = [] if step.kind == "record" else [*step.undo, *back]
    failed = [] if missed is None else [_without(done.steps[upto], missed)]
    return list(moments(done, facts, [*done.steps[:upto], *failed, *back]))[-1][1]


def _without(step: Step, missed: Collection[str]) -> Step:
    orders = {}
    for name, order in step.orders.items():
        if name not in missed:
            projects: Any = order.get("projects", ())
            reached = [one for one in projects if one["name"] not in missed]
            orders[name] = {**order, "projects": reached} if "projects" in order else order
    return replace(step, orders=orders)


def in_rotation(facts: dict[str, Facts], deployment: str) -> set[str]:
    """Return the replicas that get requests: ready at the gateway, at the address and in a revision that it expects."""
    gateway = next(state for state in facts.values() if state["book"] and state["book"]["gateway"])["gateway"]
    if not gateway or not gateway["running"]:
        return set()
    found = set()
    for state in facts.values():
        for name, project in state["projects"].items():
            server = gateway["servers"].get(f"{deployment}/{name}")
            container = next((c for c in project["containers"] if c["state"] == "running"), None)
            if server is None or container is None or server["admin"] != "ready":
                continue
            labels = container["labels"]
            listens = f"{server['address']}:{server['port']}"
            admitted = labels["onprem-llm.revision"] in gateway["admits"][deployment]
            named = container["served_name"] == gateway["asks"][deployment]
            alike = (labels["onprem-llm.tls"] == "on") == server["tls"]
            if labels["onprem-llm.listen"] == listens and admitted and named and alike:
                found.add(name)
    return found


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


def _fan_out(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    _stage(facts, name, {"weights": [], **order, "images": []}, done)


def _apply(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    keys = facts[order["keys_host"]]["keys"]
    for key in order["keys"]:
        keys.setdefault(key, fingerprint(SALT, f"key {key}"))
        facts[name]["keys"][key] = keys[key]
    if "firewall" in order:
        facts[name]["firewall"] = {**order["firewall"], "active": True}
    _ray_firewall(facts[name], order)
    if "engine_tls" in order:
        names = [order["engine_tls"]["name"]]
        facts[name].setdefault("certificates", {})["engine"] = {
            "not_after": 2_000_000_000, "names": names, "written": _now(facts[name]),
        }  # fmt: skip
    for project in order["projects"]:
        made = {**keys, **{f"client-{key}": value for key, value in facts[name].get("client_keys", {}).items()}}
        values = {
            entry["name"]: ";".join(made[key] for key in entry["keys"]) for entry in project["secrets"]["entries"]
        }
        values |= {env: fingerprint(SALT, f"value of {env}") for env in project["secrets"]["values"]}
        secrets = hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:16]
        text = done.files[name][project["name"]]["compose.yaml"]
        if "engine.crt" in text and "engine" not in facts[name].get("certificates", {}):
            raise AssertionError(f"{name}: {project['name']} is started before its certificate is there")
        _keep_for_restore(facts[name], project)
        facts[name]["env_secrets"][project["name"]] = values
        facts[name]["projects"][project["name"]] = {
            "path": project["path"],
            "files": dict(project["files"]),
            "secrets_digest": secrets,
            "containers": [
                _container(facts[name], text.replace("${ONPREM_LLM_SECRETS}", secrets), project.get("state") != "made")
            ],
        }


def _keep_for_restore(state: Facts, project: Facts) -> None:
    there = state["projects"].get(project["name"])
    if there is not None:
        state.setdefault("previous", {})[project["name"]] = copy.deepcopy(there)


def _restore(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    state = facts[name]
    for project in order["projects"]:
        known = [state["projects"].get(project["name"]), state.get("previous", {}).get(project["name"])]
        whole = [one for one in known if one and _sums(one) == (project["files"], project["secrets"])]
        if not whole:
            raise AssertionError(f"{name}: nothing that ran before is there of {project['name']}")
        state["projects"][project["name"]] = copy.deepcopy(whole[0])


def _sums(project: Facts) -> tuple[object, object]:
    return project["files"], project["secrets_digest"]


def _gateway(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    state, project = facts[name], order["project"]
    for key in order.get("keys", ()):
        made = facts[order["keys_host"]]["keys"]
        state["keys"][key] = made.setdefault(key, fingerprint(SALT, f"key {key}"))
    for key in order.get("client_keys", ()):
        state.setdefault("client_keys", {})[key] = fingerprint(SALT, f"client {key}")
    if order.get("tls", {}).get("mode") == "ca":
        state.setdefault("certificates", {})["gateway"] = {
            "not_after": 2_000_000_000, "names": order["tls"]["names"],
        }  # fmt: skip
    files = done.files[name][project["source"]]
    text = files["compose.yaml"]
    state["projects"]["gateway"] = {
        "path": project["path"],
        "files": dict(project["files"]),
        "secrets_digest": None,
        "containers": [_container(state, text)],
    }
    servers, admits, asks = {}, {}, {}
    for path, conf in files.items():
        if path.startswith("conf/deployments/"):
            deployment = path.removeprefix("conf/deployments/").removesuffix(".cfg")
            servers |= {f"{deployment}/{found[1]}": _routed(found) for found in re.finditer(SERVER, conf)}
            asks[deployment] = "".join(re.findall(r'"\(([^)]*)\):r\(', conf)).replace("\\", "")
            admits[deployment] = re.findall(r"\d+", "".join(re.findall(r":r\(([\d|]*)\)", conf)))
    for server, admin in order["states"].items():
        servers[server]["admin"] = admin
    peers = json.loads(files.get("conf/peers.json", "{}")).get("others", [])
    state["gateway"] = {"running": True, "error": None, "servers": servers, "admits": admits, "asks": asks,
                        "pending_reload": False, "peers": peers}  # fmt: skip


SERVER = re.compile(r"^ +server (\S+) (\S+):(\d+)( .* ssl )?", re.MULTILINE)


def _routed(found: "re.Match[str]") -> Facts:
    return {"address": found[2], "port": int(found[3]), "tls": found[4] is not None, "admin": "ready", "up": True,
            "check": "L7OK", "sessions": 0}  # fmt: skip


def _route(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    servers = facts[name]["gateway"]["servers"]
    for server in order["drain"]:  # one that it does not know is no error: nobody routes there
        servers.get(server, {}).update(admin="drain")
    for server in order.get("let_in", ()):
        servers[server]["admin"] = "ready"
    for server in order["ready"]:
        servers[server]["admin"] = "ready"
        deployment, _, project = server.partition("/")
        if project not in in_rotation(facts, deployment):
            raise AssertionError(f"the gateway's check of {server} does not pass: {servers[server]}")


def _now(state: Facts) -> int:
    return int(state["host"].get("now", STARTED))


def _container(state: Facts, text: str, start: bool = True) -> Facts:
    project = fast_yaml.read(text)
    (service, body), *_ = project["services"].items()
    known = next(i["id"] for i in state["images"] if body["image"] == i["id"] or body["image"] in i["digests"])
    return {
        "service": service, "id": f"container of {project['name']}", "name": f"{project['name']}-{service}-1",
        "image": known, "health": "healthy" if start else None, "state": "running" if start else "created",
        "exit_code": 0, "restarts": 0,
        "started_at": datetime.fromtimestamp(_now(state), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "labels": body["labels"],
        "served_name": dict(itertools.pairwise(body.get("command") or ())).get("--served-model-name"),
    }  # fmt: skip


def _remove(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    for project in order["projects"]:
        facts[name]["projects"].pop(project["name"], None)
        facts[name]["env_secrets"].pop(project["name"], None)
        if project["name"] == "registry" and project["purge"]:
            facts[name]["registry_strays"] = 0
        if project["name"] == "gateway":
            facts[name]["gateway"] = None
    for key in order["keys"]:
        facts[name]["keys"].pop(key, None)
    if "firewall" in order:
        gone = order["firewall"].get("state") == "absent"
        facts[name]["firewall"] = None if gone else {**order["firewall"], "active": True}
    _ray_firewall(facts[name], order)


def _ray_firewall(state: Facts, order: Facts) -> None:
    wall = order.get("ray_firewall")
    if wall is not None:
        rules = {rule["ports"]: rule["sources"] for rule in wall["rules"]}
        state["ray_firewall"] = None if wall.get("state") == "absent" else {"rules": rules, "active": True}


def _ray(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    """Steps that look, or wait, or drain: no facts differ afterwards."""


def _ray_serve(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    document = json.loads(done.files[name][order["source"]]["serve.json"])
    told = {one["name"]: told_digest(one) for one in document["applications"]}
    missing = set(order["names"]) - set(told)
    if missing:
        raise AssertionError(f"{name}: waits for {missing}, and the document has {set(told)}")
    applications = {one: {"status": "RUNNING", "message": "", "told": digest} for one, digest in told.items()}
    there: Facts = {}
    if "address" in order:  # somebody else's cluster, whose other applications stay
        there = facts[name]["serve"]
        known = there["told"]
        theirs = {one: app for one, app in there["applications"].items()
                  if app["told"] not in {*order["ours"].get(one, ()), *known.get(one, ())}}  # fmt: skip
        if set(theirs) & {*told, *order["ours"]}:
            raise AssertionError(f"{name}: {set(theirs) & {*told, *order['ours']}} are not ours")
        applications = {**theirs, **applications}
        there = {**there, "told": {one: [digest] for one, digest in told.items()}, "token_here": True}
    facts[name]["serve"] = {
        "error": None, "proxies": {}, **there, "port": document["http_options"]["port"], "applications": applications
    }  # fmt: skip


def _record(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    deployments = facts[name]["book"]["deployments"]
    if order.get("removed"):
        entry = deployments.pop(order["deployment"], {"last": 0})
        facts[name]["book"].setdefault("removed", {})[order["deployment"]] = entry["last"]
        return
    given = max(order["revision"], deployments.get(order["deployment"], {}).get("last", 0))
    deployments[order["deployment"]] = {
        "revision": order["revision"], "model_yaml": done.model_yaml, "images": order["images"],
        "recorded_at": "2026-11-21T00:00:00Z", "placement": order["placement"],
        "pending": [], "last": given,
    }  # fmt: skip


def _schedule(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    schedules = facts[name].setdefault("schedules", {})
    deployment = order["deployment"]
    if order["state"] == "absent":
        schedules.pop(deployment)
        if not schedules:
            facts[name].pop("resting", None)
        return
    if order["state"] == "present":
        table = json.loads(done.files[name][order["source"]]["table.json"])
        decided = schedules.get(deployment, {}).get("decided")
        schedules[deployment] = {
            "files": dict(order["files"]), "armed": True, "order": table["order"], "decided": decided, "held": False,
            "resting": facts[name].get("resting"),
        }  # fmt: skip
    schedules[deployment]["held"] = order["state"] == "held"


def _schedule_rest(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    facts[name]["resting"] = None if order["rest"] == "none" else order["rest"]
    for schedule in facts[name].get("schedules", {}).values():
        schedule["resting"] = facts[name]["resting"]


def clocked(facts: dict[str, Facts], deployment: str, replicas: int) -> dict[str, Facts]:
    """Return the facts once an entry of a schedule is in force that asks for so many replicas."""
    facts = _copied(facts)
    for state in facts.values():
        schedule = state.get("schedules", {}).get(deployment)
        if schedule is None:
            continue
        on, off = schedule["order"][:replicas], schedule["order"][replicas:]
        coming = {"at": "2026-11-23T07:00", "replicas": len(schedule["order"])}
        schedule["decided"] = {
            "replicas": len(on), "slots": len(schedule["order"]), "off": off, "since": "2026-11-20T19:00",
            "next": coming,
        }  # fmt: skip
        for name in {*on, *off} & set(state["projects"]):
            running = {"state": "running", "health": "healthy"} if name in on else {"state": "exited", "health": None}
            for container in state["projects"][name]["containers"]:
                container.update(running)
    return facts


def _pending(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    about = {"pending": order["pending"], "last": order["last"]}
    facts[name]["book"]["deployments"].get(order["deployment"], {}).update(about)  # a copy may be behind


def _book_copy(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    first, state = facts[order["keys_host"]], facts[name]
    state["book"] = {**copy.deepcopy(first["book"]), "gateway": False, "second": True}
    state["keys"] |= first["keys"]


def _marks(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    hosts = facts[name]["book"].setdefault("hosts", {})
    for host, state in order["marks"].items():
        before = hosts.pop(host, {})
        if state:
            drained = before.get("state") == "drained" or before.get("was_drained", False)
            said = {"state": state, "by": "me@here", "at": "2026-11-21T00:00:00Z", "purpose": order.get("purpose")}
            hosts[host] = {**said, "was_drained": drained}


def _registry(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    state = facts[name]
    if "keep" in order["store"]:
        state["registry_strays"] = 0
    _stage(facts, name, {"images": order["images"], "weights": []}, done)
    if "tls" in order:
        state.setdefault("certificates", {})["registry"] = {"not_after": 2_000_000_000, "names": order["tls"]["names"]}
    for project in order["projects"]:
        text = done.files[name][project["name"]]["compose.yaml"]
        state["projects"][project["name"]] = {
            "path": project["path"],
            "files": dict(project["files"]),
            "secrets_digest": None,
            "containers": [_container(state, text)],
        }


def _stop(facts: dict[str, Facts], name: str, order: Facts, done: Plan) -> None:
    for project in order["projects"]:
        for container in facts[name]["projects"].get(project["name"], {}).get("containers", ()):
            container.update(state="exited", health=None, exit_code=0)


DOING = {
    "registry": _registry, "fan_out": _fan_out,
    "stage": _stage, "apply": _apply, "gateway": _gateway, "route": _route, "restore": _restore, "remove": _remove,
    "ray_image": _ray, "ray_nodes": _ray, "ray_drain": _ray, "ray_serve": _ray_serve, "stop": _stop,
    "pending": _pending, "record": _record, "book_copy": _book_copy, "marks": _marks, "schedule": _schedule,
    "schedule_rest": _schedule_rest,
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


def large_site(
    hosts: int = 64, deployments: int = 10, *, gpus: Sequence[int] = (1, 2, 4, 8)
) -> tuple[dict[str, Facts], list[WantedDeployment]]:
    """Return a site of 8-GPU hosts on which all deployments but the last run, and the deployments.

    `gpus`: of a replica, taken in turns by the deployments. A fourth of the hosts has GPUs that nobody wants.
    """
    facts = {
        f"node-{n:02}": host(f"node-{n:02}", n, gpus=8, model=H100 if n % 4 else L4, gateway=n == 0)
        for n in range(hosts)
    }
    models = [
        deployment(
            f"{MODEL}replicas: 1\n".format(
                name=f"model-{n}", image=VLLM_IMAGE, gpus=gpus[n % len(gpus)], model="H100", port=8000 + n
            )
        )
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
