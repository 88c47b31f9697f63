# SPDX-License-Identifier: Apache-2.0
"""What two hosts measure of the line between them: one asks, the other answers."""

import time

from . import device, mtu, ports, speed
from .delay import answered, delay
from .wire import Lost

QUICK = 10  # seconds for an answer that takes no measuring
PROBING = 30  # seconds for the other's search for its path's largest packet


class Asking:
    """The side that leads: the lower rank. Its result is that of the pair."""

    def __init__(self, order, rank, line):
        """`rank`: the other host's."""
        self.order, self.rank, self.line = order, rank, line
        self.ours, self.theirs = {"from": order.rank, "to": rank}, {"from": rank, "to": order.rank}
        self.result = {"a": order.rank, "b": rank, "links": [self.ours, self.theirs]}

    def run(self):
        """Measure all; return the result, as far as it came."""
        until = time.monotonic() + self.order.longest
        try:
            for part in (self.delay, self.devices, self.mtu, self.ports, self.speed):
                if time.monotonic() > until:
                    raise Lost(f"took longer than {self.order.longest:.0f} s")
                part()
            self.line.say(do="end")
        except (Lost, KeyError, TypeError, ValueError) as error:
            self.result["error"] = str(error) if isinstance(error, Lost) else f"cannot read its answer: {error!r}"
        except OSError as error:
            self.result["error"] = f"on {self.order.name}: {error}"
        return self.result

    def delay(self):
        """Round trips and clocks."""
        self.result.update(delay(self.line))

    def devices(self):
        """The interface on each side, whose speed and size bound the line's."""
        self.ours["device"] = device.device_to(self.order.hosts[self.rank][1])
        self.theirs["device"] = self.line.ask(QUICK, do="device")["device"]

    def mtu(self):
        """The largest packet each way; before bandwidth, which hangs where packets get lost for their size."""
        own = self.ours["device"]["mtu"]
        self.ours["mtu"] = mtu.path_mtu(self.order, self.rank, own) if own else None
        self.theirs["mtu"] = self.line.ask(PROBING, do="mtu")["mtu"]

    def ports(self):
        """The engine's ports, each way."""
        said = self.line.ask(QUICK, do="open")
        self.ours["taken"], wanted = said["taken"], said["open"]
        address = self.order.hosts[self.rank][1]
        self.ours["tried"], self.ours["blocked"] = wanted, ports.blocked(self.order.address, address, wanted)
        self.line.ask(QUICK, do="shut")
        doors = opened(self.order)
        try:
            self.theirs["blocked"] = self.line.ask(QUICK, do="try", ports=doors.open)["blocked"]
            self.theirs["tried"], self.theirs["taken"] = doors.open, doors.taken
        finally:
            doors.close()

    def speed(self):
        """Bandwidth, each way; the server is always theirs."""
        if not (device.iperf3() and self.line.ask(QUICK, do="iperf3")["found"]):
            return
        for link, reverse in ((self.ours, False), (self.theirs, True)):
            wrong = self.line.ask(QUICK, do="serve")["error"]
            link.update({"error": wrong} if wrong else speed.measured(self.order, self.rank, reverse))
        self.line.ask(QUICK, do="served")


class Answering:
    """The side that is led, until `end`, silence, or the line's end. Leaves no port open and no server."""

    def __init__(self, order, rank, line):
        """`rank`: the other host's."""
        self.order, self.rank, self.line = order, rank, line
        self.server, self.doors = speed.Server(), None

    def run(self):
        """Answer; return what ended it too early, None where all was asked."""
        try:
            while True:
                message = self.line.hear(self.order.seconds + PROBING)
                came = time.time()
                if message.get("do") == "end":
                    return None
                if message.get("do") == "time":
                    answered(self.line, came)
                else:
                    self.line.say(**self.answer(message))
        except Lost as error:
            return str(error)
        except (OSError, KeyError, TypeError, ValueError) as error:
            return f"on {self.order.name}: {error}"
        finally:
            self.shut()
            self.server.stop()

    def answer(self, message):
        """Do what is asked, and return the answer."""
        what, order = message.get("do"), self.order
        other = order.hosts[self.rank][1]
        if what == "device":
            return {"device": device.device_to(other)}
        if what == "mtu":
            own = device.device_to(other)["mtu"]
            return {"mtu": mtu.path_mtu(order, self.rank, own) if own else None}
        if what == "open":
            self.shut()
            self.doors = opened(order)
            return {"open": self.doors.open, "taken": self.doors.taken}
        if what == "try":
            return {"blocked": ports.blocked(order.address, other, [int(port) for port in message["ports"]])}
        if what == "iperf3":
            return {"found": device.iperf3() is not None}
        if what == "serve":
            return {"error": self.server.start(order.address, order.speed_port)}
        if what in ("shut", "served"):
            self.shut()
            self.server.stop()
            return {}
        raise ValueError(f"it was asked for {what!r}, which it does not know")

    def shut(self):
        """Close the ports that were opened to be tried."""
        if self.doors is not None:
            self.doors.close()
        self.doors = None


def opened(order):
    """Listen on the engine's own ports, and on some of those that the kernel gives out; raises OSError."""
    return ports.Doors(order.address, [*order.ports, *(port for port in ports.given_out() if port not in order.ports)])
