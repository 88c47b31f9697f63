# SPDX-License-Identifier: Apache-2.0
"""From the driver that a host has to another version of it: whether that can be, and what is done. Pure."""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping, NamedTuple

from ansible.module_utils.nvidia_driver_needs import Asked, DriverError
from ansible.module_utils.nvidia_driver_packages import BROUGHT, HEADERS, KEPT, Choice, branch_of, upstream
from ansible.module_utils.nvidia_driver_plan import Plan, finished, has

ASKED = re.compile(r"^(\d{3,4})(\.\d+(?:\.\d+)?)?$")
# Of a branch: nvidia-utils-550-server, libnvidia-compute-550, nvidia-driver-pinning-550.
OF_BRANCH = re.compile(r"^(?:lib)?nvidia-[a-z0-9-]*?-(\d{3,4})(?:-server)?(?:-open)?$")
# Of a branch and a kind of modules, on Ubuntu.
OF_KIND = re.compile(
    r"^(?:nvidia-(?:driver|dkms|kernel-source)|linux-(?:modules|objects|signatures)-nvidia)-(\d{3,4})-server(-open)?(?:-.+)?$"
)
OF_PACKAGES = re.compile(
    r"^(nvidia-(driver|kernel|open-kernel|dkms|utils|smi)|kmod-nvidia|libcuda1$|linux-modules-nvidia-)"
)
# Of the driver's version, and no package's dependency: nothing but a person, or we, would bring them back.
BESIDE = re.compile(r"^(nvidia-imex|libnvidia-nscq)-(\d{3,4})$")
DEBIANS_MODULES = ("nvidia-kernel-dkms", "nvidia-open-kernel-dkms", "nvidia-kernel-open-dkms")


class Goal(NamedTuple):
    """What a person asked for: a branch, or one version of it."""

    branch: int
    version: str = ""

    def fits(self, version: str) -> bool:
        """Tell whether a version is what was asked for."""
        return version == self.version if self.version else branch_of(version) == self.branch

    @property
    def pattern(self) -> str:
        """Return it as apt's preferences have versions."""
        return f"{self.version}*" if self.version else f"{self.branch}.*"

    def __str__(self) -> str:
        """Write it as it was asked for."""
        return self.version or str(self.branch)


def goal_of(text: str) -> Goal:
    """Read 580 or 580.95.05. DriverError for what is neither."""
    match = ASKED.match(text)
    if not match:
        raise DriverError(f"found {text!r}, expected a driver's branch (580) or version (580.95.05)")
    return Goal(int(match.group(1)), text if match.group(2) else "")


def on_disk(facts: Mapping[str, Any]) -> str:
    """Return the version of the modules that the next boot loads, empty where there are none."""
    found = [facts["built"].get(kernel, {}).get("version", "") for kernel in (facts["newest"], facts["running"])]
    return next((version for version in found if version), "")


def has_driver(facts: Mapping[str, Any]) -> bool:
    """Tell whether there is a driver to be upgraded: one that runs, or one that is there and does not load."""
    return facts["loaded"] is not None or bool(on_disk(facts))


def check_generation(asked: Asked, goal: Goal, modules: str) -> None:
    """Raise DriverError for GPUs that the branch does not know, or whose modules it has not."""
    if asked.kind(goal.branch, modules):
        return
    if asked.kind(goal.branch):
        raise DriverError(
            f"found {modules} modules in onprem_llm_site.nvidia_driver.kernel_modules, expected such as drive "
            f"{asked.names} under driver {goal.branch}. Leave that setting at auto"
        )
    raise DriverError(
        f"found {asked.names}, which driver {goal.branch} cannot run, expected a branch for them: {asked.branches()}. "
        "Choose such a branch, or leave the host out (--limit)"
    )


def check_packaged(facts: Mapping[str, Any], installed: Iterable[str]) -> None:
    """Raise DriverError where the driver came without packages: another one beside it would not do."""
    if not any(OF_PACKAGES.match(one) for one in installed):
        version = facts["loaded"]["version"] if facts["loaded"] else on_disk(facts)
        raise DriverError(
            f"found driver {version}, which no package has brought (NVIDIA's own installer, most likely), expected one "
            "of packages. Drain the host, take that driver away (nvidia-uninstall), run bootstrap: it installs one"
        )


def numbers(version: str) -> list[int]:
    """Return what orders versions: 580.95.05 before 580.105.08."""
    return [int(part) for part in version.split(".") if part.isdigit()]


def is_there(facts: Mapping[str, Any], goal: Goal, newest: str | None = None) -> bool:
    """Tell whether what was asked for runs; of a branch the newest that sources have, as far as they have it."""
    if facts["loaded"] is None or not goal.fits(facts["loaded"]["version"]):
        return False
    return bool(goal.version) or newest is None or numbers(facts["loaded"]["version"]) >= numbers(newest)


def check_found(goal: Goal, choice: Choice) -> None:
    """Raise DriverError where the sources have the branch, and not the version."""
    if not goal.fits(choice.version):
        raise DriverError(
            f"found driver {choice.version} in the host's package sources, expected {goal}. Ask for a version that "
            "they have, or name a mirror of NVIDIA's repository that has it (onprem_llm_site.package_mirrors.cuda)"
        )


def outdated(choice: Choice, there: Iterable[str]) -> list[str]:
    """Return packages that are there and belong to another branch, or to modules of the other kind."""
    kept = {name.partition("=")[0] for _, names in choice.groups for name in names}
    return sorted({name for name in there if name not in kept and _is_outdated(name, choice)})


def _is_outdated(name: str, choice: Choice) -> bool:
    of_kind, of_branch = OF_KIND.match(name), OF_BRANCH.match(name)
    if of_kind:
        kind = "open" if of_kind.group(2) else "proprietary"
        return (int(of_kind.group(1)), kind) != (choice.branch, choice.kind)
    if of_branch:
        return int(of_branch.group(1)) != choice.branch
    return choice.stream is None and name in DEBIANS_MODULES


def successors(choice: Choice, old: Iterable[str], offered: Mapping[str, str]) -> list[str]:
    """Return what takes the place of packages of another branch, as apt is told. DriverError where nothing could."""
    found = []
    for name, match in ((name, BESIDE.match(name)) for name in old):
        if match is None:
            continue
        names = [f"{match.group(1)}-{choice.branch}", match.group(1)]
        new = next((one for one in names if upstream(offered.get(one, "")) == choice.version), None)
        if new is None:
            others = ", ".join(f"{one} {offered[one]}" for one in names if one in offered) or "none for it"
            raise DriverError(
                f"found {name} on the host and {others} in its package sources, expected {names[0]} of driver "
                f"{choice.version}: the old one goes with its branch. Name a mirror of NVIDIA's repository that has it "
                "(onprem_llm_site.package_mirrors.cuda), or remove the package where nothing needs it"
            )
        found.append(f"{new}={offered[new]}")
    return found


def exact(choice: Choice, installed: Mapping[str, str], offered: Mapping[str, str]) -> list[str]:
    """Return the driver's packages with the version that each is to have; with all that is there and has it too."""
    names = [name for why, names in choice.groups if why not in (HEADERS, KEPT) for name in names]
    if choice.stream is not None or BROUGHT in offered:  # dnf's, of a stream or of a bundle, which has none
        return [name if name.endswith(choice.version) else f"{name}-{choice.version}" for name in names]
    beside = [
        name
        for name, version in installed.items()
        if upstream(offered.get(name, "")) == choice.version and upstream(version) not in ("", choice.version)
    ]
    known = {name.partition("=")[0] for name in names}
    return [
        name if "=" in name or name not in offered else f"{name}={offered[name]}"
        for name in [*names, *(one for one in beside if one not in known)]
    ]


def for_upgrade(facts: Mapping[str, Any], choice: Choice, state: Mapping[str, Any], offered: Mapping[str, str]) -> Plan:
    """Return the plan that brings a host from its driver to the chosen one.

    DriverError where Secure Boot forbids it, or a package that is there has no version for it. `state` is that of
    `for_packages`, with `users`: the programs that have the GPUs open.
    """
    old = outdated(choice, state["there"])
    wanted = [name for why, names in choice.groups if why == HEADERS for name in names]
    headers = [name for name in wanted if not has(state["installed"], name)]
    names = [*exact(choice, state["installed"], offered), *successors(choice, old, offered)]
    driver = [name for name in dict.fromkeys(names) if not has(state["installed"], name)]
    actions: list[dict[str, Any]] = []
    if driver or old:
        actions.append({"do": "let_go"})
    if choice.stream is not None and state["stream"] != choice.stream:
        actions.append({"do": "stream", "name": choice.stream})
    if headers:
        actions.append({"do": "install", "names": headers, "why": HEADERS})
    if driver or old:
        # In one go: where a package cannot be fetched, the driver that was there still is.
        actions.append({"do": "install", "names": driver, "without": old, "why": "the driver"})
    return _loading(facts, finished(facts, choice, state, actions), state)


def _loading(facts: Mapping[str, Any], plan: Plan, state: Mapping[str, Any]) -> Plan:
    """Put the new module in the place of the loaded one: at once where nothing uses it, else by a reboot."""
    locked_out = next((one for one in plan.findings if one["check"] == "secure_boot"), None)
    if locked_out is not None:
        found, expected, remedy = (locked_out[part] for part in ("found", "expected", "remedy"))
        raise DriverError(f"found that {found}, expected {expected}. {remedy}")
    actions = [{**one, "do": "reload"} if one["do"] == "load" else one for one in plan.actions]
    reasons = list(plan.reboot)
    if facts["loaded"] is not None and state["users"]:
        actions = [one for one in actions if one["do"] != "reload"]
        reasons.append(f"the GPUs are in use by {', '.join(state['users'])}")
    return Plan(actions, plan.findings, reasons)
