"""A plan for hosts that nobody can reach: as the facts say they are, prepared and empty."""

from dataclasses import replace
from pathlib import Path

from onprem_llm.caches import cache_folder
from onprem_llm.connection import Connection
from onprem_llm.facts.as_hosts import hosts_of
from onprem_llm.hosts import Current
from onprem_llm.locking.site_settings import site_of_inventory
from onprem_llm.output import Progress
from onprem_llm.planning.compatibility.check import check_hosts
from onprem_llm.planning.memory.auto import resolved
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import ImageSource, Plan, Wanted, WantedDeployment
from onprem_llm.spec.deployment import load_deployment
from onprem_llm.spec.facts import Facts
from onprem_llm.spec.gateway import Tls
from onprem_llm.spec.site import Site
from onprem_llm.spec.weights_folder import check_folder
from onprem_llm.spec.weights_identity import scan_folder
from onprem_llm.wanted import Images
from onprem_llm.weights.headers import read_model_files
from onprem_llm.weights.local import check_pulled, weights_folder

WARNING = (
    "planned from facts: what runs on the hosts now, their addresses, and the secrets that model.yaml refers to are "
    "not known here"
)


def plan_of_facts(model_yaml: Path, facts: Facts, connection: Connection, progress: Progress) -> Plan:
    """Plan a deployment for hosts of these facts, with the settings of an inventory that is read and not reached."""
    deployment = load_deployment(model_yaml)
    site = site_of_inventory(connection, progress)
    # A given certificate is on the site; nothing of a plan that is only looked at depends on it.
    site = site.model_copy(update={"gateway": site.gateway.model_copy(update={"tls": Tls()})})
    current = Current(tuple(hosts_of(facts, site)))
    folder = weights_folder(deployment, model_yaml)
    notes = check_folder(folder, deployment.model.allow)
    files = read_model_files(folder)
    check_hosts(deployment, files, current.hosts)  # hashing takes long, and what runs nowhere is known before
    weights = scan_folder(folder, cache_folder())
    check_pulled(deployment, weights)
    images = Images(site, connection.inventory, current)
    deployment = resolved(deployment, files, current.hosts)
    item = WantedDeployment(
        deployment,
        weights,
        str(folder),
        _somewhere(images.source(deployment.engine.image, None)),
        notes=(WARNING, *notes),
        files=files,
    )
    made = plan(site, _wanted(item, site, images), current)
    # Its addresses are made up.
    return replace(made, based_on="facts", endpoints=())


def _wanted(item: WantedDeployment, site: Site, images: Images) -> Wanted:
    ui = _somewhere(images.source(site.open_webui.image, None)) if site.open_webui.enabled else None
    gateway = _somewhere(images.source(site.gateway.image, None))
    return Wanted((item,), focus=item.deployment.name, ui_image=ui, gateway_image=gateway)


def _somewhere(source: ImageSource) -> ImageSource:
    """Take it that what no archive holds can be pulled: this machine may not reach the registry that hosts do."""
    return source if source.archive or source.pull else replace(source, pull=source.ref)
