# SPDX-License-Identifier: Apache-2.0
"""Which packages make up a driver on Debian, Ubuntu and the RHEL family, by what their sources offer. Pure.

`offered` maps a package to the version that would be installed. Debian's names are those of its archive (tried);
Ubuntu's of its archive (packages.ubuntu.com); those of NVIDIA's repositories are of its driver installation guide.
"""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple

from ansible.module_utils.nvidia_driver_needs import Asked, DriverError

BROUGHT = "(a bundle's)"
RHEL_FAMILY = ("rhel", "rocky", "almalinux", "centos", "ol")
UBUNTU_DRIVER = re.compile(r"^nvidia-driver-(\d+)-server(-open)?$")
STREAM = re.compile(r"^(\d+)(-open|-dkms)?$")
# What a compute host wants of Debian's own packages beside the kernel modules: no X server comes with these.
DEBIAN_PARTS = ["nvidia-smi", "libcuda1", "libnvidia-nvvm4", "nvidia-persistenced"]
# The branch with long-term support; every vLLM image runs on it, and every GPU from Maxwell to B300.
PREFERRED = 580
# Why packages are installed, as groups of a choice have it.
HEADERS, KEPT = "headers to build modules with", "the branch is kept"
PINNING = "nvidia-driver-pinning-{}"  # of NVIDIA's own repository: it keeps a branch


# What NVIDIA's installer builds modules with, beside the kernels' headers.
TOOLS = {"debian": ["dkms", "gcc", "make", "libc6-dev"], "ubuntu": ["dkms", "gcc", "make", "libc6-dev"]}
RHEL_TOOLS = ["dkms", "gcc", "make", "elfutils-libelf-devel"]
RUN_FILE = re.compile(r"^NVIDIA-Linux-(x86_64|aarch64)-(\d{3,}\.\d+(?:\.\d+)?)(-no-compat32)?\.run$")


class Choice(NamedTuple):
    """A driver that was chosen: what is installed in which order, each group with its reason."""

    branch: int
    version: str  # upstream's, as 550.163.01
    kind: str  # open or proprietary
    groups: list[tuple[str, list[str]]]
    stream: str | None = None  # of dnf's module nvidia-driver
    unbuilt: tuple[str, ...] = ()  # kernels that it cannot be built for: no source has their headers
    signed: bool = False  # by a key that the firmware knows
    instead_of: tuple[str, ...] = ()  # packages that must not be there beside it


class Wishes(NamedTuple):
    """What a person or the control host has decided."""

    branch: int | None = None
    modules: str = "auto"
    build: str = "auto"  # or dkms, precompiled


def chosen(facts: Mapping[str, Any], asked: Asked, wishes: Wishes, offered: Mapping[str, str]) -> Choice:
    """Choose a driver for a host. DriverError says what its sources offer and what its GPUs need."""
    family = {"debian": debian, "ubuntu": ubuntu}.get(facts["os"], redhat if facts["os"] in RHEL_FAMILY else None)
    if family is None:
        raise DriverError(f"found {facts['os'] or 'no /etc/os-release'}, expected Debian, Ubuntu or the RHEL family")
    return family(facts, asked, wishes, offered)


def targets(facts: Mapping[str, Any]) -> list[str]:
    """Return the kernels that want a module: the running one and the one that the next boot takes."""
    return list(dict.fromkeys([facts["running"], facts["newest"]]))


def upstream(version: str) -> str:
    """Return NVIDIA's version in a package's: 580.95.05 of 580.95.05-0ubuntu1 and of 3:580.95.05-1.el9."""
    match = re.search(r"(?:^|:)(\d{3,}\.\d+(?:\.\d+)?)", version)
    return match.group(1) if match else ""


def branch_of(version: str) -> int:
    """Return 580 of 580.95.05, and 0 of nothing."""
    return int(version.partition(".")[0] or 0)


def of_run_file(
    facts: Mapping[str, Any], asked: Asked, wishes: Wishes, offered: Mapping[str, str], name: str
) -> Choice:
    """Choose what NVIDIA's own installer brings, told from its file name. DriverError where that will not do."""
    match = RUN_FILE.match(name)
    if not match or match.group(1) != facts["machine"]:
        raise DriverError(
            f"found the file {name}, expected NVIDIA-Linux-{facts['machine']}-VERSION.run, as NVIDIA names it. Correct "
            "onprem_llm_site.nvidia_driver.run_file, or leave it out for hosts of another architecture"
        )
    branch = branch_of(match.group(2))
    kind = _fitting(asked, wishes, [branch], f"the file {name}")[1]
    if asked.fabric:
        raise DriverError(
            f"found the file {name} for GPUs that are joined by NVSwitches, expected packages: they want a Fabric "
            "Manager of the driver's version, which a .run file does not bring. Name a mirror of NVIDIA's repository "
            "instead (onprem_llm_site.package_mirrors.cuda)"
        )
    redhat_like = facts["os"] in RHEL_FAMILY
    headers, unbuilt = _headers(facts, offered, "kernel-devel-{}" if redhat_like else "linux-headers-{}")
    tools = RHEL_TOOLS if redhat_like else TOOLS[facts["os"]]
    groups = [(HEADERS, headers), ("what builds them", tools)]
    return Choice(branch, match.group(2), kind, groups, None, _checked(facts, unbuilt))


def debian(facts: Mapping[str, Any], asked: Asked, wishes: Wishes, offered: Mapping[str, str]) -> Choice:
    """Debian: NVIDIA's own repository where the host has it, else the archive's non-free packages."""
    own = "nvidia-driver-cuda" in offered
    parts = {
        "open": "nvidia-kernel-open-dkms" if own else "nvidia-open-kernel-dkms",
        "proprietary": "nvidia-kernel-dkms",
    }
    versions = {kind: upstream(offered.get(name, "")) for kind, name in parts.items()}
    branch = branch_of(next((version for version in versions.values() if version), ""))
    pinning: list[str] = []
    if own and wishes.branch not in (None, branch) and PINNING.format(wishes.branch) in offered:
        branch, pinning = int(wishes.branch or 0), [PINNING.format(wishes.branch)]
    kind = _fitting(asked, wishes, [branch] if branch else [], "Debian's sources")[1]
    if not own and wishes.modules == "auto" and asked.kind(branch, "proprietary"):
        # Debian's nvidia-driver takes these, and its open ones lag behind its kernels: those of 550.163.01-2 do not
        # build for 6.12.117 (pci_resize_resource), the proprietary ones do. Tried.
        kind = "proprietary"
    if not versions[kind]:
        raise DriverError(f"found no {parts[kind]} in the host's package sources, expected it for {asked.names}")
    headers, unbuilt = _headers(facts, offered, "linux-headers-{}")
    # With the next kernel come its headers; not where they are of another kernel already: it would be built for, too.
    meta = f"linux-headers-{_flavour(facts['newest'])}"
    headers += [meta] if facts["newest"].startswith(offered.get(meta, "none").partition("-")[0]) else []
    rest = ["nvidia-driver-cuda", "nvidia-persistenced"] if own else DEBIAN_PARTS
    version = versions[kind]
    groups = [(KEPT, pinning), (HEADERS, headers)]
    groups += [("the driver", [parts[kind], *[name for name in rest if name in offered]])]
    fabric = _fabric(asked, branch, version, offered, "=")
    others = tuple(name for one, name in parts.items() if one != kind)
    return Choice(branch, version, kind, [*groups, *fabric], None, _checked(facts, unbuilt), instead_of=others)


def ubuntu(facts: Mapping[str, Any], asked: Asked, wishes: Wishes, offered: Mapping[str, str]) -> Choice:
    """Ubuntu: the server branches; modules that Canonical signed where a kernel has them, else built by DKMS."""
    found = {(int(m.group(1)), "open" if m.group(2) else "proprietary") for m in map(UBUNTU_DRIVER.match, offered) if m}
    branch, kind = _fitting(asked, wishes, sorted({one for one, _ in found}), "Ubuntu's sources", found)
    name = f"{branch}-server{'-open' if kind == 'open' else ''}"
    kernels = targets(facts)
    signed = [f"linux-modules-nvidia-{name}-{kernel}" for kernel in kernels]
    version = upstream(offered[f"nvidia-driver-{name}"])
    have_all = all(one in offered for one in signed)
    if wishes.build == "precompiled" and not have_all:
        raise DriverError(
            f"found no {', '.join(one for one in signed if one not in offered)} in Ubuntu's sources, expected modules "
            "that are built already. Update the host's kernel, or leave nvidia_driver.build at auto"
        )
    unbuilt: tuple[str, ...] = ()
    ready = have_all and wishes.build != "dkms"
    if ready:
        groups = [("modules that are built and signed already", signed)]
    else:
        headers, missing = _headers(facts, offered, "linux-headers-{}")
        unbuilt = _checked(facts, missing)
        groups = [(HEADERS, headers), ("modules, built here", [f"nvidia-dkms-{name}"])]
    groups += [("the driver", [f"nvidia-driver-{name}"]), *_fabric(asked, branch, version, offered, "=")]
    return Choice(branch, version, kind, groups, None, unbuilt, ready)


def redhat(facts: Mapping[str, Any], asked: Asked, wishes: Wishes, offered: Mapping[str, str]) -> Choice:
    """The RHEL family: a stream of NVIDIA's module nvidia-driver.

    `offered` has the streams as `nvidia-driver:580-open`, what is in one as `nvidia-fabric-manager@580-open`. With
    BROUGHT in it the packages are a bundle's, which are there whatever stream is enabled.
    """
    prefix, at = "nvidia-driver:", "@"
    streams = {name[len(prefix) :]: version for name, version in offered.items() if name.startswith(prefix)}
    found = set()
    for match in filter(None, map(STREAM.match, streams)):
        precompiled = match.group(2) is None
        if (wishes.build == "precompiled") == precompiled:
            found.add((int(match.group(1)), "open" if match.group(2) == "-open" else "proprietary"))
    branch, kind = _fitting(asked, wishes, sorted({one for one, _ in found}), "NVIDIA's repository", found)
    stream = f"{branch}" + ("" if wishes.build == "precompiled" else "-open" if kind == "open" else "-dkms")
    headers, missing = _headers(facts, offered, "kernel-devel-{}")
    version = upstream(streams[stream])
    if wishes.build == "precompiled":
        groups, unbuilt = [("the driver", ["nvidia-driver-cuda", "nvidia-persistenced"])], ()
    else:
        dkms = "kmod-nvidia-open-dkms" if kind == "open" else "kmod-nvidia-latest-dkms"
        groups = [(HEADERS, [*headers, "kernel-headers"])]
        groups += [("the driver", [dkms, "nvidia-driver-cuda", "nvidia-persistenced"])]
        unbuilt = _checked(facts, missing)
    in_stream = {name.partition(at)[0]: one for name, one in offered.items() if name.endswith(at + stream)}
    fabric = _fabric(asked, branch, version, {**offered, **in_stream}, "-")
    enabled = None if BROUGHT in offered else f"{prefix}{stream}"
    return Choice(branch, version, kind, [*groups, *fabric], enabled, unbuilt)


def _fitting(
    asked: Asked,
    wishes: Wishes,
    branches: list[int],
    where: str,
    pairs: set[tuple[int, str]] | None = None,
) -> tuple[int, str]:
    """Return the branch to take, the long-lived one before the newest, and which modules of it."""
    for branch in sorted(branches, key=lambda one: (one == PREFERRED, one), reverse=True):
        if wishes.branch in (None, branch):
            kinds = {kind for one, kind in pairs if one == branch} if pairs is not None else {"open", "proprietary"}
            kind = asked.kind(branch, wishes.modules)
            if kind not in kinds and wishes.modules == "auto":
                kind = next((one for one in sorted(kinds) if asked.kind(branch, one)), None)
            if kind in kinds:
                return branch, str(kind)
    wanted = f"branch {asked.branches()}" + (f", {wishes.modules} modules" if wishes.modules != "auto" else "")
    wanted += f", branch {wishes.branch} as was asked for" if wishes.branch else ""
    raise DriverError(
        f"found {', '.join(f'driver {one}' for one in branches) or 'no NVIDIA driver'} in {where}, expected one for "
        f"{asked.names}: {wanted}. Name a mirror of NVIDIA's repository (onprem_llm_site.package_mirrors.cuda) or a "
        ".run file (onprem_llm_site.nvidia_driver.run_file), then run bootstrap again"
    )


def _headers(facts: Mapping[str, Any], offered: Mapping[str, str], name: str) -> tuple[list[str], list[str]]:
    """Return (packages of headers that are wanted, kernels that no source has headers of)."""
    missing = [kernel for kernel in targets(facts) if kernel not in facts["headers"]]
    had = [kernel for kernel in missing if name.format(kernel) in offered]
    return [name.format(kernel) for kernel in had], [kernel for kernel in missing if kernel not in had]


def _checked(facts: Mapping[str, Any], unbuilt: list[str]) -> tuple[str, ...]:
    """Return the kernels without headers; DriverError where that leaves none to build for."""
    if set(unbuilt) >= set(targets(facts)):
        raise DriverError(
            f"found no headers of the kernel {' or '.join(unbuilt)} on the host or in its package sources, expected "
            "them: the driver's module is built with them. Update the host's kernel to one that the sources have, "
            "reboot, and run bootstrap again (a bundle: collect the hosts' facts anew, make another)"
        )
    return tuple(unbuilt)


def _flavour(kernel: str) -> str:
    """Return amd64 of 6.12.48+deb13-amd64, cloud-amd64 of 6.12.48+deb13-cloud-amd64."""
    return re.sub(r"^[0-9.]+(?:\+[a-z0-9.~]+)?(?:-\d+)?-", "", kernel)


def _fabric(
    asked: Asked, branch: int, version: str, offered: Mapping[str, str], joint: str
) -> list[tuple[str, list[str]]]:
    """Return the group of the Fabric Manager, of the driver's very version: with any other it refuses to start."""
    if not asked.fabric:
        return []
    names = [f"nvidia-fabricmanager-{branch}", "nvidia-fabricmanager", "nvidia-fabric-manager"]
    for name in names:
        if upstream(offered.get(name, "")) == version:
            exact = f"{name}={offered[name]}" if joint == "=" else f"{name}-{version}"
            subnet = ["nvlsm"] if asked.nvlink5 and "nvlsm" in offered else []
            return [("the Fabric Manager, of the driver's version", [exact, *subnet])]
    others = [f"{name} {offered[name]}" for name in names if name in offered]
    raise DriverError(
        f"found {', '.join(others) or 'no Fabric Manager'} in the host's package sources, expected that of driver "
        f"{version}: this host's GPUs are joined by NVSwitches and do not work together without. Name a mirror of "
        "NVIDIA's repository (onprem_llm_site.package_mirrors.cuda), then run bootstrap again"
    )
