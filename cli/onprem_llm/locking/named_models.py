"""The model.yaml files of a lock, and their weights on this machine."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.caches import cache_folder
from onprem_llm.errors import InvalidError, UsageError
from onprem_llm.output import Progress
from onprem_llm.spec.deployment import Deployment, parse_deployment
from onprem_llm.spec.lock import LockedDeployment, LockedFile, LockedWeights
from onprem_llm.spec.weights_folder import check_folder
from onprem_llm.spec.weights_identity import WeightsManifest, scan_folder
from onprem_llm.weights.local import check_pulled, weights_folder
from onprem_llm.weights.store import Store, store_folder


@dataclass(frozen=True)
class Named:
    """One model.yaml and the folder of its weights, which was looked at and not hashed yet."""

    data: bytes
    path: Path
    deployment: Deployment
    folder: Path
    notes: tuple[str, ...]

    @property
    def file(self) -> str:
        """The name that the file has on a site."""
        return self.path.name if self.path.suffix in {".yaml", ".yml"} else f"{self.deployment.name}.yaml"


@dataclass(frozen=True)
class LockedModel:
    """One model.yaml and its weights on this machine."""

    deployment: Deployment
    locked: LockedDeployment
    weights: LockedWeights
    manifest: WeightsManifest
    folder: Path


def named_models(paths: Sequence[Path]) -> list[Named]:
    """Read model.yaml files, by the names of their deployments; InvalidError, UsageError for two of one name."""
    found: dict[str, Named] = {}
    for path in paths:
        one = _open(path)
        other = found.setdefault(one.deployment.name, one)
        if other.path != path:
            raise UsageError(
                f"{other.path} and {path} both describe {one.deployment.name}", hint="give each deployment its own name"
            )
    names = [one.file for one in found.values()]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise UsageError(
            f"{doubled} is the name of two files, and a site has them in one folder", hint="rename one of them"
        )
    return [found[name] for name in sorted(found)]


def locked_model(one: Named, progress: Progress) -> LockedModel:
    """Hash the weights, and say what a lock has of them; InvalidError for pulled ones that are not whole."""
    deployment, source = one.deployment, one.deployment.model
    progress.step(f"Look at the weights of {deployment.name}", [])
    manifest = scan_folder(one.folder, cache_folder())
    check_pulled(deployment, manifest)
    entry = Store(store_folder()).find(source) if source.on_hub else None
    weights = LockedWeights(
        source=source.source,
        id=source.id or source.path,
        revision=source.wanted_revision if source.on_hub else "",
        commit=entry.commit if entry else None,
        name=manifest.id,
        files=tuple(LockedFile(path=one.path, size=one.size, sha256=one.sha256) for one in manifest.files),
    )
    locked = LockedDeployment(
        name=deployment.name,
        file=one.file,
        sha256=hashlib.sha256(one.data).hexdigest(),
        text=one.data.decode(),
        weights=manifest.id,
    )
    return LockedModel(deployment, locked, weights, manifest, one.folder)


def _open(path: Path) -> Named:
    data = _read(path)
    deployment = parse_deployment(data.decode(), str(path))
    folder = weights_folder(deployment, path)
    return Named(data, path, deployment, folder, check_folder(folder, deployment.model.allow))


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path}: cannot be read as text: {error}", hint="name a model.yaml") from None
    return data
