"""The host image, made once for each system and digest of its recipe: a root file system, then what makes it a host."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

from docker.errors import ImageNotFound

from onprem_llm.errors import UsageError
from onprem_llm.lab import apt_root_file_system, dnf_root_file_system, engine, machine, state
from onprem_llm.lab.mirrors import NOTHING, Given, Mirror, apt_sources, find_mirror
from onprem_llm.lab_systems import NAMES, SYSTEMS, System

REPOSITORY = "onprem-llm/lab-host"
BASE_REPOSITORY = "onprem-llm/lab-base"


def recipe(system: System, mirror: Mirror) -> dict[str, bytes]:
    """Return path → content of everything that decides what the image is."""
    root = resources.files(__package__).joinpath("recipe")
    with resources.as_file(root) as folder:
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files |= {f"machine/{path}": content for path, content in machine.shared_files(system).items()}
    if system.family == "dnf":
        files |= dnf_root_file_system.repository(system, mirror)
    else:
        files["sources"] = apt_sources(system, mirror).encode()
    files["packages"] = "\n".join([*system.base, "", *system.ready]).encode()
    return files


def digest(files: Mapping[str, bytes]) -> str:
    """Return 12 hex digits that change with any path or content."""
    seen = hashlib.sha256()
    for path in sorted(files):
        seen.update(f"{path}\0{len(files[path])}\0".encode())
        seen.update(files[path])
    return seen.hexdigest()[:12]


def tag(os_name: str, ready: bool, files: Mapping[str, bytes]) -> str:
    """Return the image's name, e.g. onprem-llm/lab-host:debian-13-0123456789ab-ready."""
    return f"{REPOSITORY}:{os_name}-{digest(files)}{'-ready' if ready else ''}"


def system_of(os_name: str, ready: bool) -> System:
    """Return a system; UsageError for one that is not known, or has no `ready` hosts."""
    if os_name not in SYSTEMS:
        raise UsageError(f"--os {os_name}: not known", hint="known: " + ", ".join(NAMES))
    system = SYSTEMS[os_name]
    if ready and not system.ready:
        raise UsageError(
            f"--ready: {system.title}'s own packages have no Docker Engine and Compose that bootstrap takes",
            hint="make bare hosts, and name a mirror of docker-ce's packages to bootstrap: "
            "onprem_llm_site.package_mirrors.docker",
        )
    return system


def ensure(os_name: str, ready: bool, say: Callable[[str], None], given: Given = NOTHING) -> str:
    """Return the image's name; it is built if the engine has none (about half a minute)."""
    system = system_of(os_name, ready)
    mirror = find_mirror(system, given)
    files = recipe(system, mirror)
    wanted = tag(os_name, ready, files)
    with state.alone("building"):  # labs that come up side by side want the same one
        _ensure(system, mirror, wanted, ready, files, say)
    return wanted


def _ensure(
    system: System, mirror: Mirror, wanted: str, ready: bool, files: Mapping[str, bytes], say: Callable[[str], None]
) -> None:
    if _exists(wanted):
        return
    decides = [name for name in files if name in ("sources", "packages") or name.startswith("repository/")]
    base_tag = f"{system.name}-{digest({name: files[name] for name in decides})}"
    base = f"{BASE_REPOSITORY}:{base_tag}"
    if not _exists(base):
        say(f"building the host image: {system.title} from {mirror.main}")
        _make_base(system, mirror, base_tag, files)
    say(f"building the host image: {wanted}")
    _build(wanted, base, "ready" if ready else "bare", files, system)


def _make_base(system: System, mirror: Mirror, base_tag: str, files: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix="onprem-llm-lab-") as folder:
        archive = Path(folder, "base.tar")
        if system.family == "dnf":
            dnf_root_file_system.make(system, mirror, files, archive)
        else:
            apt_root_file_system.make(system, mirror, files["sources"].decode(), archive)
        engine.client().api.import_image_from_file(str(archive), BASE_REPOSITORY, base_tag)


def _exists(name: str) -> bool:
    try:
        engine.client().images.get(name)
    except ImageNotFound:
        return False
    return True


@engine.explained
def remove_all() -> list[str]:
    """Remove the host images and return their names; one that another lab still uses stays."""
    client = engine.client()
    ours = [name for kind in (REPOSITORY, BASE_REPOSITORY) for one in client.images.list(kind) for name in one.tags]
    in_use = {one.attrs["Config"]["Image"] for one in client.containers.list(all=True, ignore_removed=True)}
    gone = sorted({name for name in ours if name.partition(":")[0] in (REPOSITORY, BASE_REPOSITORY)} - in_use)
    for name in gone:
        client.images.remove(name)
    return gone


def _build(name: str, base: str, target: str, files: Mapping[str, bytes], system: System) -> None:
    with tempfile.TemporaryDirectory(prefix="onprem-llm-lab-") as folder:
        Path(folder, "machine").mkdir()
        for path, content in files.items():
            file = Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        # tempfile and umask make private folders; the image's own must be as on any host.
        for entry in Path(folder).rglob("*"):
            entry.chmod(0o755 if entry.is_dir() else 0o644)
        arguments = {"BASE": base, "READY_PACKAGES": " ".join(system.ready)}
        engine.client().images.build(path=folder, tag=name, target=target, buildargs=arguments, rm=True)
