"""A page that is none is an error with its address, whatever a server sends."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from onprem_llm.errors import OnpremError
from onprem_llm.prove.page import fetch


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], str]]:
    """Return a function that serves these bytes once, and returns their address."""
    listening: list[socket.socket] = []

    def serving(data: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listening.append(listener)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(data)

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield serving
    for one in listening:
        one.close()


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n<title>cut",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_no_page(serve: Callable[[bytes], str], data: bytes) -> None:
    url = serve(data)
    with pytest.raises(OnpremError, match=url):
        fetch(url)


def test_a_page(serve: Callable[[bytes], str]) -> None:
    assert fetch(serve(b"HTTP/1.1 200 OK\r\n\r\n<title>Open WebUI</title>")) == ("Open WebUI", 25)
