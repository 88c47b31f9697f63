"""Images of `docker save` archives as OCI blobs: the same archive always gives the same manifest."""

import gzip
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from os import SEEK_END
from pathlib import Path
from typing import IO

from onprem_llm.errors import InvalidError
from onprem_llm.image_archives import config_digest
from onprem_llm.locking.blobs import READ, Blobs
from onprem_llm.locking.manifests import Blob, Manifest, check_platform
from onprem_llm.probe_values import mapping, texts
from onprem_llm.spec.lock import LockedImage

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
GZIP = b"\x1f\x8b"
AGAIN = "save it again: docker save IMAGE -o FILE.tar"


@dataclass(frozen=True, slots=True)
class ArchiveImages:
    """Images of one platform, from archives into the cache of blobs."""

    platform: str
    blobs: Blobs

    def resolve(self, ref: str, archive: Path) -> LockedImage:
        """Keep every blob of an image, and say what it is. InvalidError names the archive and what is wrong in it."""
        try:
            with tarfile.open(archive) as tar:
                config_name, layers = _entry(tar, ref)
                config = _member(tar, config_name).read()
                diff_ids = _diff_ids(config)
                if f"sha256:{sha256(config).hexdigest()}" != f"sha256:{config_digest(config_name)}":
                    raise ValueError(f"{config_name} is not what its name says")
                if len(layers) != len(diff_ids):
                    raise ValueError(f"{len(layers)} layers, and {len(diff_ids)} in its configuration")
                found = [self._layer(tar, name, diff) for name, diff in zip(layers, diff_ids, strict=True)]
        except (OSError, EOFError, tarfile.TarError, zlib.error, KeyError, ValueError, TypeError) as error:
            raise InvalidError(f"{archive}: {ref} cannot be read out of it: {error}", hint=AGAIN) from None
        check_platform(config, self.platform, ref)
        manifest = _manifest(Blob(f"sha256:{self.blobs.put(config)}", len(config)), found)
        self.blobs.put(manifest.data)
        return LockedImage(ref=ref, digest=manifest.digest, id=manifest.config.digest, size=manifest.size)

    def _layer(self, tar: tarfile.TarFile, name: str, diff_id: str) -> tuple[str, Blob]:
        """Keep one layer; its bytes must be those that the configuration names, under their gzip where there is one."""
        with _member(tar, name) as stream:
            packed = stream.read(2) == GZIP
            whole = stream.seek(0, SEEK_END)
        kind = f"{LAYER}+gzip" if packed else LAYER
        if not packed and self.blobs.has(diff_id, whole):
            return kind, Blob(diff_id, whole)
        with _member(tar, name) as stream:
            digest, size = self.blobs.receive(_pieces(stream))
        found = f"sha256:{digest}"
        if packed:
            with gzip.open(self.blobs.path(digest)) as unpacked:
                found = f"sha256:{_sum(unpacked)}"
        if found != diff_id:
            self.blobs.path(digest).unlink()
            raise ValueError(f"layer {name} is {found}, expected {diff_id}")
        return kind, Blob(f"sha256:{digest}", size)


def _manifest(config: Blob, layers: Sequence[tuple[str, Blob]]) -> Manifest:
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": kind, "digest": one.digest, "size": one.size} for kind, one in layers],
    }
    data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return Manifest(data, config, tuple(one for _, one in layers))


def _entry(tar: tarfile.TarFile, ref: str) -> tuple[str, list[str]]:
    for entry in json.load(_member(tar, "manifest.json")):
        if ref in (entry.get("RepoTags") or []):
            return str(entry["Config"]), [str(layer) for layer in entry["Layers"]]
    raise ValueError("its manifest.json does not name it")


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    # Links are followed inside the archive alone: docker's own older ones have a layer once, and links to it.
    stream = tar.extractfile(name)
    if stream is None:
        raise ValueError(f"{name} is no file")
    return stream


def _diff_ids(config: bytes) -> tuple[str, ...]:
    found = texts(mapping(mapping(json.loads(config)).get("rootfs")).get("diff_ids"))
    strange = [one for one in found if not DIGEST.fullmatch(one)]
    if strange:
        raise ValueError(f"its configuration names a layer {strange[0]!r}, expected sha256: and 64 hex digits")
    return found


def _pieces(stream: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    while piece := stream.read(READ):
        yield piece


def _sum(stream: IO[bytes] | gzip.GzipFile) -> str:
    digest = sha256()
    for piece in _pieces(stream):
        digest.update(piece)
    return digest.hexdigest()
