"""Bootstrap: look at the hosts, choose what must be chosen, then let the roles bring each host to that state."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.findings import Finding, findings_of
from onprem_llm.gateway_choice import GatewayChoice, choose_gateway
from onprem_llm.hosts import Current
from onprem_llm.json_values import is_list
from onprem_llm.look import look
from onprem_llm.output import Progress
from onprem_llm.package_trees import PackageTrees
from onprem_llm.planning.address_pools import AddressPool, choose_pools
from onprem_llm.run_events import HostFailure, RunResult
from onprem_llm.runner import run
from onprem_llm.seam import run_folder, write_orders
from onprem_llm.secret_values import read_values
from onprem_llm.spec.site import Site, parse_site
from onprem_llm.wanted import inventory_folder


@dataclass
class Report:
    """What is known of the hosts so far. A host with a failure takes no further part."""

    hosts: tuple[str, ...]
    failures: list[HostFailure] = field(default_factory=list)
    findings: dict[str, tuple[Finding, ...]] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    gateway: str | None = None
    records_gateway: bool = False
    gateway_note: str | None = None
    """Why none is recorded, and what to do."""
    seconds: tuple[str, ...] = ()
    """The gateway hosts beside the first."""
    reboots: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The hosts that want a reboot, and why."""
    root: str | None = None
    """The site's root certificate in PEM, where the gateway host took part."""

    @property
    def able(self) -> list[str]:
        """The hosts that are well so far."""
        bad = {failure.host for failure in self.failures}
        return [host for host in self.hosts if host not in bad]

    def take(self, result: RunResult) -> None:
        """Add what a run says; later findings of a host replace earlier ones."""
        self.failures += result.failures
        for host, values in result.returned.items():
            if "findings" in values:
                self.findings[host] = findings_of(host, values["findings"])
            self.root = values.get("ca", self.root)

    def as_result(self) -> RunResult:
        """Return all of it as one run's result, for the message about what failed."""
        return RunResult(self.hosts, {}, self.changed, tuple(self.failures))


@dataclass(frozen=True)
class Prepared:
    """What was found out before anything is changed."""

    report: Report
    site: Site
    orders: Mapping[str, Mapping[str, object]]


def prepare(connection: Connection, progress: Progress) -> Prepared:
    """Look at every host and decide what bootstrap will do; nothing is changed.

    Raises InvalidError for site settings that are wrong. Hosts that cannot be prepared are in the report.
    """
    view = look(connection, progress)
    current = view.current
    report = Report(_in_order(current, view.failures), list(view.failures))
    site = parse_site(current.site_settings(), f"{connection.inventory} (group_vars)")
    check_files(site)
    if not report.able:
        return Prepared(report, site, {})
    choice = choose_gateway(current, connection, progress)
    report.gateway, report.records_gateway, report.gateway_note = choice.name, choice.records, choice.note
    report.seconds = choice.seconds
    base = base_order(site, peers(site, current))
    with run_folder() as folder:
        orders = dict.fromkeys(report.able, base)
        result = _run("preflight.yml", "Checking the hosts", folder, orders, connection, progress)
    report.take(result)
    pools = pools_of(site, result, report)
    packages = packages_of(site, connection.inventory, result, report)
    return Prepared(report, site, {h: _order(h, base, pools[h], choice) | packages.get(h, {}) for h in report.able})


def carry_out(prepared: Prepared, connection: Connection, progress: Progress) -> Report:
    """Bring the hosts to the state that was decided on."""
    report = prepared.report
    with run_folder() as folder:
        result = _run(
            "bootstrap.yml",
            "Preparing the hosts",
            folder,
            prepared.orders,
            connection,
            progress,
            secrets=registry_password(prepared.site),
        )
    report.take(result)
    report.changed = dict(result.changed)
    report.reboots = {host: why for host, why in reasons_of(result).items() if host in report.able}
    return report


def reasons_of(result: RunResult) -> dict[str, tuple[str, ...]]:
    """Return the hosts that want a reboot, and why."""
    found = {host: values.get("reboot") for host, values in result.returned.items()}
    return {host: tuple(str(one) for one in why) for host, why in found.items() if is_list(why) and why}


def _run(
    playbook: str,
    title: str,
    folder: Path,
    orders: Mapping[str, Mapping[str, object]],
    connection: Connection,
    progress: Progress,
    secrets: Mapping[str, str] | None = None,
) -> RunResult:
    path = write_orders(folder, 0, orders)
    return run(
        playbook,
        connection,
        hosts=list(orders),
        variables={"onprem_llm_order_file": str(path), "onprem_llm_seam": str(folder)},
        secrets={"onprem_llm_secrets": dict(secrets)} if secrets else None,
        progress=progress,
        title=title,
    )


def _in_order(current: Current, failures: Iterable[HostFailure]) -> tuple[str, ...]:
    names = [host.name for host in current.hosts] + list(current.unreachable) + [failure.host for failure in failures]
    return tuple(dict.fromkeys(names))


def check_files(site: Site) -> None:
    """Raise InvalidError for a file that the settings name and the control host does not have."""
    named = {"extra_ca": site.extra_ca, "registry.ca_file": site.registry.ca_file if site.registry else None}
    named["nvidia_driver.run_file"] = site.nvidia_driver.run_file
    for setting, path in named.items():
        if path and not Path(path).is_file():
            raise InvalidError(
                f"onprem_llm_site.{setting}: no such file on this machine: {path}", hint="mend the path in group_vars"
            )


def registry_password(site: Site) -> dict[str, str]:
    """Read the registry's password from where the settings say."""
    if site.registry is None or site.registry.password is None:
        return {}
    reference = site.registry.password.model_dump(exclude_none=True)
    return read_values({"registry_password": reference}, "onprem_llm_site.registry.password")


def peers(site: Site, current: Current) -> list[str]:
    """Return the names and addresses that docker's networks must never hide: what hosts fetch from, and each other."""
    mirrors = site.package_mirrors
    urls: list[str | None] = list(mirrors.model_dump().values())
    urls += [site.proxy.http, site.proxy.https] if site.proxy else []
    found = [urlsplit(url).hostname for url in urls if url]
    found += [urlsplit(f"//{site.registry.address}").hostname] if site.registry else []
    found += [host.ansible_host for host in current.hosts]
    return list(dict.fromkeys(name for name in found if name))


def base_order(site: Site, peers: Sequence[str]) -> dict[str, object]:
    """Return what is the same in every host's order."""
    registry = site.registry.model_dump(include={"address", "ca_file", "username"}) if site.registry else None
    return {
        "data_root": site.data_root,
        "weights_dir": site.weights_path,
        "peers": list(peers),
        "registry": registry,
        "package_mirrors": site.package_mirrors.model_dump(exclude_none=True),
        "proxy": site.proxy.model_dump(mode="json", exclude_none=True) if site.proxy else None,
        "extra_ca": site.extra_ca,
        "nvidia_driver": site.nvidia_driver.model_dump(mode="json"),
        "nvidia_container_toolkit": site.nvidia_container_toolkit.model_dump(mode="json"),
    }


def pools_of(site: Site, result: RunResult, report: Report) -> dict[str, tuple[AddressPool, ...] | None]:
    """Choose docker's networks for each host that is well; where none can be, the host fails with the reason."""
    wanted = [AddressPool.parse(pool.model_dump()) for pool in site.docker.address_pools or ()] or None
    chosen = {}
    for host in report.able:
        try:
            chosen[host] = choose_pools(host, result.returned[host]["network"], wanted)
        except InvalidError as error:
            text = f"{error.message}. {error.hint or ''}"
            report.failures.append(HostFailure(host, "Choose docker's networks", text, unreachable=False))
    return chosen


def packages_of(site: Site, inventory: Path, result: RunResult, report: Report) -> dict[str, dict[str, object]]:
    """Return what adds the packages of its release to each host's order; where there are none, the host fails.

    Nothing where the site names no folder of packages: they come from where the hosts have them then.
    """
    if site.packages_dir is None:
        return {}
    trees = PackageTrees(inventory_folder(inventory) / Path(site.packages_dir).expanduser())
    chosen: dict[str, dict[str, object]] = {}
    for host in report.able:
        system = result.returned[host]["system"]
        try:
            tree = trees.for_host(system["id"], system["version_id"], system["machine"])
        except InvalidError as error:
            text = f"{error.message}. {error.hint or ''}"
            report.failures.append(HostFailure(host, "Choose packages", text, unreachable=False))
        else:
            chosen[host] = {"packages": tree.order(site.data_root)}
    return chosen


def _order(
    host: str, base: Mapping[str, object], pools: tuple[AddressPool, ...] | None, choice: GatewayChoice
) -> dict[str, object]:
    listed = None if pools is None else [pool.as_order() for pool in pools]
    roles = {"gateway": host == choice.name, "second": host in choice.seconds}
    return {**base, "address_pools": listed, **roles}
