"""`docker save` archives on the control host: which images they hold, and under which ids."""

import json
import tarfile
from pathlib import Path

from onprem_llm.errors import InvalidError
from onprem_llm.planning.types import ImageSource


def find_archives(folder: Path) -> dict[str, ImageSource]:
    """Map every reference that an archive in `folder` (*.tar) names to its source.

    Raises InvalidError for a folder or an archive that cannot be read, and for a reference that two archives give to
    different images.
    """
    if not folder.is_dir():
        raise InvalidError(
            f"onprem_llm_site.images_dir: {folder} is not a folder",
            hint="make it and put `docker save` archives (*.tar) into it, or leave the setting out",
        )
    found: dict[str, ImageSource] = {}
    for archive in sorted(folder.glob("*.tar")):
        for source in read_archive(archive):
            other = found.setdefault(source.ref, source)
            if other.id != source.id:
                raise InvalidError(
                    f"{source.ref} is in two archives with different contents: {other.archive} and {source.archive}",
                    hint="remove the one that is not wanted",
                )
    return found


def read_archive(archive: Path) -> list[ImageSource]:
    """Return the images of one archive; the id is the digest of the image's configuration, as `docker load` gives it.

    Format: manifest.json with Config and RepoTags, see docs.docker.com/reference/cli/docker/image/save.
    """
    try:
        with tarfile.open(archive) as tar:
            member = tar.extractfile("manifest.json")
            named = [(entry["Config"], entry.get("RepoTags") or []) for entry in (json.load(member) if member else [])]
    except (OSError, tarfile.TarError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InvalidError(
            f"{archive}: no `docker save` archive: {error}", hint="save it again: docker save IMAGE -o FILE.tar"
        ) from None
    size = archive.stat().st_size
    return [
        ImageSource(ref=ref, id=f"sha256:{config_digest(config)}", archive=str(archive), bytes=size)
        for config, refs in named
        for ref in refs
    ]


def config_digest(name: str) -> str:
    """Take the hex digest from `<hex>.json` (docker < 25) or `blobs/sha256/<hex>`."""
    return name.removesuffix(".json").rsplit("/", 1)[-1]
