"""Which bytes an image means when neither an archive nor the book says so."""

from pathlib import Path

import recorded_facts as made
from recorded_facts import Facts

from onprem_llm.planning.types import ImageSource
from onprem_llm.spec.site import Site
from onprem_llm.wanted import Images

DIGEST = "sha256:" + "a" * 64
INVENTORY = Path("inventory.ini")


def pulled(facts: dict[str, Facts], name: str, ref: str, repository: str) -> dict[str, Facts]:
    facts[name]["images"] = [{"id": made.image_id(ref), "tags": [ref], "digests": [f"{repository}@{DIGEST}"]}]
    return facts


def source(facts: dict[str, Facts], ref: str, site: Site | None = None) -> ImageSource:
    return Images(site or Site(), INVENTORY, made.current(facts)).source(ref, None)


def test_a_page_that_was_pulled_keeps_its_digest() -> None:
    repository = "ghcr.io/open-webui/open-webui"
    facts = pulled(made.lab(), "lab-1", made.UI_IMAGE, repository)
    assert source(facts, made.UI_IMAGE).pull == f"{repository}@{DIGEST}"


def test_what_one_host_has_pulled_another_can_pull() -> None:
    facts = pulled(made.lab(), "lab-2", made.VLLM_IMAGE, "vllm/vllm-openai")
    assert source(facts, made.VLLM_IMAGE).pull == f"vllm/vllm-openai@{DIGEST}"


def test_a_digest_of_the_sites_registry_counts_and_another_does_not() -> None:
    site = made.site(registry={"address": "registry.local:5000"})
    facts = pulled(made.lab(), "lab-1", made.UI_IMAGE, "registry.local:5000/open-webui/open-webui")
    assert source(facts, made.UI_IMAGE, site).pull == f"registry.local:5000/open-webui/open-webui@{DIGEST}"
    assert source(facts, made.UI_IMAGE).pull is None


def test_a_loaded_image_has_no_digest_and_is_known_by_its_tag() -> None:
    facts = made.lab()
    facts["lab-1"]["images"] = [{"id": made.image_id(made.UI_IMAGE), "tags": [made.UI_IMAGE], "digests": []}]
    assert source(facts, made.UI_IMAGE) == ImageSource(made.UI_IMAGE)
