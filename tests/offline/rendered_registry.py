"""A registry on loopback with the configuration that a deploy writes, over TLS."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import certificate
from tests.loopback import free_port, serving

from onprem_llm.rendering.registry import CONFIGURATION, HEALTH_PORT, INNER_PORT


@dataclass(frozen=True)
class Served:
    """Where it answers, and a folder with the root certificate alone, as skopeo wants it."""

    address: str
    trusted: Path

    @property
    def root(self) -> Path:
        return self.trusted / "ca.crt"


@contextmanager
def rendered(storage: Path, folder: Path) -> Iterator[Served]:
    """Serve `storage` as the site's own registry does; `folder` gets its configuration, certificate and log.

    Only the places differ, which a container has for itself: two ports and two paths.
    """
    tls = folder / "tls"
    tls.mkdir()
    # As the role certificates leaves it: certificate and key in one file, the root beside it.
    crt, key = certificate(tls, "ca", "IP:127.0.0.1")
    (tls / "registry.pem").write_bytes(Path(crt).read_bytes() + Path(key).read_bytes())
    Path(key).unlink()
    port = free_port()
    text = CONFIGURATION
    for inside, here in (
        ("rootdirectory: /registry}", f"rootdirectory: {storage}}}"),
        ("/run/registry.pem", str(tls / "registry.pem")),
        (f"addr: :{INNER_PORT}\n", f"addr: 127.0.0.1:{port}\n"),
        (f"127.0.0.1:{HEALTH_PORT}", f"127.0.0.1:{free_port()}"),
    ):
        assert inside in text, f"the rendered configuration has no {inside!r}"
        text = text.replace(inside, here)
    (folder / "config.yml").write_text(text)
    with serving(folder / "config.yml", port) as address:
        yield Served(address, tls)
