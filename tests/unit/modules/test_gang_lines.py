"""The lines of a gang are tried: real sockets on loopback, real processes."""

import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.loopback import free_port

from .conftest import Load

HOME = "127.0.0.1"


@pytest.fixture
def lines(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load("gang_lines/gang_lines")
    monkeypatch.setattr(module, "PIDS", tmp_path)
    return module


@pytest.fixture
def ports(lines: ModuleType) -> Iterator[list[int]]:
    chosen = [free_port(), free_port()]
    yield chosen
    lines.end(chosen)


def test_lines_that_bear_it_are_no_error_and_the_ports_are_free_afterwards(lines: ModuleType, ports: list[int]) -> None:
    lines.listen(HOME, ports, 60)
    lines.tried(HOME, ports, [{"host": "lab-2", "address": HOME}])
    lines.end(ports)
    for port in ports:
        with socket.create_server((HOME, port)):
            pass


def test_a_port_that_somebody_has_is_named(lines: ModuleType, ports: list[int]) -> None:
    with socket.create_server((HOME, ports[1])), pytest.raises(lines.LineError) as raised:
        lines.listen(HOME, ports, 60)
    assert f"port {ports[1]}: Address already in use" in str(raised.value)
    with socket.create_server((HOME, ports[0])):
        pass


def test_a_host_that_is_not_reached_is_named_with_each_port(lines: ModuleType, ports: list[int]) -> None:
    with pytest.raises(lines.LineError) as raised:
        lines.tried(HOME, ports, [{"host": "lab-2", "address": HOME}])
    for port in ports:
        assert f"lab-2 at {HOME}: {port}: Connection refused" in str(raised.value)
    assert "onprem-llm check --network" in str(raised.value)


def test_a_port_of_the_kernels_choice_that_is_shut_is_named(lines: ModuleType, ports: list[int]) -> None:
    with socket.create_server((HOME, 0)) as gone:
        shut = gone.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        real = lines.connect
        patch.setattr(lines, "connect", lambda address, port: real(address, port) if port == shut else str(shut))
        with pytest.raises(lines.LineError) as raised:
            lines.tried(HOME, ports, [{"host": "lab-2", "address": HOME}])
    assert f"{shut} (one of those that the kernel chooses" in str(raised.value)


def test_a_second_try_ends_what_the_first_one_left(lines: ModuleType, ports: list[int]) -> None:
    lines.listen(HOME, ports, 60)
    lines.listen(HOME, ports, 60)
    lines.tried(HOME, ports, [{"host": "lab-2", "address": HOME}])


def test_a_gateway_tries_the_port_of_requests_alone(lines: ModuleType, ports: list[int]) -> None:
    """The one of the kernel's choice may be shut to it."""
    lines.listen(HOME, ports[:1], 60)
    with pytest.MonkeyPatch.context() as patch:
        tried: list[int] = []
        real = lines.connect
        patch.setattr(lines, "connect", lambda address, port: tried.append(port) or real(address, port))
        lines.tried(HOME, [], [{"host": "lab-2", "address": HOME, "ports": ports[:1]}])
    assert tried == ports[:1]


def test_what_lets_it_in_is_said_for_the_port_and_the_address(lines: ModuleType, ports: list[int]) -> None:
    with pytest.raises(lines.LineError) as raised:
        lines.tried("10.0.0.1", [], [{"host": "lab-2", "address": HOME, "ports": ports[:1]}])
    assert f"lab-2 at {HOME}: {ports[0]}: Connection refused" in str(raised.value)
    assert f"ufw allow proto tcp from 10.0.0.1 to any port {ports[0]};" in str(raised.value)
    rule = f'family="ipv4" source address="10.0.0.1" port port="{ports[0]}" protocol="tcp" accept'
    assert f"firewall-cmd --permanent --add-rich-rule 'rule {rule}'" in str(raised.value)
    with pytest.raises(lines.LineError) as raised:
        lines.tried("10.0.0.1", ports, [{"host": "lab-2", "address": HOME}])
    assert "ufw allow proto tcp from 10.0.0.1;" in str(raised.value)


def test_without_a_port_of_its_own_a_host_listens_nowhere(lines: ModuleType) -> None:
    lines.listen(HOME, [], 60)
    lines.end([])
    assert not list(lines.PIDS.iterdir())
