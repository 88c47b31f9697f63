"""Who runs replicas: `compose`, a project on a host each; what is planned for `ray` so far is its cluster alone."""

from onprem_llm.errors import InvalidError
from onprem_llm.spec.deployment import Deployment


def refuse_backend(deployment: Deployment) -> None:
    """Raise InvalidError for a backend that nothing is planned for."""
    if deployment.backend == "ray":
        raise InvalidError(
            f"{deployment.name}: backend: found ray, expected compose: this version brings up the Ray cluster "
            "(onprem-llm cluster up), and deploys nothing to it yet",
            hint="write backend: compose, and replicas as a number",
        )
