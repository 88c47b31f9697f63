"""Which deployments of the book are on Ray, and what the document is called that Ray Serve is told of them."""

from onprem_llm.hosts import Current
from onprem_llm.planning.revisions import weights_of
from onprem_llm.spec.deployment import Deployment, parse_deployment

# The document's folder on the host that tells Serve, and in the seam; what was told before, for the way back.
PROJECT, BEFORE = "ray-serve", "ray-serve.before"
DOCUMENT = "serve.json"

# A deployment, and the weights that it is to serve.
Pair = tuple[Deployment, str]


def on_ray(current: Current) -> dict[str, Pair]:
    """Return the deployments that the book has on Ray."""
    found = {}
    for name, entry in current.book.items():
        deployment = parse_deployment(entry.model_yaml, f"the book's {name}")
        if deployment.backend == "ray":
            found[name] = (deployment, weights_of(entry.model_yaml) or "")
    return found
