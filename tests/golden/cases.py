"""The plans whose rendered files are kept whole in tests/golden/files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import recorded_facts as facts_of
from recorded_facts import Facts
from recorded_ray import elsewhere, model, site_elsewhere

from onprem_llm.bundle.registry_view import ImageParts
from onprem_llm.planning.ray_cluster import plan_up
from onprem_llm.planning.types import ImageSource, Plan, RegistryStore
from onprem_llm.rendering import haproxy, keepalived, registry
from onprem_llm.rendering.haproxy import Backend, Gateway, Server
from onprem_llm.rendering.ray_serve import RayApplication, serve_text
from onprem_llm.rendering.registry import OwnRegistry
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.spec.weights_identity import WeightsManifest

ROOT = Path(__file__).resolve().parents[2]
FILES = Path(__file__).parent / "files"

EVERY_TYPE = """\
api_version: 1
name: every-type
model: ./models/odd $NAME
served_name: Every Type
trust_remote_code: true
engine:
  image: vllm/vllm-openai:v0.11.0
  shm_size: 16g
  engine_args:
    enable_prefix_caching: false
    enable-auto-tool-choice: true
    tool_call_parser: null
    max_model_len: 32768
    gpu_memory_utilization: 0.85
    dtype: "1e3"
    chat_template: "{{ bos_token }}{% for m in messages %}$m{{ m['content'] }}\\n{% endfor %} 世界 -- \\"quoted\\""
    allowed_origins: ["https://a", "https://b"]
    lora_modules: [{name: sql, path: /loras/sql}]
    hf_overrides: {rope_scaling: {factor: 2.0}, "on": "yes"}
    middleware: -dash
    quantization: ""
resources: {gpus: 2}
env:
  PRICE: "$5 ${HOME} {{ lookup('pipe', 'id') }}"
  COUNT: 3
  HF_TOKEN: {from_env: HF_TOKEN}
"""

OTHER_RAY, RAY_IMAGE = "rayproject/ray-llm:2.56.0-py312-cu130", "rayproject/ray-llm:2.60.0-py311-cu129"
BASE_ON_RAY = """\
api_version: 1
name: {name}
model: ./models/{name}
engine:
  image: rayproject/ray-llm:2.56.0-py312-cu130
  engine_args: {args}
resources: {{gpus: {gpus}}}
"""


@dataclass(frozen=True)
class Bounds:
    """As replicas says them in model.yaml."""

    min: int = 1
    max: int = 4
    target_ongoing_requests: float = 2.0
    upscale_delay: float = 30.0
    downscale_delay: float = 600.0


def rendered(case: str) -> dict[str, str]:
    """Return file name -> text of everything that a case renders."""
    texts = {}
    for host, projects in CASES[case]().items():
        for project, files in projects.items():
            texts |= {f"{host}/{project}/{path}": text for path, text in files.items()}
    return texts


def _without_gateway(files: Mapping[str, Mapping[str, dict]]) -> dict:
    """Leave out what cases of its own show."""
    return {
        host: {name: texts for name, texts in projects.items() if name.partition(".")[0] != "gateway"}
        for host, projects in files.items()
    }


def _deepseek(image: str) -> dict:
    text = (ROOT / "examples/deepseek-r1-distill-1.5b.yaml").read_text(encoding="utf-8")
    text = text.replace("image: vllm/vllm-openai:v0.7.3", f"image: {image}")
    manifest = facts_of.weights("DeepSeek-R1-Distill-Qwen-1.5B")
    return _alone(text, manifest, {"lab-1": facts_of.host("lab-1", 1, gpus=2, gateway=True)})


def _alone(text: str, manifest: WeightsManifest, hosts: dict[str, Facts]) -> dict:
    site = facts_of.site(open_webui={"enabled": False})
    return _without_gateway(facts_of.planned(hosts, facts_of.deployment(text, manifest), site).files)


def _tiny() -> dict:
    text = (ROOT / "examples/tiny.yaml").read_text(encoding="utf-8")
    return _alone(text, facts_of.weights("tiny"), facts_of.lab(gpus=0))


def _every_type() -> dict:
    hosts = facts_of.lab(gpus=4)
    hosts["lab-1"]["gpus"]["devices"][0]["processes"] = [{"pid": 9, "name": "python", "memory": 100}]
    return _alone(EVERY_TYPE, facts_of.weights("odd-NAME"), hosts)


def _cdi_by_uuid() -> dict:
    hosts = facts_of.lab()
    for name, host in hosts.items():
        host["engine"]["cdi_devices"] = [f"nvidia.com/gpu={one}" for one in ("all", f"GPU-{name}-0", f"GPU-{name}-1")]
    text = facts_of.MODEL.format(name="by-uuid", image=facts_of.VLLM_IMAGE, gpus=2, model="h100", port=8000)
    return _alone(text, facts_of.weights("by-uuid"), hosts)


def _two_with_page() -> dict:
    hosts = facts_of.lab()
    models = [
        facts_of.deployment(
            facts_of.MODEL.format(name=name, image=facts_of.VLLM_IMAGE, gpus=1, model="H100", port=port)
        )
        for name, port in (("zebra", 8001), ("apple", 8002))
    ]
    hosts = facts_of.applied(facts_of.planned(hosts, models[0]), hosts)
    return _without_gateway(facts_of.planned(hosts, models[1]).files)


def _two_replicas() -> dict:
    """Two folders on a host, each with its own GPU and port; one host needs no TLS between gateway and engines."""
    hosts = {"lab-1": facts_of.host("lab-1", 1, gpus=2, gateway=True)}
    text = facts_of.MODEL.format(name="twin", image=facts_of.VLLM_IMAGE, gpus=1, model="H100", port=8000)
    return _alone(text + "replicas: 2\n", facts_of.weights("twin"), hosts)


def _gang() -> dict:
    """One replica over two hosts, with RDMA: a folder on each, the same program beside both."""
    hosts = {f"lab-{n}": facts_of.host(f"lab-{n}", n, gpus=2, gateway=n == 1) for n in (1, 2)}
    for state in hosts.values():
        state |= {"interfaces": dict.fromkeys(state["addresses"], "eth0"), "rdma": {"mlx5_0:1": True}}
    text = facts_of.MODEL.format(name="wide", image="vllm/vllm-openai:v0.20.0", gpus=2, model="H100", port=8000)
    text = text.replace("tensor_parallel_size: 2", "tensor_parallel_size: 2, pipeline_parallel_size: 2")
    text = text.replace("gpus: 2,", "gpus: 4, nodes: 2,")
    # Its digest is in a label: this is about how a gang is rendered, not about what that program is.
    with mock.patch("onprem_llm.rendering.ranks.program_digest", return_value="0" * 64):
        files = _alone(text, facts_of.weights("wide"), hosts)
    return {
        host: {name: {"compose.yaml": texts["compose.yaml"]} for name, texts in projects.items()}
        for host, projects in files.items()
    }


def _gateway() -> dict:
    servers = (Server("chat-0", "10.0.0.2", 8000, "engine.lab-2"), Server("chat-1", "10.0.0.3", 8001, "engine.lab-3"))
    backends = (
        Backend("chat", "Every Type", "chat", "prefix_cache", (3, 4), servers),
        Backend("rank", "rank", "rerank", "session", (1,), (Server("rank-0", "fd00::2", 8000),)),
        Backend("vec", "vec/世界", "embed", "least_load", (1,), ()),
    )
    gateway = Gateway("sha256:" + "0" * 64, "/srv/onprem-llm", "10.0.0.1", 8080, True, 1 << 20, 600, backends)
    return {"lab-1": {"gateway": haproxy.draft(gateway).finish(None).files}}


def _shared_address() -> dict:
    """Two gateway hosts with one address; their routes are another case's."""
    hosts = facts_of.lab(gpus=0)
    for state in hosts.values():
        state["interfaces"] = dict.fromkeys(state["addresses"], "eth0")
    hosts["lab-2"]["book"] = {"gateway": False, "second": True, "deployments": {}}
    text = (ROOT / "examples/tiny.yaml").read_text(encoding="utf-8")
    site = facts_of.site(open_webui={"enabled": False}, gateway={"address": "10.0.0.100"})
    files = facts_of.planned(hosts, facts_of.deployment(text, facts_of.weights("tiny")), site).files
    return {host: {keepalived.PROJECT: projects[keepalived.PROJECT]} for host, projects in files.items()}


def _image_passed_on() -> dict:
    """The gateway host serves all over TLS; the others pull from what was passed on to them, on loopback."""
    hosts = {f"lab-{n}": facts_of.host(f"lab-{n}", n, gpus=1, gateway=n == 1) for n in (1, 2, 3)}
    ref, layer, manifest = facts_of.VLLM_IMAGE, "1" * 64, "b" * 64
    images, parts = {ref: f"sha256:{manifest}"}, {ref: ImageParts((layer,), {"a/link": f"sha256:{manifest}"})}
    text = facts_of.MODEL.format(name="wide", image=ref, gpus=1, model="H100", port=8000) + "replicas: 3\n"
    source = ImageSource(ref, pull=f"10.0.0.2:5000/docker.io/vllm/vllm-openai@sha256:{manifest}")
    site = facts_of.site(open_webui={"enabled": False}, registry_dir="registry")
    plan = facts_of.planned(
        hosts, facts_of.deployment(text, image=source), site, ui_image=None,
        registry=RegistryStore("/site/registry", images, {layer: 3 * facts_of.GIB}, {}, parts),
        registry_image=facts_of.archive("onprem-llm/registry:1"),
    )  # fmt: skip
    return _without_gateway(plan.files)


def _registry() -> dict:
    images = {"ghcr.io/open-webui/open-webui:v0.6.5": "sha256:" + "a" * 64, facts_of.VLLM_IMAGE: "sha256:" + "b" * 64}
    own = OwnRegistry("sha256:" + "0" * 64, "10.0.0.1", 5000, images)
    return {"lab-1": {"registry": registry.draft(own).finish(None).files}}


def _ray_serve() -> dict:
    """A model over two hosts, one that scales on CPUs; neither secret nor address of a host stands in it."""
    large = BASE_ON_RAY.format(name="large", gpus=16, args="{tensor_parallel_size: 8, pipeline_parallel_size: 2}")
    small = BASE_ON_RAY.format(name="small", gpus=0, args="{dtype: float32, enforce_eager: true, max_model_len: 512}")
    applications = [
        RayApplication(
            parse_deployment(small + "served_name: org/small-1.5\n", "model.yaml"), Bounds(), "/weights/small", 0, 2
        ),
        RayApplication(parse_deployment(large + "trust_remote_code: true\n", "model.yaml"), 1, "/weights/large", 8, 2),
    ]
    return {"head": {"ray-serve": {"serve.json": serve_text(applications, port=8100)}}}


def _ray_hosts() -> dict[str, Facts]:
    """Return a head that carries nothing, and a worker with GPUs."""
    hosts = {f"lab-{n}": facts_of.host(f"lab-{n}", n, gpus=2 * (n - 1), gateway=n == 1) for n in (1, 2)}
    for name, state in hosts.items():
        state["interfaces"] = dict.fromkeys(state["addresses"], "eth0")
        state["groups"] = ["ray_head"] if name == "lab-1" else ["ray_worker"]
    return hosts


def _ray_up(hosts: dict[str, Facts]) -> Plan:
    current = facts_of.current(hosts)
    return plan_up(facts_of.site(), current, current.hosts[0], facts_of.archive(RAY_IMAGE)).plan


def _ray_cluster() -> dict:
    return dict(_ray_up(_ray_hosts()).files)


def _ray_deployment() -> dict:
    """What Ray Serve is told of a deployment, and how the gateway reaches it."""
    hosts = facts_of.applied(_ray_up(_ray_hosts()), _ray_hosts())
    text = BASE_ON_RAY.format(name="tiny", gpus=2, args="{tensor_parallel_size: 2}").replace(OTHER_RAY, RAY_IMAGE)
    text += "backend: ray\nreplicas: {min: 1, max: 2, target_ongoing_requests: 4}\nserved_name: Tiny 世界\n"
    site = facts_of.site(open_webui={"enabled": False}, ray={"image": RAY_IMAGE})
    files = facts_of.planned(hosts, facts_of.deployment(text, facts_of.weights("tiny")), site).files["lab-1"]
    conf = "conf/deployments/tiny.cfg"
    return {"lab-1": {"ray-serve": files["ray-serve"], "gateway": {conf: files["gateway"][conf]}}}


def _ray_at_address() -> dict:
    """The same on a cluster that somebody else runs: where its nodes see the weights, and which nodes there are."""
    item = facts_of.deployment(model(gpus=2), facts_of.weights("tiny"), image=None)
    files = facts_of.planned(elsewhere(), item, site_elsewhere()).files["lab-1"]
    conf = "conf/deployments/tiny.cfg"
    return {"lab-1": {"ray-serve": files["ray-serve"], "gateway": {conf: files["gateway"][conf]}}}


def _by_the_clock() -> dict:
    """The schedule's files alone: the replicas are as without one."""
    text = (ROOT / "examples/tiny.yaml").read_text(encoding="utf-8") + (
        "timezone: Europe/Berlin\n"
        'schedule: [{at: "0 7 * * mon-fri", replicas: 2}, {at: "*/30 19-21 1 jan,jul *", replicas: 0}]\n'
    )
    done = facts_of.planned(facts_of.lab(gpus=0), facts_of.deployment(text, facts_of.weights("tiny")))
    return {host: {name: files[name] for name in files if name.startswith("schedule.")}
            for host, files in done.files.items()}  # fmt: skip


CASES = {
    "deepseek-old-image": lambda: _deepseek("vllm/vllm-openai:v0.7.3"),
    "deepseek-new-image": lambda: _deepseek("vllm/vllm-openai:v0.20.0"),
    "tiny-cpu": _tiny,
    "every-type-cdi": _every_type,
    "cdi-by-uuid": _cdi_by_uuid,
    "open-webui-two-deployments": _two_with_page,
    "two-replicas-on-one-host": _two_replicas,
    "gang-on-two-hosts": _gang,
    "gateway": _gateway,
    "shared-address": _shared_address,
    "registry": _registry,
    "image-passed-on": _image_passed_on,
    "ray-serve": _ray_serve,
    "ray-cluster": _ray_cluster,
    "ray-deployment": _ray_deployment,
    "ray-at-address": _ray_at_address,
    "replicas-by-the-clock": _by_the_clock,
}
