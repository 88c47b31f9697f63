"""A certificate that the site gives is checked before any host is touched, taken when it is another, and never ours."""

import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import recorded_facts as made

import onprem_llm.given_certificate
from onprem_llm import apply as applying
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.given_certificate import given_certificate
from onprem_llm.output import PlainProgress
from onprem_llm.planning.types import Plan
from onprem_llm.spec.site import Site

TEXT = made.MODEL.format(name="tiny", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000)


class Files:
    """A certificate and its key in a folder, and the site that names them."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.certificate, self.key, self.patch = folder / "cert.pem", folder / "key.pem", patch

    def later(self, days: int) -> None:
        clock = SimpleNamespace(time=lambda: time.time() + days * 86400)
        self.patch.setattr(onprem_llm.given_certificate, "time", clock)

    def make(self, days: int = 90, names: str = "DNS:llm.example.com") -> "Files":
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", str(days), "-subj", "/CN=x", "-addext", f"subjectAltName={names}", "-keyout", self.key, "-out",
             self.certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        return self

    def site(self, *names: str, **gateway: object) -> Site:
        tls = {"mode": "files", "certificate": str(self.certificate), "key": str(self.key), "names": list(names)}
        return made.site(gateway={"tls": tls, **gateway})


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    return Files(tmp_path, monkeypatch)


def test_a_good_one_is_read(files: Files) -> None:
    written = files.make(names="DNS:*.example.com,IP:10.0.0.1,IP:fd00:1::b")
    found = given_certificate(written.site("LLM.example.com", "10.0.0.1", "fd00:1::b"))
    assert found is not None
    assert (found.names, found.ends_soon) == (("*.example.com", "10.0.0.1", "fd00:1::b"), False)
    assert given_certificate(made.site()) is None


def expired(files: Files) -> None:
    files.make().later(91)


def not_yet(files: Files) -> None:
    files.make().later(-1)


def other_key(files: Files) -> None:
    certificate = files.make().certificate.read_text()
    files.make().certificate.write_text(certificate)


def no_key(files: Files) -> None:
    files.make().key.write_text("")


def passphrase(files: Files) -> None:
    command = ["openssl", "pkey", "-in", files.make().key, "-aes256", "-passout", "pass:x", "-out", f"{files.key}.new"]
    subprocess.run(command, check=True, capture_output=True)
    Path(f"{files.key}.new").replace(files.key)


def chain_out_of_order(files: Files) -> None:
    other = files.make().certificate.with_name("other.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
               "-subj", "/CN=other", "-keyout", f"{other}.key", "-out", other]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    files.certificate.write_text(files.certificate.read_text() + other.read_text())


def half(files: Files) -> None:
    lines = files.make().certificate.read_text().splitlines()
    files.certificate.write_text("\n".join([*lines[:3], *lines[-1:]]))


def no_ascii(files: Files) -> None:
    text = files.make().certificate.read_text()
    files.certificate.write_text(text.replace("\n", "\né", 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda files: None, "cert.pem: it cannot be read"),
        (lambda files: files.certificate.write_text("x"), "no certificate is in it"),
        (half, "no whole certificate"),
        (no_ascii, "no whole certificate"),
        (expired, "it expired on "),
        (not_yet, "it is good from "),
        (other_key, "key.pem: it does not belong to"),
        (no_key, "no private key can be read"),
        (passphrase, "it has a passphrase"),
        (chain_out_of_order, "certificate 1 in it is not signed by certificate 2"),
        (lambda files: files.make(names="DNS:other.example.com"), "not for llm.example.com"),
        (lambda files: files.make(names="DNS:*.com"), "not for llm.example.com"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_bad_one_is_refused(files: Files, spoil, said: str) -> None:
    spoil(files)
    with pytest.raises(InvalidError, match=said) as refused:
        given_certificate(files.site("llm.example.com"))
    assert "onprem_llm_site.gateway.tls" in refused.value.message


def test_a_plan_with_a_bad_one_takes_no_lock(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    site = files.make().site()
    plan = made.planned(made.lab(), made.deployment(TEXT), site)
    expired(files)
    monkeypatch.setattr(applying, "locked", lambda *_, **__: pytest.fail("the lock was taken"))
    with pytest.raises(InvalidError, match="it expired"):
        applying.apply(plan, Connection(Path("inventory.ini")), PlainProgress())


def planned(facts: dict[str, made.Facts], site: Site) -> Plan:
    return made.planned(facts, made.deployment(TEXT), site, given_certificate=given_certificate(site))


def test_another_one_is_given_to_the_gateways_and_one_that_ends_is_said(files: Files) -> None:
    site = files.make(days=29).site()
    given = given_certificate(site)
    assert given is not None
    facts = made.applied(planned(made.lab(), site), made.lab())
    facts["lab-1"]["certificates"]["gateway"] = {"not_after": given.not_after, "names": list(given.names)}
    same = planned(facts, site)
    assert same.is_noop
    assert [text for text in same.warnings if "put a new one into the file" in text]
    renewed = planned(facts, files.make(days=400).site())
    assert [step.kind for step in renewed.steps] == ["gateway"]
    assert [c.reasons for c in renewed.changes if c.subject == "gateway"] == [("the site gives another certificate",)]
    assert not renewed.warnings


def test_the_page_asks_the_gateway_beside_it(files: Files) -> None:
    """It cannot check this certificate, and the shared address may be on the other host."""
    facts = made.lab()
    for state in facts.values():
        state["interfaces"] = dict.fromkeys(state["addresses"], "eth0")
    site = files.make().site("llm.example.com", address="10.0.0.100")
    shared = planned(facts, replace_tls(site))
    text = planned(facts, site).files["lab-1"]["open-webui"]["compose.yaml"]
    assert "OPENAI_API_BASE_URLS: https://10.0.0.2:8080/v1" in text
    assert "https://10.0.0.100:8080/v1" in shared.files["lab-1"]["open-webui"]["compose.yaml"]


def replace_tls(site: Site) -> Site:
    return site.model_copy(update={"gateway": made.site(gateway={"address": "10.0.0.100"}).gateway})
