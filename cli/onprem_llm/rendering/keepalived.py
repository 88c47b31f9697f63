"""The address that gateway hosts share, as a Compose project: keepalived speaks VRRP and asks HAProxy how it is."""

import hashlib
import ipaddress
from dataclasses import dataclass

from onprem_llm.rendering.compose import LABEL, Draft
from onprem_llm.rendering.haproxy_process import METRICS_PORT

PROJECT = "gateway-address"
SERVICE = "keepalived"
CONFIG = "keepalived.conf"
FIRST_PRIORITY, STEP = 150, 10


@dataclass(frozen=True, slots=True)
class SharedAddress:
    """One gateway host's part. `rank` is its place among the gateways: where two start at once, the first wins."""

    image: str
    address: str  # the shared one
    interface: str
    own: str  # this host's, as the others reach it
    peers: tuple[str, ...]
    rank: int = 0


def draft(shared: SharedAddress) -> Draft:
    """Build the project; other text in its configuration is another container."""
    text = _config(shared)
    labels = {
        f"{LABEL}.project": PROJECT,
        f"{LABEL}.address": shared.address,
        f"{LABEL}.config": hashlib.sha256(text.encode()).hexdigest(),
    }
    return Draft(PROJECT, SERVICE, _body(shared), labels, {CONFIG: text})


def _body(shared: SharedAddress) -> dict[str, object]:
    return {
        "image": shared.image,
        "pull_policy": "never",
        "restart": "unless-stopped",
        "network_mode": "host",
        "cap_drop": ["ALL"],
        # The last is for the script that it asks HAProxy with: it drops the groups it has not got.
        "cap_add": ["NET_ADMIN", "NET_BROADCAST", "NET_RAW", "SETGID"],
        # The image's own is HAProxy's. On this one the address is let go, and the other host told.
        "stop_signal": "SIGTERM",
        "command": [
            *("keepalived", "--dont-fork", "--vrrp", "--log-console", "--no-syslog"),
            *("--use-file", f"/etc/keepalived/{CONFIG}"),
        ],
        "volumes": [f"./{CONFIG}:/etc/keepalived/{CONFIG}:ro"],
        "healthcheck": {
            "test": ["CMD", "pidof", "keepalived"],
            "interval": "3s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "5s",
        },
    }


def router_id(address: str) -> int:
    """Return the group's number, 1 to 255; two sites on one wire share one only if n * 255 lies between them."""
    return int(ipaddress.ip_address(address)) % 255 + 1


def _config(shared: SharedAddress) -> str:
    """A host that is silent for three adverts, and a moment by priority, is gone: 1.0 to 1.1 s."""
    prefix = ipaddress.ip_address(shared.address).max_prefixlen
    return f"""\
# Rendered by onprem-llm: what you change here is gone with the next deploy.
global_defs {{
    router_id onprem-llm
    vrrp_version 3
    enable_script_security
    script_user root
    # Neighbours learn where the address is at once, and again should they have missed it.
    vrrp_garp_master_delay 1
    vrrp_garp_master_refresh 10
}}

# Who has no HAProxy that answers has no business with the address.
vrrp_script haproxy {{
    script "/usr/local/bin/healthy {METRICS_PORT}"
    interval 0.4
    timeout 0.8
    fall 2
    rise 2
    init_fail
}}

vrrp_instance shared {{
    # Nobody takes it from one that serves: a host that comes back would cut every stream.
    state BACKUP
    nopreempt
    interface {shared.interface}
    virtual_router_id {router_id(shared.address)}
    priority {FIRST_PRIORITY - STEP * shared.rank}
    advert_int 0.3
{_peers(shared)}    virtual_ipaddress {{
        {shared.address}/{prefix} dev {shared.interface}
    }}
    track_script {{
        haproxy
    }}
}}
"""


def _peers(shared: SharedAddress) -> str:
    """VRRP 3 knows no password: adverts are taken from the named hosts alone, and only where no router passed them on.

    A lone host has nobody to name.
    """
    if not shared.peers:
        return ""
    peers = "".join(f"        {peer} min_ttl 255\n" for peer in shared.peers)
    # Without the first word a peer is only somebody to send to; without the second, IPv6 leaves with the host's own 64.
    words = f"    check_unicast_src\n    unicast_ttl 255\n    unicast_src_ip {shared.own}\n"
    return f"{words}    unicast_peer {{\n{peers}    }}\n"
