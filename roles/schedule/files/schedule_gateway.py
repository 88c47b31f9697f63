# SPDX-License-Identifier: Apache-2.0
"""The gateway's half of a schedule: replicas that are about to stop get no new requests.

One that starts needs nothing done: its server is ready and down, and comes in once the gateway's check of its health
and of its revision passes. So a drained one is made ready again as soon as it is down, and nothing lasts that another
deploy would have to know of.
"""

import time
from pathlib import Path

from onprem_llm_haproxy import Gateway, HaproxyError, NotRunningError

STATE_FILE = Path("state", "servers")
LATE_S = 300.0  # after the drain time: who has not stopped by then has another trouble, and is left drained


class Rotation:
    """Brings the gateway on this host to what the table says, a look at a time."""

    def __init__(self, say):
        """`say` writes a line to the journal."""
        self.say = say
        self.told = set()

    def look(self, table, running, begun):
        """Drain what is to stop, and let in what was drained; return whether there is something to wait for."""
        gateway = Gateway(table.gateway)
        try:
            worker = gateway.worker()
            known = worker.servers()
        except NotRunningError:
            # Nobody routes here. One that comes back in time must be told; later nothing is left to drain.
            return time.time() < begun + table.drain
        mine = {project: known.get(f"{table.deployment}/{project}") for project in table.order}
        changes, pending = self._changes(table, mine, running, begun)
        for project, state in changes.items():
            worker.tell(f"set server {table.deployment}/{project} state {state}")
            self.say("{}: {} at the gateway".format(project, "drained" if state == "drain" else "let in again"))
        if changes:
            # A gateway that is restarted reads this.
            gateway.dump_state(Path(table.gateway) / STATE_FILE)
        return pending

    def _changes(self, table, mine, running, begun):
        """Return ({project: state}, whether something is to be waited for)."""
        leaving = {project: server for project, server in mine.items() if server and project not in running}
        back = [one for one, server in mine.items() if server and server["admin"] == "drain" and one not in leaving]
        changes = dict.fromkeys(back, "ready")
        changes.update(
            {one: "ready" for one, server in leaving.items() if server["admin"] == "drain" and _down(server)}
        )
        up = [project for project, server in leaving.items() if not _down(server)]
        late = time.time() > begun + table.drain + LATE_S
        if not self._covered(table, mine, running, begun):
            return changes, bool(up)
        changes.update({one: "drain" for one in up if leaving[one]["admin"] == "ready"})
        if late and up and "late" not in self.told:
            self.told.add("late")
            self.say("{}: still up, and left drained: see the journal of its host".format(", ".join(sorted(up))))
        return changes, bool(up) and not late

    def _covered(self, table, mine, running, begun):
        """Tell whether those that are to run answer, so that nobody is missed; not waited for longer than a start."""
        answering = [one for one in running if mine[one] and not _down(mine[one])]
        return len(answering) >= len(running) or time.time() > begun + table.start


def _down(server):
    return not server["up"]


__all__ = ["HaproxyError", "Rotation"]
