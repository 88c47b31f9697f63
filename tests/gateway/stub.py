"""A stand-in for an engine: says what it was asked, as an answer or as a stream. A process of its own, to be stopped.

    python stub.py --port 0 --name tiny-0 --model tiny --revision 3 --key KEY [--tls CERT KEY]

With --prefix /tiny it is a proxy of Ray Serve's: asks for no key, and once it gets SIGUSR1 says that it is drained.

Prints its port. A request's body may say: stream (true), chunks (8), every (0.02 s), sleep (s before anything),
fill (bytes of padding in the answer).
"""

import argparse
import asyncio
import json
import signal
import ssl
from typing import Any

Request = tuple[str, str, dict[str, str], bytes]


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    line, *rest = head.strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
    method, path, _ = line.split(" ")
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return method, path, headers, body


class Stub:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.served = 0
        self.drained = False
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.drain)

    def drain(self) -> None:
        self.drained = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader)) is not None:
                await self.answer(request, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        method, path, headers, body = request
        name = self.options.model
        if self.options.prefix:
            refused = self.as_proxy(path)
            if refused is not None:
                return await send(writer, *refused)
        elif path == "/health":
            return await send(writer, 200, {})
        elif headers.get("authorization") != f"Bearer {self.options.key}":
            return await send(writer, 401, {"error": "the engine's key is wrong"})
        if method == "GET" and path == "/v1/models":
            ids = (name, f"{name}:r{self.options.revision}")
            return await send(writer, 200, {"object": "list", "data": [{"id": one} for one in ids]})
        said = json.loads(body)
        self.served += 1
        await asyncio.sleep(said.get("sleep", 0))
        if said.get("stream"):
            return await self.stream(writer, said)
        tokens = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        if path == "/v1/responses":
            tokens = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        if path == "/v1/rerank":
            tokens = {"prompt_tokens": 7, "total_tokens": 7}
        seen = {"server": self.options.name, "path": path, "headers": headers, "size": len(body)}
        vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
        whole = {"id": "x", "object": "chat.completion", "created": 0, "model": said.get("model"), "seen": seen,
                 "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
                 "data": [vector], "padding": "x" * said.get("fill", 0), "usage": tokens}  # fmt: skip
        return await send(writer, said.get("status", 200), whole)

    def as_proxy(self, path: str) -> tuple[int, object] | None:
        """Return what a proxy of Ray Serve's answers by itself; None for what it passes on."""
        prefix = self.options.prefix
        if path == "/-/healthz":
            return 503 if self.drained else 200, {}
        if path == f"{prefix}/v1/models":
            return 200, {"object": "list", "data": [{"id": self.options.model}]}
        return None if path.startswith(f"{prefix}/") else (404, {"error": f"Path '{path}' not found"})

    async def stream(self, writer: asyncio.StreamWriter, said: dict[str, Any]) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(said.get("chunks", 8)):
            event = {"server": self.options.name, "number": number, "choices": []}
            await chunk(writer, f"data: {json.dumps(event)}\n\n".encode())
            await asyncio.sleep(said.get("every", 0.02))
        await chunk(writer, b"data: [DONE]\n\n")
        await chunk(writer, b"")


async def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))
    await writer.drain()


async def send(writer: asyncio.StreamWriter, status: int, value: object) -> None:
    body = json.dumps(value).encode()
    writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body)))
    writer.write(body)
    await writer.drain()


async def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("host", "name", "model", "key"):
        parser.add_argument(f"--{name}", default="x")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--revision", type=int, default=1)
    parser.add_argument("--tls", nargs=2)
    parser.add_argument("--prefix")
    options = parser.parse_args()
    context = None
    if options.tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*options.tls)
    server = await asyncio.start_server(
        Stub(options).serve, options.host, options.port, ssl=context, limit=4 << 20, backlog=512
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
