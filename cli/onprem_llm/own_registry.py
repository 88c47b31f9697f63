"""The site's own registry on the control host: a folder that a bundle's load filled, and which image it has where."""

import json
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.bundle.images import INDEX
from onprem_llm.bundle.registry_view import blob_path, view_of
from onprem_llm.errors import InvalidError
from onprem_llm.image_names import image_name
from onprem_llm.json_values import is_mapping
from onprem_llm.locking.manifests import LARGEST
from onprem_llm.planning.places import place
from onprem_llm.planning.types import ImageSource, RegistryStore

_AGAIN = "load the bundle again (onprem-llm bundle load), or leave the setting out"


@dataclass(frozen=True)
class OwnRegistryFolder:
    """What the folder has, for a registry that will answer at `address` (host:port); None: nobody knows yet."""

    store: RegistryStore
    address: str | None

    def source(self, ref: str) -> ImageSource | None:
        """Return where hosts pull an image from; None where the folder does not have it."""
        digest = self.store.images.get(ref)
        if digest is None or self.address is None:
            return None
        return ImageSource(ref, pull=f"{self.address}/{image_name(ref).repository}@{digest}")

    def again(self, pull: str) -> str:
        """Return a recorded place of an image with the registry's address of today, where it is one of ours."""
        rest = place(pull)
        return f"{self.address}/{rest}" if self.address and rest in self._places else pull

    @property
    def _places(self) -> set[str]:
        return {f"{image_name(ref).repository}@{digest}" for ref, digest in self.store.images.items()}


def read_own_registry(folder: Path, address: str | None) -> OwnRegistryFolder:
    """Read the index and the manifests of a folder; InvalidError where there is none, or an image is not whole."""
    try:
        index: object = json.loads((folder / INDEX).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidError(
            f"onprem_llm_site.registry_dir: {folder / INDEX}: no registry's folder: {error}", hint=_AGAIN
        ) from None
    if not is_mapping(index):
        raise InvalidError(f"onprem_llm_site.registry_dir: {folder / INDEX}: no index of images", hint=_AGAIN)
    view = view_of(index, lambda sha256: _manifest(folder, sha256))
    for sha256, size in view.blobs.items():
        path = folder / blob_path(sha256)
        if not path.is_file() or path.stat().st_size != size:
            raise InvalidError(f"{path}: found no file of {size} bytes, which an image needs", hint=_AGAIN)
    store = RegistryStore(
        source=str(folder.absolute()),
        images=dict(sorted(view.images.items())),
        blobs=dict(sorted(view.blobs.items())),
        links=dict(sorted(view.links.items())),
        parts=dict(sorted(view.parts.items())),
    )
    return OwnRegistryFolder(store, address)


def _manifest(folder: Path, sha256: str) -> bytes:
    path = folder / blob_path(sha256)
    try:
        with path.open("rb") as stream:
            return stream.read(LARGEST + 1)
    except OSError as error:
        raise InvalidError(f"{path}: an image's manifest cannot be read: {error.strerror}", hint=_AGAIN) from None
