"""What a replica over two hosts is refused for, on the hosts, before any part of it starts.

No engine is wanted, but for a gang of the real one in whose second host's weights another revision is put.
"""

import contextlib
from collections.abc import Iterator

import pytest
from tests.load.rehearsal import Rehearsal
from tests.load.served import Served, served, stub_text
from tests.system.test_gang import BACK_S, GANG, PROMPTS, Asked, parts

SHUT = """\
api_version: 1
name: shut
model: model
engine: {image: IMAGE, engine_args: {max_model_len: 512, tensor_parallel_size: 2}}
resources: {gpus: 0, nodes: 2}
port: 8300
timeouts: {start: 60, readiness: 20}
"""
API_PORT, GANG_PORTS = 8300, (7600, 7601)
# Another revision's file in place of the one that was sent: as large, another inode, other numbers at its end.
OTHER_REVISION = """\
cd /srv/onprem-llm/weights/model-*/ && cp model.safetensors .other && printf other |
dd of=.other conv=notrunc status=none bs=1 seek=$(($(stat -c %s .other) - 5)) && mv .other model.safetensors
"""
SUMS = "cd /srv/onprem-llm/weights/model-*/ && sha256sum *"
# As a firewall of the host's own does it, ufw or firewalld: strangers are dropped on the way in.
TABLE = "table inet made_shut"
RULES = TABLE + ' {{ chain in {{ type filter hook input priority 0; iif "lo" accept; tcp dport {ports} drop; }}; }}'


@pytest.fixture(scope="module")
def gateway(rehearsal: Rehearsal) -> Iterator[Served]:
    """Another deployment on the gateway's host: a gang begins on the host that has less."""
    text = stub_text(rehearsal, "beside", port=8200, replicas=1)
    with served(rehearsal, "beside", text, replicas=1) as one:
        yield one


@contextlib.contextmanager
def shut(rehearsal: Rehearsal, host: str, *ports: int) -> Iterator[None]:
    """Shut ports of a host to all others."""
    rules = RULES.format(ports="{ " + ", ".join(map(str, ports)) + " }")
    rehearsal.lab.exec_root(host, "nft", rules)
    try:
        yield
    finally:
        rehearsal.lab.exec_root(host, "nft", f"delete {TABLE}")


def refused(rehearsal: Rehearsal, image: str = "onprem-llm/stub-engine:1") -> str:
    """Deploy; return what was said when it failed, with nothing of it on any host."""
    rehearsal.site.write("shut.yaml", SHUT.replace("IMAGE", image))
    done = rehearsal.site.run("deploy", "shut.yaml", "--yes", code=None, timeout=1200)
    assert done.returncode != 0, done.stdout
    for host in rehearsal.hosts:
        there = rehearsal.lab.exec_root(host, "docker", "ps", "--all", "--format", "{{.Names}}").split()
        assert not [name for name in there if name.startswith("shut-")]
    return done.stdout + done.stderr


def test_a_port_of_the_gang_that_is_shut_on_one_host(rehearsal: Rehearsal, gateway: Served) -> None:
    first, second = rehearsal.hosts
    with shut(rehearsal, second, *GANG_PORTS):
        said = refused(rehearsal)
    for port in GANG_PORTS:
        assert f"{second} at {rehearsal.address(second)}: {port}: no answer" in said
    assert f"ufw allow proto tcp from {rehearsal.address(first)};" in said


def test_the_port_of_requests_that_is_shut_to_the_gateway(rehearsal: Rehearsal, gateway: Served) -> None:
    first, second = rehearsal.hosts
    with shut(rehearsal, second, API_PORT):
        said = refused(rehearsal)
    assert f"{second} at {rehearsal.address(second)}: {API_PORT}: no answer" in said
    assert f"ufw allow proto tcp from {rehearsal.address(first)} to any port {API_PORT};" in said


def test_a_port_that_somebody_takes_in_the_meantime(rehearsal: Rehearsal, gateway: Served) -> None:
    """The plan passes over ports that are taken; this one is asked for by name, and another process has it."""
    second = rehearsal.hosts[1]
    listening = "import socket, time; one = socket.create_server(('', 8300)); time.sleep(600)"
    rehearsal.lab.exec_root(second, "systemd-run", "--unit", "made-listener", "python3", "-c", listening)
    try:
        said = refused(rehearsal)
    finally:
        rehearsal.lab.exec_root(second, "systemctl", "stop", "made-listener")
    assert f"port {API_PORT} of {second}" in said or (second in said and str(API_PORT) in said)


def test_a_tag_that_is_another_image_on_the_second_host(rehearsal: Rehearsal, gateway: Served) -> None:
    made = "tar -c -T /dev/null | docker import -c 'LABEL made={}' - made/engine:1"
    ids = {host: rehearsal.lab.exec_root(host, "sh", "-c", made.format(host)).strip() for host in rehearsal.hosts}
    try:
        said = refused(rehearsal, "made/engine:1")
    finally:
        for host in rehearsal.hosts:
            rehearsal.lab.exec_root(host, "docker", "image", "rm", "made/engine:1")
    assert "shut-0 would run two images as one: made/engine:1 is" in said.replace("\n", " ")
    for host, image in ids.items():
        assert f"{image[:19]} on {host}" in said


@pytest.fixture(scope="module")
def wide(rehearsal: Rehearsal) -> Iterator[tuple[Served, list[int]]]:
    """A gang that serves, with two revisions in the book, and what it says; then the other file on the second host."""
    with served(rehearsal, "wide", GANG, replicas=1) as one:
        one.text = GANG + "readiness: {timeout: 50}\n"  # starts nothing anew
        one.deploy()
        text = Asked(one).tokens(PROMPTS[0])
        assert text
        rehearsal.lab.exec_root(rehearsal.hosts[1], "sh", "-c", OTHER_REVISION)
        yield one, text


def births(one: Served) -> dict[str, str]:
    return {name: replica.born for name, replica in parts(one).items()}


@pytest.mark.parametrize("command", [("restart",), ("rollback",), ("scale", "--replicas", "1")])
def test_another_revision_in_one_hosts_weights_is_refused_by_what_has_no_weights(
    wide: tuple[Served, list[int]], command: tuple[str, ...]
) -> None:
    one, _ = wide
    before, (verb, *options) = births(one), command
    done = one.site.run(verb, "wide", *options, "--yes", code=None)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 3, said
    second = one.rehearsal.hosts[1]
    assert f"{second}: weight file model.safetensors differs, and this command does not have them" in said
    assert "deploy with the model.yaml beside which the weights lie" in said
    assert births(one) == before


def test_deploy_brings_the_right_revision_to_that_host_before_the_parts_start_anew(
    wide: tuple[Served, list[int]],
) -> None:
    one, text = wide
    before, (_, second) = births(one), one.rehearsal.hosts
    one.write(("max_model_len: 512", "max_model_len: 500"))
    changes = one.site.json("plan", one.file)["changes"]
    assert [(c["host"], c["reasons"]) for c in changes if c["subject"].startswith("weights ")] == [
        (second, ["weight file model.safetensors differs"])
    ]
    one.deploy(("max_model_len: 512", "max_model_len: 500"))
    sums = {one.rehearsal.lab.exec_root(host, "sh", "-c", SUMS) for host in one.rehearsal.hosts}
    assert len(sums) == 1, sums
    assert all(births(one)[name] != born for name, born in before.items())
    one.in_rotation(1, seconds=BACK_S)
    assert Asked(one).tokens(PROMPTS[0]) == text
