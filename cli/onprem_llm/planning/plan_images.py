"""Which images a plan starts and brings, whoever rendered them."""

from collections.abc import Iterator, Mapping

from onprem_llm import fast_yaml
from onprem_llm.json_values import is_list
from onprem_llm.planning.types import Plan
from onprem_llm.probe_values import mapping, mappings, text


def images_in(plan: Plan) -> Iterator[str]:
    """Yield what the rendered files call an image: of every project, on every host, once for each service."""
    for projects in plan.files.values():
        for files in projects.values():
            if "compose.yaml" in files:
                services = mapping(mapping(fast_yaml.read(files["compose.yaml"])).get("services"))
                yield from (image for one in services.values() if (image := text(mapping(one), "image")))


def images_brought(plan: Plan) -> Iterator[str]:
    """Yield the references of images that the steps bring to hosts, of those too that no file starts."""
    for step in plan.steps:
        for order in step.orders.values():
            yield from _refs(order)


def _refs(order: Mapping[str, object]) -> Iterator[str]:
    images = order.get("images")
    for one in mappings(list(images)) if is_list(images) else ():
        ref = text(one, "ref")
        if ref is not None:
            yield ref
