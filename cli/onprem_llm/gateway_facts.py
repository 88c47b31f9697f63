"""From the probe's JSON: the gateway, the firewall and the certificates of a host."""

from collections.abc import Mapping

from onprem_llm.gateway_state import RENEW_S, Certificate, Firewall, GangWall, GatewayState, RayFirewall, ServerState
from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.probe_values import mapping, mappings, number, text, texts


def parse_gateway(raw: object) -> GatewayState | None:
    """Read the gateway process; None on a host that has none."""
    if not is_mapping(raw):
        return None
    servers = {name: _server(value) for name, value in mapping(raw.get("servers")).items() if is_mapping(value)}
    pending = bool(raw.get("pending_reload"))
    return GatewayState(bool(raw.get("running")), text(raw, "error"), servers, pending, texts(raw.get("peers")))


def _server(raw: Mapping[str, object]) -> ServerState:
    return ServerState(
        address=text(raw, "address") or "",
        port=number(raw, "port") or 0,
        admin=text(raw, "admin") or "ready",
        up=bool(raw.get("up")),
        check=text(raw, "check"),
        sessions=number(raw, "sessions") or 0,
    )


def parse_firewall(raw: object) -> Firewall | None:
    """Read the rules that guard the engines; None where there are none."""
    if not is_mapping(raw):
        return None
    gangs = tuple(GangWall(_ports(one), texts(one.get("sources"))) for one in mappings(raw.get("gangs")))
    return Firewall(_ports(raw), texts(raw.get("sources")), bool(raw.get("active")), gangs)


def _ports(raw: Mapping[str, object]) -> tuple[int, ...]:
    ports = raw.get("ports")
    return tuple(port for port in ports if isinstance(port, int)) if is_list(ports) else ()


def parse_ray_firewall(raw: object) -> RayFirewall | None:
    """Read the rules that guard Ray; None where there are none."""
    if not is_mapping(raw):
        return None
    rules = {ports: texts(sources) for ports, sources in mapping(raw.get("rules")).items()}
    return RayFirewall(rules, bool(raw.get("active")))


def parse_certificates(raw: object, now: int | None = None) -> dict[str, Certificate]:
    """Read when certificates end: ca, gateway, engine. `now` is what their host's clock says."""
    found = {name: value for name, value in mapping(raw).items() if is_mapping(value)}
    return {
        name: Certificate(
            end, texts(value.get("names")), now is not None and end < now + RENEW_S, number(value, "written")
        )
        for name, value in found.items()
        if (end := number(value, "not_after")) is not None
    }
