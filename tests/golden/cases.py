"""The plans whose rendered files are kept whole in tests/golden/files."""

from pathlib import Path

import recorded_facts as facts_of
from recorded_facts import Facts

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


def rendered(case: str) -> dict[str, str]:
    """Return file name -> text of everything that a case renders."""
    texts = {}
    for host, projects in CASES[case]().items():
        for project, files in projects.items():
            texts |= {f"{host}/{project}/{path}": text for path, text in files.items()}
    return texts


def _deepseek(image: str) -> dict:
    text = (ROOT / "examples/deepseek-r1-distill-1.5b.yaml").read_text(encoding="utf-8")
    text = text.replace("image: vllm/vllm-openai:v0.7.3", f"image: {image}")
    manifest = facts_of.weights("DeepSeek-R1-Distill-Qwen-1.5B")
    return _alone(text, manifest, facts_of.lab())


def _alone(text: str, manifest: WeightsManifest, hosts: dict[str, Facts]) -> dict:
    site = facts_of.site(open_webui={"enabled": False})
    return facts_of.planned(hosts, facts_of.deployment(text, manifest), site).files


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
        host["engine"]["cdi_devices"] = ["all", *(f"GPU-{name}-{n}" for n in range(2))]
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
    return facts_of.planned(hosts, models[1]).files


CASES = {
    "deepseek-old-image": lambda: _deepseek("vllm/vllm-openai:v0.7.3"),
    "deepseek-new-image": lambda: _deepseek("vllm/vllm-openai:v0.20.0"),
    "tiny-cpu": _tiny,
    "every-type-cdi": _every_type,
    "cdi-by-uuid": _cdi_by_uuid,
    "open-webui-two-deployments": _two_with_page,
}
