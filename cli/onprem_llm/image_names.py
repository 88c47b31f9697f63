"""Names of images, taken apart and put in order as docker does it."""

import re
from dataclasses import dataclass

from onprem_llm.errors import InvalidError

HUB = "docker.io"
# docker's own rules (distribution's reference package): a part of a repository, a tag, a registry.
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST = 255


@dataclass(frozen=True, slots=True)
class ImageName:
    """`vllm/vllm-openai` is docker.io and vllm/vllm-openai with the tag latest; one with a digest may have no tag."""

    host: str
    path: str
    tag: str | None
    digest: str | None = None

    @property
    def repository(self) -> str:
        """Return the repository's name in a registry of ours: the host first, so that no two are one there."""
        return f"{self.host.lower().replace(':', '_')}/{self.path}"


def image_name(ref: str) -> ImageName:
    """Take a reference apart; InvalidError for one that docker would not take."""
    rest, at, digest = ref.partition("@")
    first, slash, remainder = rest.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    host, rest = (first, remainder) if is_host else (HUB, rest)
    path, colon, tag = rest.partition(":")
    if host == f"index.{HUB}":
        host = HUB
    if host == HUB and "/" not in path:
        path = f"library/{path}"
    name = ImageName(host, path, tag if colon else None if at else "latest", digest if at else None)
    problem = _problem(name)
    if problem:
        raise InvalidError(
            f"image {ref!r}: {problem}", hint="write it as docker takes it, such as vllm/vllm-openai:v0.11.0"
        )
    return name


def _problem(name: ImageName) -> str | None:
    if not _HOST.fullmatch(name.host):
        return f"{name.host!r} is no host of a registry"
    if not _REPOSITORY.fullmatch(name.path) or not _REPOSITORY.fullmatch(name.repository):
        return f"{name.path!r} is no repository's name"
    if len(name.repository) > _LONGEST:
        return f"its name is longer than {_LONGEST} characters"
    if name.tag is not None and not _TAG.fullmatch(name.tag):
        return f"{name.tag!r} is no tag"
    if name.digest is not None and not _DIGEST.fullmatch(name.digest):
        return f"{name.digest!r} is no digest, expected sha256: and 64 hex digits"
    return None
