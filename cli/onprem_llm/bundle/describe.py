"""The manifest of a bundle that is being made."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.bundle.have import Have
from onprem_llm.bundle.manifest import Blob, Manifest, Part, RootFile, Volume
from onprem_llm.bundle.volumes import Piece, lay_out
from onprem_llm.bundle.wanted import Artefact, Wanted

# Without these nothing begins on site.
ALWAYS = {"install", "lock", "sbom"}
FIRST = {*ALWAYS, "wheel"}
_RESERVE_STEP = 64 * 1024
_UNKNOWN = "0" * 64


@dataclass(frozen=True, slots=True)
class Described:
    """All that a bundle will hold, less what the site has; `volume_size` in bytes."""

    wanted: Wanted
    have: Have | None
    volume_size: int | None

    @property
    def carried(self) -> dict[str, Artefact]:
        """Return what travels."""
        have = self.have.blobs if self.have else {}
        return {
            sha: one for sha, one in self.wanted.artefacts.items() if one.role in ALWAYS or have.get(sha) != one.size
        }

    def manifest(self, parts: Mapping[str, tuple[Part, ...]], volumes: tuple[Volume, ...]) -> Manifest:
        """Return the manifest, the same for the same lock."""
        carried, lock = set(self.carried), self.wanted.lock
        blobs = tuple(
            Blob(
                sha256=sha, size=one.size, role=one.role, names=tuple(sorted(one.names)), carried=sha in carried,
                parts=parts.get(sha, ()),
            )
            for sha, one in sorted(self.wanted.artefacts.items())
        )  # fmt: skip
        files = tuple(
            RootFile.model_validate({"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)})
            for name, data in sorted(self.wanted.root.items())
        )
        folders = tuple(sorted(self.wanted.folders, key=lambda view: (view.kind, view.name)))
        return Manifest(
            lock_sha256=self.wanted.lock_sha256, made_with=lock.onprem_llm, platform=lock.platform,
            expires=lock.expires, base=self.have.base if self.have else None, volume_size=self.volume_size,
            files=files, blobs=blobs, images=self.wanted.image_views, folders=folders, volumes=volumes,
        )  # fmt: skip

    def laid_out(self) -> list[Piece]:
        """Lay out over volumes, with more reserve until each has room for its copy of the manifest."""
        sizes = {sha: one.size for sha, one in self.carried.items()}
        first = {sha for sha, one in self.carried.items() if one.role in FIRST}
        reserve = _RESERVE_STEP
        while True:
            pieces = lay_out(sizes, self.volume_size or 0, reserve, first)
            need = self._small_bytes(pieces)
            if need <= reserve:
                return pieces
            reserve = -(-need // _RESERVE_STEP) * _RESERVE_STEP

    def _small_bytes(self, pieces: Sequence[Piece]) -> int:
        """Return the bytes of a volume's small files; sums that are not known yet are as long as any."""
        parts = parts_of(pieces, {(piece.sha256, piece.number): _UNKNOWN for piece in pieces})
        volumes = volumes_of(pieces, {(piece.sha256, piece.number): _UNKNOWN for piece in pieces}, doubled=True)
        data = self.manifest({}, ()).data()
        more = sum(len(part.model_dump_json()) + 1 for of_one in parts.values() for part in of_one)
        more += sum(len(volume.model_dump_json()) + 1 for volume in volumes)
        # A signature, volume.json.
        return len(data) + more + sum(map(len, self.wanted.root.values())) + 8192


Sums = Mapping[tuple[str, int | None], str]


def parts_of(pieces: Collection[Piece], sums: Sums) -> dict[str, tuple[Part, ...]]:
    """Return the parts of each blob that is cut."""
    found: dict[str, tuple[Part, ...]] = {}
    for piece in sorted(pieces, key=lambda one: one.number or 0):
        if piece.number is not None:
            part = Part(sha256=sums[piece.sha256, piece.number], size=piece.size)
            found[piece.sha256] = (*found.get(piece.sha256, ()), part)
    return found


def volumes_of(pieces: Collection[Piece], sums: Sums, *, doubled: bool = False) -> tuple[Volume, ...]:
    """Return what each volume holds; with `doubled`, a sum for each piece, though some are the same."""
    contents: dict[int, list[str]] = {}
    for piece in pieces:
        name = piece.sha256 if piece.number is None else sums[piece.sha256, piece.number]
        contents.setdefault(piece.volume, []).append(name)
    return tuple(
        Volume(
            name=f"vol-{number + 1:03}", contents=tuple(sorted(contents[number] if doubled else set(contents[number])))
        )
        for number in sorted(contents)
    )  # fmt: skip
