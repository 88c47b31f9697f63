"""A steady load on an OpenAI-compatible address: one file, nothing but the standard library (Python 3.11 or newer).

It runs wherever a python3 is: `python3 -c "$(cat tests/load/client.py)"`, on a rehearsal host too. Settings come as one
line of JSON on stdin (see Settings; the key so stands in no argv), then it runs until its time or its count is over, or
stdin ends. A file with the settings can be named instead; then stdin is not looked at. On stdout, one JSON object a
line: {"record": …} as each request ends, {"summary": …} at the end.

Open loop: a request begins when its time has come, however long the others take. Nothing is ever sent again: a
connection that was closed under a request is a failure, on a kept connection too. Failed is a connection error, a 5xx,
or an answer without its end; a stream ends with a finish_reason and [DONE].
"""

import asyncio
import contextlib
import json
import ssl
import sys
import time
import urllib.parse
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Settings:
    """What to send where. `workers` instead of a rate: so many clients, each sending when it has its answer."""

    url: str  # https://10.0.0.1:8080/v1
    model: str
    key: str = ""
    ca: str = ""  # PEM; empty takes the machine's own
    rate: float = 20.0  # requests a second
    workers: int = 0
    seconds: float = 60.0
    count: int = 1_000_000
    tokens: int = 8
    streams: float = 0.5  # share of the requests
    fresh: float = 0.5  # share of the requests on a connection of their own, the others keep theirs
    limit: float = 60.0  # seconds a client waits for all of an answer
    in_flight: int = 1000
    # Used in turn; {n} is the number of the request.
    conversations: list[list[dict[str, str]]] = field(
        default_factory=lambda: [[{"role": "user", "content": "Say something about number {n}."}]]
    )


@dataclass
class Record:
    """One request; times in seconds since the epoch. `failure` is empty where all is well, a 4xx included."""

    number: int
    kind: str  # stream, whole
    conversation: int
    kept: bool  # sent on a connection that had been used before
    started: float
    first: float = 0.0  # when the status came
    ended: float = 0.0
    status: int = 0
    failure: str = ""
    error: str = ""  # an error's type, where it has OpenAI's shape
    served_by: str = ""  # system_fingerprint, which names the container of a stub engine
    prompt_tokens: int = 0  # of answers that are not streamed
    completion_tokens: int = 0
    chunks: int = 0


class Connection:
    """One connection that is kept, and what is read from it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take over an open connection."""
        self.reader, self.writer, self.used, self.keep = reader, writer, False, True

    @property
    def usable(self) -> bool:
        """Tell whether the other side still holds it, as far as is known here."""
        return self.keep and not self.reader.at_eof() and not self.writer.is_closing()

    def close(self) -> None:
        """Let it go at once."""
        self.keep = False
        self.writer.transport.abort()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read the status and the headers (names in small letters)."""
        line = await self.reader.readuntil(b"\r\n")
        status = int(line.split(b" ", 2)[1])
        headers = {}
        while True:
            line = await self.reader.readuntil(b"\r\n")
            if line == b"\r\n":
                break
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        self.keep = headers.get("connection", "").lower() != "close"
        return status, headers

    async def body(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        """Read the body as it comes; a body that is cut short is an error."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
                data = await self.reader.readexactly(size + 2)
                if size == 0:
                    return
                yield data[:-2]
        elif "content-length" in headers:
            yield await self.reader.readexactly(int(headers["content-length"]))
        else:
            self.keep = False
            while True:
                data = await self.reader.read(65536)
                if not data:
                    return
                yield data


class Load:
    """The requests, the connections that are kept, and the records."""

    def __init__(self, settings: Settings) -> None:
        """Read the address."""
        self.settings = settings
        address = urllib.parse.urlsplit(settings.url)
        self.host, self.path = address.hostname or "", address.path.rstrip("/")
        self.port = address.port or (443 if address.scheme == "https" else 80)
        self.context = ssl.create_default_context(cadata=settings.ca or None) if address.scheme == "https" else None
        self.idle: list[Connection] = []
        self.records: list[Record] = []
        self.begun = 0
        self.stopped = asyncio.Event()

    async def connection(self, fresh: bool) -> Connection:
        """Return a kept connection, or a new one."""
        while self.idle and not fresh:
            kept = self.idle.pop()
            if kept.usable:
                return kept
            kept.close()
        return Connection(*await asyncio.open_connection(self.host, self.port, ssl=self.context))

    def request(self, number: int, stream: bool, fresh: bool) -> tuple[int, bytes]:
        """Return which conversation it is, and the bytes of the request."""
        turn = number % len(self.settings.conversations)
        said = [{**one, "content": one["content"].replace("{n}", str(number))}
                for one in self.settings.conversations[turn]]  # fmt: skip
        asked = {"model": self.settings.model, "messages": said, "max_tokens": self.settings.tokens,
                 "temperature": 0, "ignore_eos": True, "stream": stream}  # fmt: skip
        body = json.dumps(asked).encode()
        head = [f"POST {self.path}/chat/completions HTTP/1.1", f"Host: {self.host}:{self.port}",
                "Content-Type: application/json", f"Content-Length: {len(body)}",
                f"Authorization: Bearer {self.settings.key}",
                *(["Connection: close"] if fresh else [])]  # fmt: skip
        return turn, "\r\n".join([*head, "", ""]).encode() + body

    async def one(self, number: int) -> None:
        """Send one request within the client's limit, and record how it went."""
        # Streams and fresh connections are mixed independently of each other, and evenly.
        stream = int((number + 1) * self.settings.streams) > int(number * self.settings.streams)
        fresh = (number // 2) % 10 < self.settings.fresh * 10
        turn, data = self.request(number, stream, fresh)
        record = Record(number, "stream" if stream else "whole", turn, False, time.time())
        try:
            await asyncio.wait_for(self.exchange(record, data, fresh), self.settings.limit)
        except TimeoutError:
            record.failure = record.failure or f"no end within {self.settings.limit:g} s"
        record.ended = time.time()
        self.records.append(record)
        say({"record": asdict(record)})

    async def exchange(self, record: Record, data: bytes, fresh: bool) -> None:
        """Send and read; what goes wrong stands in the record."""
        connection = None
        step = "connect"
        try:
            connection = await self.connection(fresh)
            record.kept, connection.used = connection.used, True
            step = "no answer"
            connection.writer.write(data)
            record.status, headers = await connection.head()
            record.first = time.time()
            step = "in the answer"
            await read_answer(record, connection.body(headers))
            if connection.keep and not fresh:
                self.idle.append(connection)
                connection = None
        except Exception as error:  # whatever it was, it is this request's failure, and the load goes on
            record.failure = f"{step}: {type(error).__name__} {error}".strip()
        finally:
            if connection is not None:
                connection.close()

    async def at_a_rate(self) -> None:
        """Begin each request at its time, whatever became of the others."""
        began, tasks = time.monotonic(), set()
        for number in range(self.settings.count):
            due = number / self.settings.rate
            if due >= self.settings.seconds or await self.wait(began + due - time.monotonic()):
                break
            if len(tasks) >= self.settings.in_flight:
                raise SystemExit(f"load: {len(tasks)} requests wait for answers: the address does not take this rate")
            self.begun += 1
            task = asyncio.ensure_future(self.one(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def by_workers(self) -> None:
        """Let each worker send its next request when it has its answer."""
        end = time.monotonic() + self.settings.seconds

        async def work() -> None:
            while time.monotonic() < end and self.begun < self.settings.count and not self.stopped.is_set():
                self.begun += 1
                await self.one(self.begun - 1)

        await asyncio.gather(*[work() for _ in range(self.settings.workers)])

    async def wait(self, seconds: float) -> bool:
        """Wait; return whether it was to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), max(seconds, 0.0))
        return self.stopped.is_set()


async def read_answer(record: Record, body: AsyncIterator[bytes]) -> None:
    """Read an answer to its end, and judge it."""
    if record.kind == "stream" and record.status == 200:
        return await read_stream(record, body)
    text = b"".join([part async for part in body])
    value = json.loads(text) if text.strip() else None
    if not isinstance(value, dict):
        record.failure = f"status {record.status}, and no JSON object"
    elif record.status == 200:
        usage, choices = value.get("usage") or {}, value.get("choices") or [{}]
        record.prompt_tokens = usage.get("prompt_tokens", 0)
        record.completion_tokens = usage.get("completion_tokens", 0)
        record.served_by = value.get("system_fingerprint") or ""
        record.failure = "" if choices[0].get("finish_reason") else "no finish_reason"
    else:
        record.error = openai_error(value)
    if record.status >= 500:
        record.failure = record.failure or f"status {record.status}"
    return None


async def read_stream(record: Record, body: AsyncIterator[bytes]) -> None:
    """Read server-sent events; the stream has failed without a finish_reason and [DONE]."""
    rest, done, reason = b"", False, None
    async for part in body:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            data = line[5:].strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                done = True
            elif data:
                value = json.loads(data)
                record.error = record.error or openai_error(value)
                record.served_by = record.served_by or value.get("system_fingerprint") or ""
                record.chunks += 1
                for choice in value.get("choices") or []:
                    reason = reason or choice.get("finish_reason")
    if record.error:
        record.failure = f"an error in the stream: {record.error}"
    elif not done or not reason:
        record.failure = "the stream has no " + ("finish_reason" if done else "[DONE]")


def openai_error(value: dict[str, object]) -> str:
    """Return the type of an error in OpenAI's shape, message and code included; empty for any other shape."""
    error = value.get("error")
    if not isinstance(error, dict) or not isinstance(error.get("message"), str) or "code" not in error:
        return ""
    return str(error.get("type") or "")


def summary(load: Load, seconds: float) -> dict[str, object]:
    """Count: `answered` is what a gateway counts as requests of a key, tokens are those of whole answers."""
    records = load.records
    times = sorted(one.ended - one.started for one in records if one.status == 200 and not one.failure)
    statuses: dict[str, int] = {}
    for one in records:
        statuses[str(one.status)] = statuses.get(str(one.status), 0) + 1
    return {
        "begun": load.begun, "ended": len(records), "failed": sum(1 for one in records if one.failure),
        "answered": sum(1 for one in records if one.status), "statuses": statuses, "seconds": round(seconds, 3),
        "prompt_tokens": sum(one.prompt_tokens for one in records),
        "completion_tokens": sum(one.completion_tokens for one in records),
        "good_per_second": round(len(times) / seconds, 3) if seconds else 0.0,
        "p50": round(times[len(times) // 2], 4) if times else None,
        "p99": round(times[min(int(len(times) * 0.99), len(times) - 1)], 4) if times else None,
    }  # fmt: skip


def say(value: dict[str, object]) -> None:
    """Write one line that whoever started this reads at once."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def run(settings: Settings, stop: asyncio.StreamReader | None) -> Load:
    """Send until the end, or until `stop` has one."""
    load = Load(settings)

    async def watch() -> None:
        if stop is not None:
            await stop.read()
            load.stopped.set()

    watching = asyncio.ensure_future(watch())
    began = time.monotonic()
    await (load.by_workers() if settings.workers else load.at_a_rate())
    watching.cancel()
    for kept in load.idle:
        kept.close()
    say({"summary": summary(load, time.monotonic() - began)})
    return load


async def main() -> None:
    """Read the settings from a file or from stdin, and send."""
    if len(sys.argv) > 1:
        await run(Settings(**json.loads(Path(sys.argv[1]).read_text("utf-8"))), None)
        return
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await run(Settings(**json.loads(await reader.readline())), reader)


if __name__ == "__main__":
    asyncio.run(main())
