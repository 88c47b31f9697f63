"""Field types that model.yaml and the site's settings share."""

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator

# A name with one of these in it holds a secret; a literal value for it would stand in compose.yaml and the book.
# TOKENIZERS_PARALLELISM is none.
SECRET_NAME = re.compile(r"TOKEN(?!IZER)|KEY|PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL", re.IGNORECASE)
# So does a value such as postgresql://user:password@db/page or http://user:password@proxy:3128.
SECRET_VALUE = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_PORT = 65535


class Model(BaseModel):
    """Base of everything a person writes: unknown keys are refused, types are not guessed, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SecretRef(Model):
    """Where a secret's value is taken from when it is needed: an environment variable or a file of the control host."""

    from_env: str | None = None
    from_file: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "SecretRef":
        if (self.from_env is None) == (self.from_file is None):
            raise ValueError("expected exactly one of from_env (a variable) and from_file (a path)")
        return self


def _env_value(value: object) -> str | SecretRef:
    if isinstance(value, SecretRef):
        return value
    if isinstance(value, dict):
        return SecretRef.model_validate(value)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    # ValueError, because pydantic reports it together with its path.
    raise ValueError(
        f"found {_kind(value)}, expected text, a number, {{from_env: NAME}} or {{from_file: PATH}}; "
        'write true, false and empty values in quotes, as "true"'
    )


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    names = {bool: "true or false", dict: "a mapping", list: "a list", str: "text", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def _env(values: dict[str, str | SecretRef]) -> dict[str, str | SecretRef]:
    problems = []
    for name, value in values.items():
        if not ENV_NAME.fullmatch(name):
            problems.append(f"{name!r} is not a name that a shell can set: letters, digits and _ only")
        elif SECRET_NAME.search(name) and not isinstance(value, SecretRef):
            problems.append(
                f"{name} looks like a secret and has a literal value: write {{from_env: {name}}} or {{from_file: PATH}}"
            )
        elif isinstance(value, str) and SECRET_VALUE.search(value):
            problems.append(
                f"{name} holds an address with a password in it: write {{from_env: {name}}} or {{from_file: PATH}}"
            )
    if problems:
        raise ValueError("; ".join(problems))
    return values


def web_address(value: str) -> str:
    """Return an address of the web without a slash at its end; ValueError for what is none, or more than one line."""
    # It becomes a line of apt's sources and of daemons' settings.
    if not re.fullmatch(r"https?://[^\s/]\S*", value) or not value.isprintable():
        raise ValueError(f"found {value!r}, expected an address that begins with http:// or https://, without spaces")
    return value.rstrip("/")


def absolute_path(value: str) -> str:
    """Return an absolute path without a slash at its end; ValueError for anything else."""
    if not value.startswith("/") or "/../" in f"{value}/" or "\n" in value:
        raise ValueError(f"found {value!r}, expected an absolute path")
    return value.rstrip("/") or "/"


def _listen(value: str) -> str:
    if value in {"cluster", "all", "local"}:
        return value
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(
            f"found {value!r}, expected cluster (the host's address in the cluster), all, local "
            "or one of the host's IP addresses"
        ) from None


def _image(value: str) -> str:
    name, _, tag = value.rpartition("/")[2].partition(":")
    if not re.fullmatch(r"[a-z0-9][^\s$]*", value, re.IGNORECASE) or not name:
        raise ValueError(f"found {value!r}, expected an image such as vllm/vllm-openai:v0.11.0")
    if "@sha256:" not in value and tag in {"", "latest"}:
        raise ValueError(
            f"found {value!r}, expected a version after the name (repository:v1.2.3) or a digest: "
            "what `latest` means changes"
        )
    return value


EnvValue = Annotated[str | SecretRef, PlainValidator(_env_value)]
Env = Annotated[dict[str, EnvValue], AfterValidator(_env)]
Port = Annotated[int, Field(ge=1, le=MAX_PORT)]
Url = Annotated[str, AfterValidator(web_address)]
ControlPath = Annotated[str, AfterValidator(absolute_path)]
Listen = Annotated[str, AfterValidator(_listen)]
ImageRef = Annotated[str, AfterValidator(_image)]
Names = Annotated[tuple[str, ...], Field(strict=False)]


def literal_env(env: dict[str, str | SecretRef]) -> dict[str, str]:
    """Return the variables whose values may stand in a file that everybody reads."""
    return {name: value for name, value in env.items() if isinstance(value, str)}


def secret_env(env: dict[str, str | SecretRef]) -> dict[str, SecretRef]:
    """Return the variables whose values are only referred to."""
    return {name: value for name, value in env.items() if isinstance(value, SecretRef)}
