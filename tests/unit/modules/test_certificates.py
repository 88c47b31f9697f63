"""Certificates by the real openssl: made, renewed, refused."""

import shutil
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load

NAMES = ["Lab-1", "10.0.0.1", "fd00:0::1"]


@pytest.fixture
def certificates(load: Load) -> ModuleType:
    load("certificates/certificate_authority")  # makes its module_utils importable
    from ansible.module_utils import onprem_llm_certificates

    module: ModuleType = onprem_llm_certificates
    return module


class Site:
    """An authority and a host that wants a certificate from it."""

    def __init__(self, load: Load, folder: Path) -> None:
        self.authority = load("certificates/certificate_authority")
        self.requests = load("certificates/certificate_request")
        self.stores = load("certificates/certificate_store")
        self.ca = folder / "ca"
        self.secrets = folder / "secrets"
        if not self.ca.exists():
            with self.authority.locked(self.ca):
                self.authority.make(self.ca)
        self.root = (self.ca / "ca.crt").read_text()

    def asked(self, *, combined: bool, names: list[str] = NAMES, **changes: Any) -> dict[str, Any]:
        file = self.secrets / ("gateway.pem" if combined else "engine.crt")
        key = None if combined else str(self.secrets / "engine.key")
        return {"certificate": str(file), "key": key, "names": names, "authority": self.root, "force": False, **changes}

    def issue(self, *, combined: bool, names: list[str] = NAMES, days: int = 825) -> Path:
        """Go the way that tasks/sign.yml goes."""
        asked = self.asked(combined=combined, names=names)
        signed = self.authority.sign(self.ca, self.requests.request(asked), names, days)
        params = {"path": asked["certificate"], "key": asked["key"], "certificate": signed}
        assert self.stores.store({**params, "private_key": None, "authority": self.root if combined else ""}, False)
        return Path(asked["certificate"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an authority is kept once it was made: each test gets a copy, since openssl takes its time."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def site(load: Load, certificates: ModuleType, made: Path, tmp_path: Path) -> Site:
    if not (made / "ca").exists():
        Site(load, made)
    shutil.copytree(made / "ca", tmp_path / "ca")
    return Site(load, tmp_path)


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


def test_the_authority_is_private_and_good_for_ten_years(site: Site, certificates: ModuleType) -> None:
    assert [mode(site.ca), mode(site.ca / "ca.key")] == ["0o700", "0o600"]
    _, until = certificates.dates(site.root)
    assert abs(until - time.time() - 3650 * 86400) < 86400
    assert site.authority.checked(site.ca) == site.root


def test_an_authority_that_lost_its_key_is_said_to_have(site: Site) -> None:
    (site.ca / "ca.key").unlink()
    with pytest.raises(Exception, match=r"without ca\.key.*backup"):
        site.authority.checked(site.ca)


@pytest.mark.parametrize("combined", [True, False], ids=["gateway", "engine"])
def test_a_certificate_from_request_to_file(site: Site, certificates: ModuleType, combined: bool) -> None:
    assert site.requests.reason(site.asked(combined=combined)) == "there is none"
    path = site.issue(combined=combined)
    assert site.requests.reason(site.asked(combined=combined)) == ""
    text = path.read_text()
    assert certificates.names_of(text) == ["10.0.0.1", "fd00::1", "lab-1"]
    assert certificates.is_from(text, site.root)
    assert ("PRIVATE KEY" in text) is combined
    assert mode(path) == ("0o600" if combined else "0o644")
    assert (site.secrets / "ca.crt").exists() is combined
    assert mode(path if combined else site.secrets / "engine.key") == "0o600"
    assert not (site.secrets / ".next-key").exists()


def test_openssl_verifies_it_as_a_client_does(site: Site, certificates: ModuleType) -> None:
    text = site.issue(combined=False).read_text()
    with certificates.private_file(site.root) as root:
        for option, name in (("-verify_hostname", "lab-1"), ("-verify_ip", "10.0.0.1")):
            certificates.openssl("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", root, option, name,
                                 text=text)  # fmt: skip
        with pytest.raises(certificates.CertificateError):
            certificates.openssl("verify", "-CAfile", root, "-verify_hostname", "lab-2", text=text)


def test_when_a_new_one_is_needed(site: Site, load: Load, tmp_path: Path) -> None:
    path = site.issue(combined=True, days=29)
    assert "it ends on" in site.requests.reason(site.asked(combined=True))
    site.issue(combined=True, days=31)
    assert site.requests.reason(site.asked(combined=True)) == ""
    assert "wanted is lab-2" in site.requests.reason(site.asked(combined=True, names=["lab-2"]))
    assert site.requests.reason(site.asked(combined=True, force=True)) == "it was asked for"
    other = Site(load, tmp_path / "other")
    assert site.requests.reason(site.asked(combined=True, authority=other.root)) == "another authority signed it"
    foreign = other.issue(combined=True).read_text()
    chain = path.read_text().partition("-----BEGIN PRIVATE")[0]
    path.write_text(chain + "-----BEGIN PRIVATE" + foreign.partition("-----BEGIN PRIVATE")[2])
    assert "do not belong together" in site.requests.reason(site.asked(combined=True))
    path.write_text("-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n" + foreign)
    assert "cannot be read" in site.requests.reason(site.asked(combined=True))


def test_a_name_cannot_carry_configuration(site: Site, certificates: ModuleType) -> None:
    for name in ("a,DNS:b", "a\nbasicConstraints=CA:TRUE", "", "-a"):
        with pytest.raises(certificates.CertificateError, match=r"cannot be a name"):
            certificates.san([name])
    assert certificates.san(["10.0.0.1", "*.Site.example"]) == "subjectAltName=DNS:*.site.example,IP:10.0.0.1"


def given(site: Site, days: int = 100) -> tuple[str, str]:
    text = site.issue(combined=True, days=days).read_text()
    certificate, mark, key = text.partition("-----BEGIN PRIVATE")
    return certificate, mark + key


def test_a_given_certificate_is_written_with_its_chain(site: Site) -> None:
    certificate, key = given(site)
    params = {"path": str(site.secrets / "given.pem"), "key": None, "certificate": certificate + site.root,
              "private_key": key, "authority": site.root}  # fmt: skip
    assert site.stores.store(params, False)
    assert not site.stores.store(params, False)
    assert (site.secrets / "given.pem").read_text() == certificate + site.root + key


def test_bad_given_certificates(site: Site, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = given(site)
    other, other_key = given(Site(load, tmp_path / "other"))
    bad = {
        "holds no certificate": ("nothing", key),
        "does not belong": (certificate, other_key),
        "holds no private key": (certificate, "nothing"),
        "passphrase": (certificate, key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")),
        "is not signed by certificate 2": (certificate + other, key),
    }
    for said, (text, secret) in bad.items():
        with pytest.raises(Exception, match=said) as caught:
            site.stores.checked(text, secret)
        assert "MIG" not in str(caught.value)
    now = time.time()
    monkeypatch.setattr(site.stores.time, "time", lambda: now + 101 * 86400)
    with pytest.raises(Exception, match=r"expired on 20\d\d-\d\d-\d\d"):
        site.stores.checked(certificate, key)
    monkeypatch.setattr(site.stores.time, "time", lambda: now - 86400)
    with pytest.raises(Exception, match="is good from"):
        site.stores.checked(certificate, key)


def test_dates_are_read_as_openssl_writes_them(certificates: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "notBefore=Feb 29 23:59:59 2028 GMT\nnotAfter=Dec  3 08:00:00 2030 GMT\n"
    monkeypatch.setattr(certificates, "openssl", lambda *_, **__: said)
    assert certificates.dates("") == (1835481599, 1922515200)


def test_what_is_signed_does_not_outlive_the_authority(
    site: Site, certificates: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(site.authority.time, "time", lambda: now + 3640 * 86400)
    assert site.authority.remaining_days(site.ca) == 9
    monkeypatch.setattr(site.authority.time, "time", lambda: now + 3651 * 86400)
    with pytest.raises(certificates.CertificateError, match="ended on"):
        site.authority.remaining_days(site.ca)
