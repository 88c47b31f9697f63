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
    lines.tried(ports, [{"host": "lab-2", "address": HOME}])
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
        lines.tried(ports, [{"host": "lab-2", "address": HOME}])
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
            lines.tried(ports, [{"host": "lab-2", "address": HOME}])
    assert f"{shut} (one of those that the kernel chooses" in str(raised.value)


def test_a_second_try_ends_what_the_first_one_left(lines: ModuleType, ports: list[int]) -> None:
    lines.listen(HOME, ports, 60)
    lines.listen(HOME, ports, 60)
    lines.tried(ports, [{"host": "lab-2", "address": HOME}])
