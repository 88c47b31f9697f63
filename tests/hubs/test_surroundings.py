"""What is between us and a hub: tokens that must not travel, proxies, certificates, addresses that are none."""

import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hubs.conftest import SECRETS, Bench, tiny
from tests.hubs.server import HubServer

from onprem_llm.errors import InvalidError, OnpremError, UnreachableError
from onprem_llm.spec.model_source import parse_source
from onprem_llm.weights.hubs.modelscope import _Guard

FILE = "model-1.safetensors"


def test_no_token_reaches_another_port_of_the_same_host(bench: Bench) -> None:
    with HubServer({"owner/Tiny": tiny()}) as other:
        bench.server.storage = other.url
        bench.check(bench.pull())
        assert {one.path.rpartition("/")[2].partition("?")[0] for one in other.asked} > {FILE}
        assert not [one for one in other.asked if one.authorization or one.cookie]
    secret = SECRETS["HF_TOKEN" if bench.name == "huggingface" else "MODELSCOPE_API_TOKEN"]
    assert all(secret in one.authorization for one in bench.server.asked)


@pytest.mark.parametrize("address", ["http://hub.local/x", "https://cdn.hub.local/x", "https://hub.local:8443/x"])
def test_a_modelscope_request_that_leaves_the_hub_carries_nothing(address: str) -> None:
    import requests

    sent: list[requests.PreparedRequest] = []

    class Wire(requests.adapters.HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: object, **more: object) -> requests.Response:  # type: ignore[override]
            sent.append(request)
            answer = requests.Response()
            answer.status_code = 200
            return answer

    session = requests.Session()
    session.trust_env = False
    session.cookies.set("m_session_id", "secret", domain="hub.local", path="/")
    for prefix in ("http://", "https://"):
        session.mount(prefix, _Guard(Wire(), "https://hub.local"))
    for url in (address, "https://hub.local:443/x"):
        session.get(url, headers={"Authorization": "Bearer secret"})
    assert "secret" not in str(sent[0].headers)
    assert str(sent[1].headers).count("secret") == 2


@pytest.mark.parametrize("size", [None, "7", "x", -1, True])
def test_a_listing_that_is_none(bench: Bench, size: object) -> None:
    entry = {"type": "file", "path": "a.json", "size": size, "oid": "0" * 40}
    theirs = {"Path": "a.json", "Type": "blob", "Size": size, "Sha256": "0" * 64}
    bench.server.more = [entry if bench.name == "huggingface" else theirs]
    with pytest.raises(OnpremError, match="protocol"):
        bench.pull()


def test_an_entry_that_is_none(bench: Bench) -> None:
    bench.server.more = ["a.json"]
    with pytest.raises(OnpremError, match="protocol"):
        bench.pull()


def test_a_path_that_is_no_text(bench: Bench) -> None:
    name = "a\ud800.json"
    entry = {"type": "file", "path": name, "size": 1, "oid": "0" * 40}
    theirs = {"Path": name, "Type": "blob", "Size": 1, "Sha256": "0" * 64}
    bench.server.more = [entry if bench.name == "huggingface" else theirs]
    with pytest.raises(InvalidError, match=r"a\\ud800\.json' has control characters"):
        bench.pull()


def test_a_folder_that_cannot_be_listed_whole(modelscope: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    modelscope.puller().hubs("modelscope")
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_FILES_TRUNCATION_LIMIT", 5)
    with pytest.raises(InvalidError, match="lists only the first"):
        modelscope.pull()


def test_models_that_are_called_as_folders_of_the_store(huggingface: Bench) -> None:
    for name in ("owner/incoming", "owner/verified.jsonl"):
        huggingface.server.models[name] = tiny()
        pulled = huggingface.puller().pull(parse_source(f"huggingface:{name}"))
        assert (pulled.entry.weights() / FILE).read_bytes() == huggingface.files[FILE]


def test_the_next_page_is_asked_of_the_hub_that_was_named(huggingface: Bench) -> None:
    with HubServer({"owner/Tiny": tiny()}) as other:
        huggingface.server.pages = other.url
        huggingface.check(huggingface.pull())
        assert not other.asked


def proxy_is_named(bench: Bench, variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(name, "http://hub.invalid")
    # In a process of its own: a client keeps the proxies that it began with.
    process = bench.command("pull", str(bench.source()))
    _, said = process.communicate(timeout=20)
    assert process.returncode == 3, said
    assert "the proxy of this machine cannot be used" in said
    assert "hidden" not in said


def test_a_proxy_that_cannot_be_used_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy_is_named(bench, "HTTP_PROXY", "ftp://user:hidden@p:1", monkeypatch)


def test_a_socks_proxy_without_its_package_is_named(huggingface: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy_is_named(huggingface, "ALL_PROXY", "socks5://user:hidden@127.0.0.1:9", monkeypatch)


@pytest.mark.parametrize("address", ["http://[::1", "http://hub.local:http"])
def test_an_address_that_cannot_be_taken_apart(bench: Bench, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(name, address)
    # In a process of its own, too: a client's package looks at the address when it is imported.
    process = bench.command("pull", str(bench.source()))
    _, said = process.communicate(timeout=20)
    assert process.returncode == 3, said
    assert "ENDPOINT: found" in said


@pytest.fixture
def over_tls(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server whose certificate no known CA has signed; it knows no model."""
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=hub", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}", certificate
    server.shutdown()
    server.server_close()


def test_an_unknown_ca_is_said_and_can_be_named(
    bench: Bench, over_tls: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, certificate = over_tls
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(name, address)
    with pytest.raises(UnreachableError, match=r"self-signed certificate: for a CA of your own see docs/weights\.md"):
        bench.pull()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    process = bench.command("pull", str(bench.source()))
    _, said = process.communicate(timeout=20)
    # It got through to a server, which has no such model.
    assert "certificate" not in said
    assert "404" in said or "no such model" in said


def test_a_cause_is_told_without_addresses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(OnpremError, match=r"\(Connection refused\)"):
        bench.pull()
