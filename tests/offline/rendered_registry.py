"""A registry on loopback with the configurations that a deploy writes: over TLS for all hosts, plain for one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import certificate
from tests.loopback import free_port, serving

from onprem_llm.rendering.registry import CONFIGURATION, HEALTH_PORT, INNER_PORT, LOCAL_CONFIGURATION


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
    text = _placed(CONFIGURATION, {"/run/registry.pem": str(tls / "registry.pem")})
    with _serving(text, storage, folder) as address:
        yield Served(address, tls)


@contextmanager
def local(storage: Path, folder: Path) -> Iterator[str]:
    """Serve `storage` as a host's own registry does; yield its address."""
    with _serving(LOCAL_CONFIGURATION, storage, folder) as address:
        yield address


@contextmanager
def _serving(text: str, storage: Path, folder: Path) -> Iterator[str]:
    port = free_port()
    places = {
        "rootdirectory: /registry}": f"rootdirectory: {storage}}}",
        f"addr: :{INNER_PORT}\n": f"addr: 127.0.0.1:{port}\n",
        f"127.0.0.1:{HEALTH_PORT}": f"127.0.0.1:{free_port()}",
    }
    (folder / "config.yml").write_text(_placed(text, places))
    with serving(folder / "config.yml", port) as address:
        yield address


def _placed(text: str, places: Mapping[str, str]) -> str:
    for inside, here in places.items():
        assert inside in text, f"the rendered configuration has no {inside!r}"
        text = text.replace(inside, here)
    return text
