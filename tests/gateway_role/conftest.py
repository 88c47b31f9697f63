"""A gateway of the real image on this machine, loaded by the role's modules; the engines behind it are stand-ins."""

import base64
import contextlib
import hashlib
import http.client
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest
from tests.loopback import free_port

from onprem_llm.rendering.haproxy import Backend, Gateway, Server, draft

from .engines import ENGINE_KEY, Engine, engine

ROLE = Path(__file__).resolve().parents[2] / "roles" / "gateway"
IMAGE = os.environ.get("ONPREM_LLM_GATEWAY_IMAGE", "onprem-llm/gateway:1")


def module(name: str) -> ModuleType:
    """Load a module of the role, with its module_utils where Ansible would put them."""
    for folder in (ROLE / "module_utils", ROLE.parent / "module_parts" / "module_utils"):
        if str(folder) not in ansible.module_utils.__path__:
            ansible.module_utils.__path__.append(str(folder))
    spec = importlib.util.spec_from_file_location(f"roles_gateway_{name}", ROLE / "library" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=120)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


def eventually(what: Any, limit: float = 10, text: str = "") -> None:
    end = time.monotonic() + limit
    while not what():
        assert time.monotonic() < end, f"not within {limit} s: {text}"
        time.sleep(0.05)


@dataclass
class Site:
    """The gateway under test."""

    folder: Path
    root: Path
    name: str
    engines: list[Engine]
    port: int
    metrics: int
    settings: Gateway
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    def load(self, *, settings: Gateway | None = None, edit: tuple[str, str] = ("", ""), **more: Any) -> Any:
        """Run gateway_load with what the settings render; `edit` replaces text in the files."""
        files = draft(settings or self.settings).finish(None).files
        swaps = {"8405": str(self.metrics), "/var/lib/onprem-llm/keys": str(self.keys), edit[0] or "\0": edit[1]}
        for old, new in swaps.items():
            files = {name: text.replace(old, new) for name, text in files.items()}
        params = {
            "name": self.name,
            "path": str(self.folder),
            "contents": {name: base64.b64encode(text.encode()).decode() for name, text in files.items()},
            "engine_keys": {"ONPREM_LLM_KEY_TINY": "tiny"},
            "secrets": str(self.root / "secrets"),
            "keys": str(self.keys),
            "states": {},
            "wait": 30,
            "recreate": False,
        }
        return module("gateway_load").load({**params, **more}, False)

    def route(self, **wanted: Any) -> tuple[bool, dict[str, Any]]:
        params = {
            "path": str(self.folder),
            "drain": [],
            "ready": [],
            "let_in": [],
            "wait": 10,
            "ready_wait": 10,
            "settle": 0,
        }
        found: tuple[bool, dict[str, Any]] = module("gateway_route").run({**params, **wanted}, False)
        return found

    def do(self, action: str, **more: Any) -> tuple[bool, dict[str, Any]]:
        """Run gateway_keys."""
        params = {"action": action, "path": str(self.keys), "project": str(self.folder), "internal": [],
                  "secrets": str(self.root / "secrets"), "name": None, "key": None, "sha256": None}  # fmt: skip
        found: tuple[bool, dict[str, Any]] = module("gateway_keys").run({**params, **more}, False)
        return found

    def create(self, name: str, **about: Any) -> str:
        key = f"sk-{secrets.token_urlsafe(32)}"
        sha256 = hashlib.sha256(key.encode()).hexdigest()
        self.do("create", name=name, sha256=sha256, key={"by": "test", **about})
        return key

    def usage(self, name: str) -> dict[str, int]:
        found: dict[str, int] = self.do("usage")[1]["usage"][name]
        return found

    def ledger(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.keys / "usage.json").read_text())
        return found

    def ask(self, key: str, **body: Any) -> http.client.HTTPResponse:
        """Ask for a chat on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(
            "POST", "/v1/chat/completions", json.dumps({"model": "tiny", "messages": [], **body}),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )  # fmt: skip
        return connection.getresponse()

    def chat(self, key: str, **body: Any) -> int:
        """Return the status of a chat, its answer read to the end."""
        answer = self.ask(key, **body)
        answer.read()
        return answer.status

    def workers(self) -> list[Any]:
        found: list[Any] = module("gateway_route").Gateway(self.folder).workers()
        return found

    def await_worker(self) -> None:
        """Wait until a container that was started anew answers."""
        haproxy = module("gateway_route")

        def answers() -> bool:
            try:
                return bool(haproxy.Gateway(self.folder).worker().ask("show info"))
            except haproxy.HaproxyError:
                return False

        eventually(answers, text="HAProxy answers")

    def count(self) -> None:
        """Run the counter beside it, as its unit does."""
        command = [sys.executable, str(self.root / "lib" / "onprem-llm-usage"), str(self.folder), str(self.keys)]
        self.running.append(subprocess.Popen(command))

    def changed(self, **backend: Any) -> Gateway:
        """Return other settings: the same with one backend changed."""
        return replace(self.settings, backends=(replace(self.settings.backends[0], **backend),))


@pytest.fixture(scope="session", autouse=True)
def compose(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have Compose v2, as hosts do: this machine's docker may be older; a rehearsal host or its image has it."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return
    folder = tmp_path_factory.mktemp("docker")
    (folder / "cli-plugins").mkdir()
    (folder / "config.json").write_text("{}")
    with having_compose() as container:
        docker("cp", f"{container}:/usr/libexec/docker/cli-plugins/docker-compose", str(folder / "cli-plugins"))
    os.environ["DOCKER_CONFIG"] = str(folder)


@contextlib.contextmanager
def having_compose() -> Iterator[str]:
    """Name a container with Compose in it: the first host of this run's lab, else one of a host's image."""
    lab = os.environ.get("ONPREM_LLM_TEST_LAB")
    if lab:
        yield f"{lab}-1"
        return
    tags = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "onprem-llm/lab-host").split()
    ready = next((tag for tag in tags if tag.endswith("-ready")), None)
    if ready is None:
        pytest.fail("docker compose is missing, and no image of a rehearsal host has it: onprem-llm lab up --ready")
    made = docker("create", ready, "true")
    yield made
    docker("rm", made)


@pytest.fixture(scope="session")
def image() -> str:
    if not docker("image", "inspect", "--format", "{{.Id}}", IMAGE, check=False):
        pytest.fail(f"there is no image {IMAGE}: sh images/build.sh gateway")
    return IMAGE


@pytest.fixture
def site(tmp_path: Path, image: str) -> Iterator[Site]:
    name = f"gwtest-{secrets.token_hex(4)}"
    (tmp_path / "secrets").mkdir(mode=0o700)
    (tmp_path / "secrets" / "tiny").write_text(ENGINE_KEY + "\n")
    (tmp_path / "secrets" / "client-open-webui").write_text("sk-internal\n")
    (tmp_path / "lib").mkdir()
    for path in (*ROLE.parent.glob("*/module_utils/*.py"), ROLE / "files" / "onprem-llm-usage"):
        (tmp_path / "lib" / path.name).write_bytes(path.read_bytes())
    ports = [free_port() for _ in range(4)]
    servers = tuple(Server(f"tiny-{number}", "127.0.0.1", ports[number]) for number in range(2))
    backend = Backend("tiny", "tiny", "chat", "least_load", (1,), servers)
    settings = Gateway(image, str(tmp_path), "127.0.0.1", ports[2], False, 1 << 20, 60, (backend,))
    with contextlib.ExitStack() as stack:
        engines = [stack.enter_context(engine(port)) for port in ports[:2]]
        one = Site(tmp_path / name, tmp_path, name, engines, ports[2], ports[3], settings)
        try:
            yield one
        finally:
            for process in one.running:
                process.kill()
                process.wait()
            containers = docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={name}").split()
            if containers:
                docker("rm", "--force", *containers)
