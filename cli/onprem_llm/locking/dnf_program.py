"""What is asked of dnf 4, by its own Python: `python3 dnf_program.py < request.json > answer.json`.

dnf's library belongs to the system's Python, so this runs there and imports nothing of onprem-llm. A request:

    root, releasever, arch, basearch, platform; repositories: [{id, baseurl, gpgkey, gpgcheck, repo_gpgcheck}]
    look:     names of packages -> {"offered": {name: newest version}, "streams": {"nvidia-driver:580-open": version}}
    resolve:  [{"install": [specs], "stream": null}] -> {"packages": [{name, version, arch, file, size, sha256}]}
    download: [name-version.arch], "to": folder -> {"files": [paths]}; each package's signature is checked

An error is {"error": text}. The system that packages are chosen for is empty: nothing of this machine counts.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

MODULE, PART = "nvidia-driver", "nvidia-driver-cuda"
NO_FEATURES = {"best": True, "install_weak_deps": False, "gpgcheck": True, "assumeyes": True, "plugins": False}


def opened(request: dict[str, Any]) -> Any:
    """Return a dnf.Base for the release, with the package lists of its repositories."""
    import dnf  # type: ignore[import-not-found]

    base = dnf.Base()
    conf, root = base.conf, Path(request["root"])
    conf.installroot, conf.cachedir = str(root / "system"), str(root / "cache")
    conf.persistdir, conf.logdir = str(root / "persist"), str(root / "log")
    Path(conf.logdir).mkdir(parents=True, exist_ok=True)
    conf.reposdir, conf.varsdir, conf.pluginpath = [], [], []
    conf.module_platform_id = request["platform"]
    for name, value in NO_FEATURES.items():
        setattr(conf, name, value)
    conf.substitutions.update({name: request[name] for name in ("releasever", "arch", "basearch")})
    conf.arch, conf.ignorearch = request["arch"], True
    for one in request["repositories"]:
        key = [f"file://{one['gpgkey']}"] if one["gpgkey"] else []
        base.repos.add_new_repo(
            one["id"], conf, baseurl=[one["baseurl"]], gpgkey=key, gpgcheck=one["gpgcheck"],
            repo_gpgcheck=one["repo_gpgcheck"], skip_if_unavailable=False, metadata_expire=request["expire"],
            # A package that is named in its version may be of any stream.
            module_hotfixes="download" in request,
        )  # fmt: skip
    base.fill_sack(load_system_repo=False)
    return base


def streams(base: Any) -> dict[str, str]:
    """Return the streams of NVIDIA's module, each with the newest version of its driver."""
    import dnf.module.module_base  # type: ignore[import-not-found]

    found: dict[str, str] = {}
    for one in dnf.module.module_base.ModuleBase(base).get_modules(MODULE)[0]:
        for artifact in one.getArtifacts():
            name, _, version = artifact.rpartition("-")[0].rpartition("-")
            if name == PART:
                stream = f"{one.getName()}:{one.getStream()}"
                number = version.rpartition(":")[2]
                found[stream] = max(number, found.get(stream, ""), key=numbers)
            elif name in ("nvidia-fabric-manager", "nvidia-fabricmanager"):
                found[f"{name}@{one.getStream()}"] = version.rpartition(":")[2]
    return found


def numbers(version: str) -> list[int]:
    """Return what sorts 580.9 before 580.95."""
    return [int(part) for part in version.split(".") if part.isdigit()]


def look(base: Any, names: list[str]) -> dict[str, Any]:
    """Return what the repositories have of some names, with or without a version in them."""
    import dnf.subject  # type: ignore[import-not-found]

    offered = {}
    for name in names:
        found = dnf.subject.Subject(name).get_best_query(base.sack, with_provides=False, with_filenames=False).latest()
        for one in found:
            offered[name] = one.evr
    return {"offered": offered, "streams": streams(base)}


def resolve(request: dict[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the closures of groups of packages, put together. A stream is enabled for its group alone."""
    import dnf.module.module_base

    packages: dict[str, dict[str, Any]] = {}
    for group in groups:
        base = opened(request)
        if group["stream"]:
            dnf.module.module_base.ModuleBase(base).enable([group["stream"]])
        for spec in group["install"]:
            base.install(spec)
        base.resolve(allow_erasing=False)
        for one in base.transaction.install_set:
            packages[str(one)] = described(one)
    return {"packages": [packages[name] for name in sorted(packages)]}


def described(package: Any) -> dict[str, Any]:
    """Return a package as a lock has it. ValueError where its repository has no sha256 for it."""
    import hawkey  # type: ignore[import-not-found]

    kind, value = package.chksum
    if kind != hawkey.CHKSUM_SHA256:
        raise ValueError(f"{package}: its repository has no sha256 of it")
    return {
        "name": package.name, "version": package.evr, "arch": package.arch, "size": package.downloadsize,
        "file": Path(package.location).name, "sha256": value.hex(),
    }  # fmt: skip


def download(base: Any, wanted: list[str], folder: str) -> dict[str, Any]:
    """Fetch packages by name, version and architecture, and check who signed each where its repository signs them."""

    packages = []
    for one in wanted:
        found = list(base.sack.query().filterm(nevra_strict=one))
        if not found:
            raise ValueError(f"{one} is no longer there")
        packages.append(found[0])
    base.conf.destdir = folder
    for package in packages:
        base.repos[package.repoid].pkgdir = folder
    base.download_packages(packages)
    for package in packages:
        if base.repos[package.repoid].gpgcheck:
            code, said = base.package_signature_check(package)
            if code == 1:
                base.package_import_key(package, askcb=lambda *_: True)
                code, said = base.package_signature_check(package)
            if code:
                raise ValueError(f"{package}: its signature is not good: {said}")
    return {"files": [package.localPkg() for package in packages]}


def answered(request: dict[str, Any]) -> dict[str, Any]:
    """Do what a request asks for."""
    if "resolve" in request:
        return resolve(request, request["resolve"])
    base = opened(request)
    if "download" in request:
        return download(base, request["download"], request["to"])
    return look(base, request["look"])


def main() -> None:
    """Answer in JSON, whatever dnf itself prints."""
    request, out = json.load(sys.stdin), os.dup(1)
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    try:
        answer = answered(request)
    except ImportError as error:
        answer = {"error": f"no dnf: {error}", "missing": True}
    except Exception as error:
        answer = {"error": str(error).strip() or type(error).__name__}
    with os.fdopen(out, "w") as stream:
        json.dump(answer, stream)


if __name__ == "__main__":
    main()
