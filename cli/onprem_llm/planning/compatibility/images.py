"""Images of vLLM by their names: which release and variant a tag is, and how the table says that it was built."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.version import Version

from onprem_llm.image_names import image_name
from onprem_llm.planning.compatibility.table import Image, Table

REPOSITORY = "vllm/vllm-openai"
OWN = "onprem-llm/"
# v0.20.2, v0.20.2-cu129, v0.20.2-x86_64-cu129-ubuntu2404: as vLLM publishes them.
_TAG = re.compile(
    r"v(?P<release>\d+\.\d+\.\d+(?:\.post\d+)?)(?:-(?P<architecture>x86_64|aarch64))?"
    r"(?:-(?P<variant>cu\d{3}))?(?P<system>-ubuntu\d{4})?"
)


@dataclass(frozen=True, slots=True)
class Tag:
    """What a tag says; `architecture` is None for one that is of both."""

    release: Version
    variant: str = ""
    architecture: str | None = None
    system: str = ""

    def __str__(self) -> str:
        """Write it as it is pulled."""
        parts = (f"v{self.release}", self.architecture, self.variant)
        return "-".join(part for part in parts if part) + self.system


def is_own(ref: str) -> bool:
    """Tell whether an image is one that this project makes: the table has nothing to say of it."""
    return image_name(ref).path.startswith(OWN)


def read_tag(ref: str) -> Tag | None:
    """Read the name of an image of vLLM, wherever a site mirrors it; None for every other."""
    name = image_name(ref)
    found = _TAG.fullmatch(name.tag or "")
    if found is None or not f"/{name.path}".endswith(f"/{REPOSITORY}"):
        return None
    return Tag(Version(found["release"]), found["variant"] or "", found["architecture"], found["system"] or "")


def how_built(table: Table, tag: Tag, architecture: str) -> Image | None:
    """Return how an image was built for an architecture; None where the table does not know."""
    rows = (row for row in table.images if (row.variant, row.architecture) == (tag.variant, architecture))
    return next((row for row in rows if row.built_like(tag.release)), None)


def others(table: Table, tag: Tag, architecture: str) -> Iterator[Tag]:
    """Yield the known images of an architecture, those nearest to a tag first.

    Of the same release before others, then older ones, newest first, then newer ones.
    """
    rows = [row for row in table.images if row.architecture == architecture]
    known = {(release, row.variant) for row in rows for release in row.releases}
    known |= {(tag.release, row.variant) for row in rows if row.built_like(tag.release)}
    known -= {(tag.release, tag.variant)}
    older = sorted((one for one in known if one[0] <= tag.release), key=lambda one: (-_number(one[0]), one[1]))
    newer = sorted(one for one in known if one[0] > tag.release)
    yield from (Tag(release, variant, tag.architecture) for release, variant in (*older, *newer))


def named(ref: str, tag: Tag) -> str:
    """Name another image at the same place: ref's registry and repository, without its digest."""
    bare = ref.partition("@")[0]
    return f"{bare.rpartition(':')[0]}:{tag}"


def _number(release: Version) -> float:
    """Return a number that orders releases: the tuple of a Version cannot be turned round."""
    return release.major * 1e6 + release.minor * 1e3 + release.micro + (release.post or 0) / 1e3
