"""What a host has of a project against what it should have: an action and the reasons that a person wants to read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onprem_llm.hosts import Container, HostState, Project
from onprem_llm.planning.types import Action, Change
from onprem_llm.rendering.compose import LABEL, Draft, Rendered

# So many restarts without health in between are no accident.
LOOP = 3
STARTING = "container is still starting"


@dataclass(frozen=True, slots=True)
class SecretEntry:
    """One line of a project's secrets file: the values of keys, joined."""

    name: str
    keys: tuple[str, ...]
    separator: str = ";"

    def order(self) -> dict[str, object]:
        """Return it as apply.yml's order has it."""
        return {"name": self.name, "keys": list(self.keys), "separator": self.separator}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to do with one project on one host."""

    rendered: Rendered
    change: Change
    recreate: bool
    revision: int | None = None  # that its container carries

    @property
    def needed(self) -> bool:
        """Tell whether anything is to be done."""
        return self.change.action != "keep"

    def restarted(self, reason: str) -> "Outcome":
        """Return the same, started anew where it would have been left alone."""
        if self.change.action != "keep":
            return self
        return replace(self, change=replace(self.change, action="restart", reasons=(reason,)), recreate=True)

    def anew_with(self, path: str, host: HostState) -> "Outcome":
        """Return the same, its container made anew where a file differs that it reads when it starts, and never again.

        One that a person has edited is put right while compose.yaml stays as it is: Compose sees no reason.
        """
        project = host.projects.get(self.rendered.project)
        differs = project is not None and project.files.get(path) != self.rendered.sums()[path]
        return replace(self, recreate=True) if differs else self


def compare(
    host: HostState,
    draft: Draft,
    *,
    revision: int | None,
    image_id: str | None,
    secrets: Mapping[str, str | None],
    why: tuple[str, ...] = (),
    off: bool = False,
) -> Outcome:
    """Compare a project with what runs.

    `secrets`: variable -> the fingerprint that it should have, None where it cannot be known before it is made.
    `why`: what changed in model.yaml, to explain a file that differs. `off`: it is not to run now.
    """
    project = host.projects.get(draft.project)
    if project is None:
        return Outcome(draft.finish(revision), Change(host.name, draft.project, "create", why), False, revision)
    why = (*why, *_access_reason(project, draft))
    same = project.label("digest") == draft.digest
    running_revision = project.label("revision")
    if same and revision is not None and running_revision is not None and running_revision.isdigit():
        revision = int(running_revision)
    rendered = draft.finish(revision)
    file_reasons = _file_reasons(project, rendered, same, why)
    # Other files explain another digest and another image by themselves.
    state_reasons = _container_reasons(project, draft, None if file_reasons else image_id, bool(file_reasons), off)
    secret_reasons = _secret_reasons(host, project, secrets)
    reasons = (*file_reasons, *state_reasons, *secret_reasons)
    action = _action(file_reasons, reasons)
    recreate = bool(secret_reasons) or any(container.health == "unhealthy" for container in project.containers)
    return Outcome(rendered, Change(host.name, draft.project, action, reasons), recreate, revision)


def _action(file_reasons: tuple[str, ...], reasons: tuple[str, ...]) -> Action:
    if file_reasons:
        return "update"
    if not reasons:
        return "keep"
    return "wait" if set(reasons) == {STARTING} else "restart"


def _file_reasons(project: Project, rendered: Rendered, same: bool, why: tuple[str, ...]) -> tuple[str, ...]:
    wanted = rendered.sums()
    if dict(project.files) == wanted:
        return ()
    if not project.containers and why:
        return why
    if not same and project.containers:
        return why or ("what is rendered for it changed",)
    missing = [f"{path} is gone from the host" for path in wanted if path not in project.files]
    edited = [
        f"{path} was edited on the host" for path in wanted if project.files.get(path, wanted[path]) != wanted[path]
    ]
    extra = [f"{path} does not belong there" for path in project.files if path not in wanted]
    return tuple(missing + edited + extra)


def _access_reason(project: Project, draft: Draft) -> tuple[str, ...]:
    """Name what no file of a person's explains: a CDI specification appeared on the host, or went away."""
    before, now = project.label("gpu_access"), draft.labels.get(f"{LABEL}.gpu_access")
    return (f"GPU access {before} -> {now}",) if before and now and before != now else ()


def _container_reasons(
    project: Project, draft: Draft, image_id: str | None, files_differ: bool, off: bool
) -> tuple[str, ...]:
    mine = [container for container in project.containers if container.service == draft.service]
    if not mine:
        return ("container is gone",)
    return tuple(reason for container in mine for reason in _state(container, draft, image_id, files_differ, off))


def looping(container: Container) -> bool:
    """Tell whether a container that runs now has died too often on its way."""
    return container.restarts >= LOOP and container.health == "starting"


def _state(container: Container, draft: Draft, image_id: str | None, files_differ: bool, off: bool) -> list[str]:
    reasons = []
    code = f" (exit code {container.exit_code})" if container.exit_code is not None else ""
    if off and container.state in {"exited", "created"}:
        pass  # as it is to be
    elif container.state == "restarting" or looping(container):
        reasons.append(f"container starts over and over{code}")
    elif container.state != "running":
        reasons.append(f"container is {container.state}{code}")
    elif container.health == "unhealthy":
        reasons.append("container is unhealthy")
    elif container.health == "starting" and not files_differ:
        reasons.append(STARTING)
    if image_id is not None and container.image != image_id:
        reasons.append("container runs another image")
    if not files_differ and container.label("digest") != draft.digest:
        reasons.append("container was started from other files")
    return reasons


def _secret_reasons(host: HostState, project: Project, secrets: Mapping[str, str | None]) -> tuple[str, ...]:
    there = host.env_secrets.get(project.name, {})
    reasons = []
    for name, wanted in secrets.items():
        if name not in there:
            reasons.append(f"{name} is missing from its secrets")
        elif wanted is None or there[name] != wanted:
            reasons.append(f"{'key' if name in {'VLLM_API_KEY', 'OPENAI_API_KEYS'} else name} changed")
    reasons += [f"{name} is in its secrets and should not be" for name in there if name not in secrets]
    running = project.label("secrets")
    if not reasons and running is not None and project.secrets_digest != running:
        reasons.append("container was started with other secrets")
    return tuple(reasons)
