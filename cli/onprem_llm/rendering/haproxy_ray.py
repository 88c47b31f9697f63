"""A deployment on Ray as a backend of HAProxy's: a server for each node's Serve proxy, which chooses the replica."""

from onprem_llm.rendering.haproxy_backends import WEIGHT, Backend, quoted, spelled


def ray_backend(one: Backend, prefix: str, timeout: int) -> str:
    """Return the deployment's file; `prefix`: the path that Serve knows it by, `timeout`: seconds without an answer."""
    named = f'"({spelled(one.served_name)})"'
    lines = [
        f"backend {one.deployment}",
        f"    timeout server {timeout}s",
        "    option redispatch 1",
        "    retries 3",
        "    retry-on conn-failure",
        "    # Serve closes what idles for 90 s, unless it is told otherwise: long after HAProxy has.",
        "    http-reuse always",
        "    balance leastconn",
        "    # Serve's proxy on a node that is left by its replicas fails this, and ends what it began: so requests on",
        "    # a server that goes down are not cut off. Of a host that is off the kernel notices within 20 seconds.",
        "    option srvtcpka",
        "    srvtcpka-idle 10s",
        "    srvtcpka-intvl 5s",
        "    srvtcpka-cnt 2",
        "    # A node without a replica or an ingress has no proxy, and is down.",
        "    option httpchk",
        "    http-check connect default",
        "    http-check send meth GET uri /-/healthz",
        "    http-check expect status 200",
        "    http-check connect default",
        f"    http-check send meth GET uri {prefix}/v1/models",
        f"    http-check expect rstring {quoted(named)}",
        "    # Serve asks for no key: its port is open to the gateways alone.",
        "    http-request del-header Authorization",
        f"    http-request replace-path (.*) {prefix}\\1",
        f"    default-server check inter 3s fastinter 500ms fall 3 rise 1 pool-purge-delay 1s weight {WEIGHT}",
        *(_server(server.project, server.address, server.port) for server in one.servers),
    ]
    return "\n".join(lines) + "\n"


def _server(name: str, address: str, port: int) -> str:
    return f"    server {name} {f'[{address}]' if ':' in address else address}:{port}"
