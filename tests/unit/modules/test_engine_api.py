"""The docker engine's API as the modules ask it: over a socket, in HTTP/1.0."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from .conftest import Load


@pytest.fixture
def api(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = load("module_parts/onprem_llm_engine_api")
    monkeypatch.setattr(found, "SOCKET", str(tmp_path / "s"))
    return found


@pytest.fixture
def engine(api: ModuleType) -> Iterator[list[bytes]]:
    """Yield a list: what is put into it is answered to the next question, in two pieces."""
    answers: list[bytes] = []
    server = socket.socket(socket.AF_UNIX)
    server.bind(api.SOCKET)
    server.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            asked = connection.recv(4096)
            assert asked.startswith(b"GET /info HTTP/1.0\r\n")
            answer = answers.pop(0)
            connection.sendall(answer[: len(answer) // 2])
            connection.sendall(answer[len(answer) // 2 :])
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield answers
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_an_answer(api: ModuleType, engine: list[bytes]) -> None:
    engine.append(
        b'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{"Runtimes": {"runc": {}}, "x": "\xc3\xa9"}\n'
    )
    assert api.ask("/info") == {"Runtimes": {"runc": {}}, "x": "é"}


def test_what_is_not_there(api: ModuleType, engine: list[bytes]) -> None:
    engine.append(b'HTTP/1.0 404 Not Found\r\n\r\n{"message": "no such container"}')
    with pytest.raises(FileNotFoundError, match=r"answered 404 to /info.*no such container"):
        api.ask("/info")


@pytest.mark.parametrize(
    "answer", [b'HTTP/1.0 200 OK\r\n\r\n{"cut', b"HTTP/1.0 200 OK\r\n", b"", b"nonsense\r\n\r\n{}"]
)
def test_an_answer_that_is_none(api: ModuleType, engine: list[bytes], answer: bytes) -> None:
    engine.append(answer)
    with pytest.raises(api.ERRORS):
        api.ask("/info")


def test_no_engine(api: ModuleType) -> None:
    with pytest.raises(api.ERRORS):
        api.ask("/info")
