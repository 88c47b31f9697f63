"""`onprem-llm lock`: everything that deployments need, by digest, commit, version and hash."""

import contextlib
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onprem_llm import output
from onprem_llm.errors import UsageError

if TYPE_CHECKING:
    from onprem_llm.spec.site import Site

C = TypeVar("C", bound=Callable[..., Any])
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
PYTHONS = ("3.11", "3.12", "3.13")
MIRRORS = (
    "debian", "debian_security", "ubuntu", "docker", "cuda", "nvidia_container_toolkit", "rocky", "almalinux", "rhel",
    "centos", "ol",
)  # fmt: skip


def _options(function: C) -> C:
    for option in reversed([
        click.option("--facts", type=FILE, multiple=True, required=True, metavar="FILE",
                     help="Facts of the hosts; repeatable."),
        click.option("--inventory", "-i", type=click.Path(exists=True, path_type=Path), metavar="PATH",
                     help="Take the site's settings from its group_vars; no host is reached."),
        click.option("--site", type=FILE, metavar="FILE", help="Take the site's settings from this YAML file."),
        click.option("--vault-password-file", type=FILE, multiple=True, help="For an inventory with a vault."),
        click.option("--images-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
                     help="`docker save` archives.  [default: the site's images_dir]"),
        click.option("--registry", metavar="HOST[:PORT]", help="Ask this registry, not those that images name."),
        click.option("--authfile", type=FILE, help="Credentials of registries, as `skopeo login` writes them."),
        click.option("--registry-ca", type=FILE, help="The CA that signed the registry's certificate."),
        click.option("--package-mirror", "mirrors", multiple=True, metavar="NAME=URL",
                     help=f"A mirror: {', '.join(MIRRORS)}; repeatable.  [default: this machine's own]"),
        click.option("--package-key", "keys", multiple=True, metavar="NAME=FILE",
                     help="The keys that sign a mirror, where they are not its makers' own; repeatable."),
        click.option("--python", "pythons", multiple=True, default=PYTHONS, show_default=True, metavar="VERSION",
                     help="A Python that the control host may have; repeatable."),
        click.option("--expires", metavar="YYYY-MM-DD", help="The last day (UTC) on which a bundle of it is loaded."),
        click.option("--skip", type=click.Choice(["packages", "wheels"]), multiple=True,
                     help="Leave these out: the site has them elsewhere; repeatable."),
        click.option("--out", "-o", type=click.Path(dir_okay=False, path_type=Path), default=Path("onprem-llm.lock"),
                     show_default=True, help="Where to write the lock."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ]):  # fmt: skip
        function = option(function)
    return function


@click.command("lock", short_help="Write down everything that deployments need, for hosts of known facts.")
@click.argument("models", metavar="[MODEL_YAML]...", nargs=-1, type=click.Path(path_type=Path))
@_options
def command(
    models: tuple[Path, ...],
    facts: tuple[Path, ...],
    inventory: Path | None,
    site: Path | None,
    vault_password_file: tuple[Path, ...],
    images_dir: Path | None,
    registry: str | None,
    authfile: Path | None,
    registry_ca: Path | None,
    mirrors: tuple[str, ...],
    keys: tuple[str, ...],
    pythons: tuple[str, ...],
    expires: str | None,
    skip: tuple[str, ...],
    out: Path,
    as_json: bool,
) -> None:
    """Write down everything that deployments need; the same inputs give the same lock.

    Images by digest, weights by commit and hash, packages by version for the hosts' releases and kernels, onprem-llm
    itself as wheels.
    Weights of a hub must have been pulled; images come from registries, or from `docker save` archives.
    Of a site with a Ray cluster (`ray.image`) the cluster's image, too; without a model.yaml, all that `cluster up`
    needs.

    \b
    Example:
      onprem-llm weights pull model.yaml
      onprem-llm lock model.yaml --facts facts.json -i inventory.ini -o onprem-llm.lock
    """
    from onprem_llm.locking.build import Request, build
    from onprem_llm.locking.registry_images import RegistryAccess
    from onprem_llm.locking.summary import COLUMNS, document, rows
    from onprem_llm.spec.facts import merge_facts
    from onprem_llm.whole_files import write_whole

    if inventory and site:
        raise UsageError("--inventory and --site both say what the site's settings are", hint="name one of them")
    _check(pythons, expires)
    known = merge_facts(facts)
    with output.progress() as progress:
        settings, archives = _site(inventory, site, vault_password_file, progress)
        if not models and not settings.ray.image:
            raise UsageError(
                "found no model.yaml, and no onprem_llm_site.ray.image in the site's settings; expected one of them",
                hint="onprem-llm lock model.yaml --facts facts.json -i inventory.ini",
            )
        request = Request(
            models, known, settings, pythons, images_dir or archives, expires,
            RegistryAccess(registry, authfile, registry_ca), dict(_mirror(one) for one in mirrors),
            dict(_key(one) for one in keys), skip,
        )  # fmt: skip
        built = build(request, progress)
    built.origins.remember(built.lock)
    write_whole(out, built.lock.data)
    if as_json:
        output.show_json(document(built, out))
    else:
        output.show_table(COLUMNS, rows(built.lock))
    for text in built.notes:
        output.note(text)
    output.note(f"Written to {out}.")


def _site(
    inventory: Path | None, file: Path | None, vault: tuple[Path, ...], progress: output.Progress
) -> "tuple[Site, Path | None]":
    """Return the settings, and the folder of their archives."""
    from onprem_llm.connection import Connection
    from onprem_llm.locking.site_settings import site_of_file, site_of_inventory
    from onprem_llm.spec.site import Site
    from onprem_llm.wanted import inventory_folder

    if inventory is not None:
        connection = Connection(inventory.absolute(), vault_password_files=tuple(one.absolute() for one in vault))
        site, folder = site_of_inventory(connection, progress), inventory_folder(inventory.absolute())
    else:
        site, folder = (site_of_file(file), file.absolute().parent) if file else (Site(), Path.cwd())
    return site, folder / Path(site.images_dir).expanduser() if site.images_dir else None


def _check(pythons: tuple[str, ...], expires: str | None) -> None:
    strange = [one for one in pythons if not re.fullmatch(r"3\.[0-9]{1,2}", one)]
    if strange:
        raise UsageError(f"--python: found {strange[0]!r}, expected a version such as 3.11", hint="name it again")
    try:
        date.fromisoformat(expires or "2000-01-01")
    except ValueError:
        raise UsageError(
            f"--expires: found {expires!r}, expected a day such as 2027-01-31", hint="name it again"
        ) from None


def _key(text: str) -> tuple[str, str]:
    name, _, file = text.partition("=")
    if name in MIRRORS and Path(file).is_file():
        return name, str(Path(file).absolute())
    raise UsageError(
        f"--package-key: found {text!r}, expected one of {', '.join(MIRRORS)}, =, and a file that is there",
        hint="for example: --package-key docker=docker.asc",
    )


def _mirror(text: str) -> tuple[str, str]:
    from onprem_llm.spec.fields import SECRET_VALUE, web_address

    name, _, address = text.partition("=")
    if SECRET_VALUE.search(address):
        raise UsageError(
            f"--package-mirror: found a password in the address of {name!r}, expected none: everybody here sees it",
            hint="write it into /etc/apt/auth.conf.d/mirror.conf as apt_auth.conf(5) says, readable for you alone, and "
            "name the mirror without it",
        )
    if name in MIRRORS:
        with contextlib.suppress(ValueError):
            return name, web_address(address)
    raise UsageError(
        f"--package-mirror: found {text!r}, expected one of {', '.join(MIRRORS)}, =, and an address",
        hint="for example: --package-mirror debian=https://mirror.example/debian",
    )
