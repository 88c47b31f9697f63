"""Apply a plan under the lock: make sure that the hosts are still as planned on, run the steps, or take them back."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from onprem_llm.connection import Connection
from onprem_llm.errors import ExitCode, OnpremError, RefusedError
from onprem_llm.given_certificate import check
from onprem_llm.hosts import Current
from onprem_llm.look import look_whole
from onprem_llm.output import Progress, note
from onprem_llm.passing_on import PassingOn
from onprem_llm.person import person
from onprem_llm.planning.copies import with_copies
from onprem_llm.planning.types import ABOUT_HOSTS, Plan, Step
from onprem_llm.run_lock import locked
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.seam import order_file, run_folder, write_orders, write_plan
from onprem_llm.secret_values import read_values
from onprem_llm.weights.local import sending, sources_of

DOING = {
    "registry": "filling and starting a registry",
    "stage": "bringing images and weights",
    "fan_out": "passing weights and images on",
    "apply": "starting containers",
    "gateway": "telling the gateway",
    "route": "changing the gateway's rotation",
    "restore": "putting back what ran before",
    "stop": "stopping the parts of a gang",
    "remove": "removing containers",
    "pending": "writing the book",
    "record": "writing the book",
    "marks": "writing the book",
    "ray_image": "looking at images for Ray",
    "ray_nodes": "waiting for Ray's nodes",
    "ray_drain": "draining Ray's nodes",
    "ray_serve": "telling Ray Serve",
    "schedule": "setting the schedule",
    "schedule_rest": "having schedules rest or go on",
    "book_copy": "copying the book to the other gateway host (the change itself is done)",
}


def apply(
    plan: Plan,
    connection: Connection,
    progress: Progress,
    *,
    break_lock: bool = False,
    bandwidth: int | None = None,
) -> None:
    """Carry a plan to the hosts. RefusedError if somebody holds the lock or the hosts moved since it was made."""
    values = _values(plan)
    with locked(plan.gateway, f"{plan.verb} {plan.deployment}", connection, progress, break_lock=break_lock):
        carry(plan, connection, progress, values, bandwidth=bandwidth)


def carry(
    plan: Plan,
    connection: Connection,
    progress: Progress,
    values: dict[str, dict[str, str]] | None = None,
    *,
    bandwidth: int | None = None,
) -> None:
    """As `apply`, for a caller that holds the lock. `values`: secrets that were read before it was taken.

    `bandwidth`: bytes a second that a host sends at most while hosts pass weights on.
    """
    if values is None:
        values = _values(plan)
    with run_folder() as folder, sending(sources_of(plan)):
        now = refuse_if_moved(plan, connection, progress)
        plan = with_copies(signed(plan), now)
        write_plan(plan, folder)
        _Run(plan, folder, connection, progress, values, bandwidth).steps()


def _values(plan: Plan) -> dict[str, dict[str, str]]:
    """Read the secrets of a plan. A given certificate that could not serve is refused before anything changes."""
    given = plan.secrets.get("gateway", {})
    certificate, key = (given.get(name, {}).get("from_file") for name in ("certificate", "key"))
    if certificate and key:
        check(certificate, key)
    return {name: read_values(references, f"secrets of {name}") for name, references in plan.secrets.items()}


def signed(plan: Plan) -> Plan:
    """Write into the events of a plan who carries it out; a plan itself does not know."""
    return replace(plan, steps=tuple(_signed(step) for step in plan.steps))


def _signed(step: Step) -> Step:
    if step.kind not in {"record", "marks"}:
        return step
    orders: dict[str, dict[str, object]] = {}
    for host, order in step.orders.items():
        event = order.get("event")
        orders[host] = {**order, "event": {**(event if isinstance(event, Mapping) else {}), "by": person()}}
    return replace(step, orders=orders)


@dataclass
class _Run:
    """The steps of a plan one after another, and the way back when one fails."""

    plan: Plan
    folder: Path
    connection: Connection
    progress: Progress
    values: dict[str, dict[str, str]]
    bandwidth: int | None = None

    def steps(self) -> None:
        back: list[Step] = []
        for number, step in enumerate(self.plan.steps):
            back = [*step.undo, *back]
            try:
                self._step(step, number)
            except (OnpremError, KeyboardInterrupt) as error:
                note_event(self.plan, error, self.connection)
                # The book has the new revision by then, or still as one under way: with it stays what serves.
                if not back or step.kind == "record":
                    raise
                self._take_back(back, error)
            if step.kind in {"record", "marks"}:  # what is in the book stays: the next run goes on from there
                back = []

    def _take_back(self, back: list[Step], error: OnpremError | KeyboardInterrupt) -> NoReturn:
        note(f"{_what(error)} Putting back what was there before; a second Ctrl-C leaves it as it is.")
        failed: list[str] = []
        for number, step in enumerate(back, len(self.plan.steps)):
            if failed and step.kind == "pending":
                continue  # what could not be put back may run it: whatever is planned next must let it in
            try:
                with _of_this_machine():
                    write_orders(self.folder, number, step.orders)
                self._step(step, number)
            except KeyboardInterrupt:
                left = ", ".join(one.title for one in back[number - len(self.plan.steps) :])
                raise OnpremError(
                    f"{_what(error)} Stopped again while putting back; not done: {left}",
                    hint=f"onprem-llm status shows what is; deploying {self.plan.deployment} again mends it",
                    exit_code=ExitCode.INTERRUPTED,
                ) from None
            except OnpremError as second:
                failed.append(f"{step.title}: {second.message}" + (f"\n{second.details}" if second.details else ""))
        if isinstance(error, KeyboardInterrupt) and not failed:
            raise error
        stopped = all(step.kind == "stop" for step in back)
        first = any(order.get("first") for step in back for order in step.orders.values())
        raise self._ending(error, failed, stopped=stopped, first=first) from None

    def _ending(
        self, error: OnpremError | KeyboardInterrupt, failed: list[str], *, stopped: bool, first: bool
    ) -> OnpremError:
        name = self.plan.deployment
        serves = "" if self.plan.verb in ABOUT_HOSTS else ": the old revision serves"
        events = "events" if self.plan.verb in ABOUT_HOSTS else f"events {name}"
        outcome = f"{name} could not be put back whole:" if failed else f"{name} is as it was before{serves}"
        if self.plan.verb == "cluster" and not failed:
            outcome = f"What was done of it stays: {name} goes on from there when it is run again"
        if stopped and not failed:
            outcome = f"No part of {name} is left running, on any of its hosts"
        if first and not failed:
            outcome = f"{name} is not on Ray any more; what its replicas said is above"
        details = error.details if isinstance(error, OnpremError) else None
        return OnpremError(
            f"{_what(error)} {outcome}",
            details="\n".join(text for text in (details, *failed) if text),
            hint=f"mend what is said above and run it again; see onprem-llm status, onprem-llm {events}",
            exit_code=error.exit_code if isinstance(error, OnpremError) else ExitCode.INTERRUPTED,
        )

    def _step(self, step: Step, number: int) -> None:
        if step.kind == "fan_out":
            with _of_this_machine():
                PassingOn(step, self.folder, number, self.connection, self.progress, self.bandwidth).run()
            return
        with _of_this_machine():
            result = run(
                step.playbook,
                self.connection,
                hosts=step.hosts,
                variables={
                    "onprem_llm_seam": str(self.folder),
                    "onprem_llm_order_file": str(order_file(self.folder, number)),
                },
                secrets={"onprem_llm_secrets": self.values} if step.kind in {"apply", "gateway", "ray_serve"} else None,
                progress=self.progress,
                title=step.title,
                together=_has_gang(step),
            )
        raise_for_failures(result, doing=DOING[step.kind])
        for host, values in result.returned.items():
            for image, why in values.get("images_kept", {}).items():
                note(f"{host}: image {image[:19]} stays: {why}")
            for server, state in values.get("routes", {}).items():
                if step.kind == "route" and state.get("sessions"):
                    note(f"{host}: {server} still has {state['sessions']} requests; the time to wait for them is over")


@contextmanager
def _of_this_machine() -> Iterator[None]:
    """Make an error of ours of what this machine refuses, a full disk: what was begun is put back then, too."""
    try:
        yield
    except OSError as error:
        raise OnpremError(f"this machine: {error}", hint="mend what is said above, and run it again") from error


def _has_gang(step: Step) -> bool:
    """Tell whether a step starts parts of a gang: where one of its hosts fails, the others need not go on."""
    projects = [one for order in step.orders.values() for one in _listed(order.get("projects"))]
    return any(isinstance(one, Mapping) and one.get("state") == "started" for one in projects)


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []


def _what(error: OnpremError | KeyboardInterrupt) -> str:
    return f"{error.message}." if isinstance(error, OnpremError) else "Stopped."


def note_event(plan: Plan, error: OnpremError | KeyboardInterrupt, connection: Connection) -> None:
    """Write into the book that a change failed; a gateway that cannot be reached hides nothing of why it failed."""
    message = error.message if isinstance(error, OnpremError) else "stopped by Ctrl-C"
    event: dict[str, object] = {"action": plan.verb, "by": person(), "result": "failed"}
    if plan.verb in ABOUT_HOSTS:
        event["message"] = f"{plan.deployment}: {message.splitlines()[0]}"
    else:
        event |= {"deployment": plan.deployment, "revision": plan.revision, "message": message.splitlines()[0]}
    try_to_record(event, plan.gateway, connection)


def try_to_record(event: Mapping[str, object], gateway: str, connection: Connection) -> None:
    """Write into the book that something failed; where that cannot be, say so, and hide nothing of why it failed."""
    try:
        with _of_this_machine():
            record_event(event, gateway, connection)
    except OnpremError as second:
        note(f"The failure could not be written into the book on {gateway}: {second.message}")
    except KeyboardInterrupt:  # pressed twice in a row; nobody has been told yet what a second one leaves undone
        note(f"The failure was not written into the book on {gateway}.")


def record_event(event: Mapping[str, object], gateway: str, connection: Connection) -> None:
    """Append an event to the book."""
    with run_folder() as folder:
        path = write_orders(folder, 0, {gateway: {"event": event}})
        result = run("event.yml", connection, hosts=[gateway], variables={"onprem_llm_order_file": str(path)})
        raise_for_failures(result, doing="writing the event")


def refuse_if_moved(plan: Plan, connection: Connection, progress: Progress) -> Current:
    """Look again under the lock: what was shown must be what is done. Return what was seen."""
    current = look_whole(connection, progress, again=True).current
    if current.digest() != plan.based_on:
        raise RefusedError(
            f"the hosts changed since this plan was made (it is based on {plan.based_on}, they are at "
            f"{current.digest()})",
            hint="make the plan again, read it, and apply that",
        )
    return current
