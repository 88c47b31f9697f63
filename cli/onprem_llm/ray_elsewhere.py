"""A Ray cluster that somebody else runs, as the gateway host sees it: part of the look where the site names one."""

from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.hosts import Current, HostState
from onprem_llm.output import Progress
from onprem_llm.planning.ray_book import PROJECT
from onprem_llm.planning.ray_nodes import KEY
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.seam import run_folder, write_orders
from onprem_llm.serve_state import Elsewhere, ServeState, parse_serve
from onprem_llm.spec.ray import RayCluster


def with_ray(current: Current, gateway: HostState, connection: Connection, progress: Progress | None) -> Current:
    """Return the hosts with what the cluster at onprem_llm_site.ray.address says, on the gateway's that was asked.

    Why it says nothing is in the answer.
    """
    try:
        ray = RayCluster.model_validate(gateway.site.get("ray"))
    except ValidationError:
        return current  # whoever needs the settings says what is wrong with them
    try:
        serve = _asked(ray, gateway, connection, progress)
    except OnpremError as error:
        why = "\n".join(text for text in (error.message, error.details) if text)
        serve = ServeState(error=why, elsewhere=Elsewhere(ray.address or ""))
    told = replace(gateway, serve=serve)
    return replace(current, hosts=tuple(told if one is gateway else one for one in current.hosts))


def _asked(ray: RayCluster, gateway: HostState, connection: Connection, progress: Progress | None) -> ServeState:
    secrets = {"onprem_llm_secrets": {PROJECT: {"token": _token(ray.token_file)}}} if ray.token_file else None
    with run_folder() as folder:
        order = {gateway.name: {"address": ray.address, "token": KEY}}
        result = run(
            "ray_look.yml",
            connection,
            hosts=[gateway.name],
            variables={"onprem_llm_order_file": str(write_orders(folder, 0, order))},
            secrets=secrets,
            progress=progress,
            title=f"Asking the Ray cluster at {ray.address}",
        )
    raise_for_failures(result, doing="asking the Ray cluster")
    serve = parse_serve(result.returned.get(gateway.name, {}).get("serve"))
    if serve is None or serve.elsewhere is None:
        raise OnpremError(f"{gateway.name}: nothing was said of the Ray cluster at {ray.address}")
    return serve


def _token(path: str) -> str:
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"onprem_llm_site.ray.token_file: {path} cannot be read on this machine: {error}") from None
    if not token:
        raise InvalidError(f"onprem_llm_site.ray.token_file: {path} is empty, expected the Ray cluster's token")
    if not all("!" <= letter <= "~" for letter in token):
        raise InvalidError(
            f"onprem_llm_site.ray.token_file: {path} has more than a token: expected one line of printable ASCII "
            "without blanks",
            hint="write nothing but the token into it, no comment and no quotes",
        )
    return token
