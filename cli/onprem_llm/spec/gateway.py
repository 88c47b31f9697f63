"""The site's settings of the gateway: where it listens, its certificate, its limits."""

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from onprem_llm.spec.fields import ImageRef, Listen, Model, Names

SMALLEST_BODY = 64 * 1024
LARGEST_BODY = 64 * 1024 * 1024


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"found {value!r}, expected an absolute path on this machine")
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f"found {value!r}, expected an IP address such as 10.0.0.100") from None


class Tls(Model):
    """`ca`: a certificate of the site's own CA. `files`: a given one. `off`: none, for tests and trusted networks."""

    mode: Literal["ca", "files", "off"] = "ca"
    certificate: Annotated[str, AfterValidator(_absolute)] | None = None
    key: Annotated[str, AfterValidator(_absolute)] | None = None
    names: Names = ()

    @model_validator(mode="after")
    def _files_named(self) -> "Tls":
        given = self.certificate is not None and self.key is not None
        if self.mode == "files" and not given:
            raise ValueError("mode is files: name both, certificate and key (paths on this machine)")
        if self.mode != "files" and (self.certificate or self.key):
            raise ValueError(f"certificate and key are for mode: files; found mode: {self.mode}")
        return self


class GatewaySettings(Model):
    """The one address for clients."""

    image: ImageRef = "onprem-llm/gateway:1"
    listen: Listen = "all"
    tls: Tls = Tls()
    engine_tls: Literal["auto", "on", "off"] = "auto"
    max_body: Annotated[int, Field(ge=SMALLEST_BODY, le=LARGEST_BODY)] = 1024 * 1024
    timeout: Annotated[int, Field(ge=1)] = 600
    address: Annotated[str, AfterValidator(_address)] | None = None
    interface: str | None = None
