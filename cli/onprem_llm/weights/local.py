"""The folder that a deployment's weights are sent from: the one that model.yaml names, or the store's."""

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.planning.types import Plan
from onprem_llm.spec.deployment import Deployment, model_folder
from onprem_llm.spec.model_source import ModelSource
from onprem_llm.spec.weights_identity import WeightsManifest, identity_of
from onprem_llm.weights.lock import in_use
from onprem_llm.weights.store import Entry, Store, store_folder
from onprem_llm.weights.verify import look_over

# Steps whose orders name the folders that weights are sent from.
BRING = ("stage", "fan_out")


def weights_folder(deployment: Deployment, model_yaml: Path) -> Path:
    """Return the folder of the weights on this machine. Nothing is fetched here: InvalidError says what to run."""
    if not deployment.model.on_hub:
        return model_folder(deployment, model_yaml)
    folder = _pulled_folder(deployment.model)
    if folder is None:
        raise InvalidError(
            f"model: {deployment.model} has not been pulled to this machine ({store_folder()}), or not to its end",
            hint=f"onprem-llm weights pull {model_yaml}",
        )
    return folder


def pulled_as(identity: str, source: ModelSource) -> Path | None:
    """Return the folder of the pull of a model that has the weights `identity`, whichever revision it was."""
    for entry in Store(store_folder()).of_model(source):
        # One that is damaged is none; `weights list` and `verify` tell of it.
        with contextlib.suppress(OnpremError):
            manifest, folder = entry.manifest(), entry.weights()
            sums = {file.path: file.sha256 for file in manifest.files}
            if identity_of(folder.name, sums)[1] == identity and not look_over(folder, manifest):
                return folder
    return None


def sources_of(plan: Plan) -> list[Path]:
    """Return the folders that a plan sends weights from."""
    orders = [order.get("weights") for step in plan.steps if step.kind in BRING for order in step.orders.values()]
    found = [item.get("source") for order in orders if is_list(order) for item in order if is_mapping(item)]
    return [Path(source) for source in found if isinstance(source, str)]


@contextmanager
def sending(folders: Iterable[Path]) -> Iterator[None]:
    """Keep what lies in the store as it is while it is sent: no prune, no pull that mends it."""
    root = store_folder()
    with contextlib.ExitStack() as stack:
        for folder in sorted(set(folders)):
            if root in folder.parents:
                stack.enter_context(in_use(Entry(folder.parent).lock, str(folder)))
        yield


def _pulled_folder(source: ModelSource) -> Path | None:
    """Return the store's folder of a model that was pulled; InvalidError where files of it are missing or cut."""
    entry = Store(store_folder()).find(source)
    if entry is None:
        return None
    damages = look_over(entry.weights(), entry.manifest())
    if damages:
        first = damages[0]
        place = entry.weights() / first.path if first.extra else first.path
        raise _damaged(source, f"{place}: found {first.found}, expected {first.expected}")
    return entry.weights()


def check_pulled(deployment: Deployment, scanned: WeightsManifest) -> None:
    """Compare what the folder holds with what was verified when it was pulled."""
    entry = Store(store_folder()).find(deployment.model) if deployment.model.on_hub else None
    if entry is None:
        return
    verified = {file.path: file.sha256 for file in entry.manifest().files}
    for file in scanned.files:
        if verified.get(file.path) != file.sha256:
            raise _damaged(
                deployment.model, f"{file.path}: found sha256 {file.sha256}, expected {verified.get(file.path, 'none')}"
            )


def _damaged(source: ModelSource, what: str) -> InvalidError:
    return InvalidError(
        f"model: {source}: the pulled weights were changed: {what}",
        hint="onprem-llm weights pull --verify MODEL.yaml fetches again what is damaged, and removes what is foreign",
    )
