"""One gateway for most tests: real HAProxy in its container, stub engines as processes of this machine."""

from pathlib import Path

import openai
from rig import IMAGE, Engine, Rig, backend

from onprem_llm.rendering.haproxy import Gateway

MAX_BODY = 1 << 20
ODD_NAME = 'Ödd "name"/ $x \\y 世界'
TLS_NAME = "engine.lab-2"


class Kit:
    """The gateway and its engines."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        pair = str(certificates / "engine.crt"), str(certificates / "engine.key")
        self.engines = {
            name: Engine(name, model, tls=tls).start()
            for name, model, tls in [
                *((f"{one}-{n}", one, None) for one in ("tiny", "session", "prefix") for n in range(2)),
                ("vec-0", "vec", None), ("rank-0", "rank", None),
                ("old-0", "old", None), ("odd-0", ODD_NAME, pair), ("liar-0", "liar", pair),
            ]
        }  # fmt: skip
        backends = (
            backend("tiny", self.of("tiny")),
            backend("vec", self.of("vec"), task="embed"),
            backend("rank", self.of("rank"), task="rerank"),
            backend("old", self.of("old"), admits=(2, 11)),
            backend("none", []),
            backend("session", self.of("session"), routing="session"),
            backend("prefix", self.of("prefix"), routing="prefix_cache"),
            backend("odd", [], served_name=ODD_NAME, servers=(self.engines["odd-0"].server(TLS_NAME),)),
            backend("liar", [], servers=(self.engines["liar-0"].server("engine.lab-9"),)),
        )
        gateway = Gateway(IMAGE, "/srv/onprem-llm", "0.0.0.0", 8080, False, MAX_BODY, 600, backends)  # noqa: S104
        self.rig = Rig(folder, gateway)
        self.rig.write()
        (folder / "secrets/ca.crt").write_bytes((certificates / "ca.crt").read_bytes())
        for name in ("alice", "bob", "carol", "erin", "open-webui"):
            self.rig.key(name)
        self.rig.key("late", expires=1_700_000_000)
        self.rig.key("limited", rate="3/hour")
        for name in ("slow", "wrong"):
            self.rig.key(name, rate="3/day")
        for name, models in (("only-vec", ("vec",)), ("some", ("tiny", "odd")), ("only-gone", ("gone",))):
            self.rig.key(name, models=models)

    def start(self) -> None:
        self.rig.start()
        self.rig.until(lambda: self.rig.servers()["liar/liar-0"].startswith("DOWN"), 10)
        self.rig.until(lambda: self.rig.servers()["old/old-0"].startswith("DOWN"), 10)

    def of(self, deployment: str) -> list[Engine]:
        return [engine for name, engine in self.engines.items() if name.rpartition("-")[0] == deployment]

    def client(self, key: str = "alice", path: str = "/v1") -> openai.OpenAI:
        return openai.OpenAI(api_key=f"sk-{key}", base_url=self.rig.url + path, max_retries=0, timeout=30)

    def stop(self) -> None:
        self.rig.stop()
        for engine in self.engines.values():
            engine.process.kill()
            engine.process.wait()
