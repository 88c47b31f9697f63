"""The bundle's bill of materials, CycloneDX 1.5 as JSON: no date in it, its number made from the lock.

The format leaves the date out where it must; SPDX asks for one, which would make two bundles of one lock.
"""

import json
import uuid
from collections.abc import Mapping
from urllib.parse import quote

from onprem_llm.spec.lock import Lock, LockedImage, LockedPackage, LockedPackages, LockedWeights, LockedWheel

Component = dict[str, object]


def bill(lock: Lock, lock_sum: str, wheel_licences: Mapping[str, str]) -> bytes:
    """Return the document; `wheel_licences` has by file name what a wheel's metadata says."""
    components: dict[str, Component] = {}
    for image in lock.images:
        _add(components, _image(image))
    for weights in lock.weights:
        _add(components, _weights(weights))
    for release in lock.packages:
        for package in release.files:
            _add(components, _package(release, package))
    for wheels in lock.wheels:
        for wheel in wheels.files:
            _add(components, _wheel(wheel, wheel_licences.get(wheel.filename, "")))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, lock_sum)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application", "bom-ref": f"onprem-llm-lock:{lock_sum}", "name": "onprem-llm bundle",
                "version": lock_sum[:12], "hashes": _sha256(lock_sum),
            },
            "tools": {"components": [{"type": "application", "name": "onprem-llm", "version": lock.onprem_llm}]},
        },
        "components": [components[key] for key in sorted(components)],
    }  # fmt: skip
    return (json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def _add(components: dict[str, Component], component: Component) -> None:
    components[str(component["bom-ref"])] = component


def _sha256(value: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": value}]


def _image(image: LockedImage) -> Component:
    name = image.ref.partition("@")[0]
    digest = image.digest.removeprefix("sha256:")
    return {
        "type": "container", "bom-ref": f"image:{image.ref}", "name": name, "version": image.digest,
        "purl": f"pkg:oci/{quote(name.rpartition('/')[2].partition(':')[0])}@{quote(image.digest)}",
        "hashes": _sha256(digest),
    }  # fmt: skip


def _weights(weights: LockedWeights) -> Component:
    version = weights.commit or weights.name
    component: Component = {
        "type": "machine-learning-model", "bom-ref": f"weights:{weights.name}", "name": weights.id, "version": version,
        "components": [
            {
                "type": "file", "bom-ref": f"weights:{weights.name}/{file.path}", "name": file.path,
                "hashes": _sha256(file.sha256),
            }
            for file in sorted(weights.files, key=lambda one: one.path)
        ],
    }  # fmt: skip
    if weights.source == "huggingface":
        component["purl"] = f"pkg:huggingface/{quote(weights.id)}@{version}"
    return component


def _package(release: LockedPackages, package: LockedPackage) -> Component:
    distribution = f"{release.os}-{release.release}"
    kind, version, more = "deb", package.version, ""
    if package.filename.endswith(".rpm"):
        epoch, _, version = package.version.rpartition(":")
        kind, more = "rpm", f"&epoch={epoch}" if epoch else ""
    purl = (
        f"pkg:{kind}/{release.os}/{quote(package.name)}@{quote(version, safe='')}"
        f"?arch={package.architecture}&distro={distribution}{more}"
    )
    return {
        "type": "library", "bom-ref": purl, "purl": purl, "name": package.name, "version": package.version,
        "hashes": _sha256(package.sha256),
    }  # fmt: skip


def _wheel(wheel: LockedWheel, licence: str) -> Component:
    name, version = wheel.filename.split("-")[:2]
    purl = (
        f"pkg:pypi/{quote(name.lower().replace('_', '-'))}@{quote(version, safe='')}?file_name={quote(wheel.filename)}"
    )
    component: Component = {
        "type": "library", "bom-ref": purl, "purl": purl, "name": name, "version": version,
        "hashes": _sha256(wheel.sha256),
    }  # fmt: skip
    return {**component, "licenses": [{"license": {"name": licence}}]} if licence else component
