# SPDX-License-Identifier: Apache-2.0
"""What a host is asked to measure: with whom, in which order, for how long."""

SCHEMA = 1


class Refused(Exception):  # noqa: N818  it is shown to people, "error" adds nothing
    """What is wrong with the order."""


class Order:
    """One host's part: `rounds` has the rank of its partner for each round, None where it rests."""

    def __init__(self, raw, secret):
        """Take the order's JSON as a value, and the secret's bytes; raises Refused."""
        if len(secret) < 32:
            raise Refused("the secret is shorter than 32 bytes; the run makes it")
        self.secret = secret
        try:
            self._read(raw)
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"the order is not whole: {error!r}") from None

    def _read(self, raw):
        if raw["schema"] != SCHEMA:
            raise Refused("the order has schema {}, this program knows {}".format(raw["schema"], SCHEMA))
        self.rank, self.port, self.speed_port = int(raw["rank"]), int(raw["port"]), int(raw["speed_port"])
        self.hosts = [(str(host["name"]), str(host["address"])) for host in raw["hosts"]]
        self.rounds = [None if one is None else int(one) for one in raw["rounds"]]
        self.ports = [int(port) for port in raw["ports"]]
        self.seconds = float(raw["seconds"])  # of one measurement of bandwidth
        # Seconds: that a host may take to begin; that one which does not answer is waited for.
        self.begin, self.patience = float(raw.get("begin", 30)), float(raw.get("patience", 10))
        ranks = {one for one in self.rounds if one is not None}
        if not 0 <= self.rank < len(self.hosts) or not ranks <= set(range(len(self.hosts))) - {self.rank}:
            raise ValueError(f"rank {self.rank} of {len(self.hosts)} hosts, partners {sorted(ranks)}")

    @property
    def name(self):
        """Return this host's name."""
        return self.hosts[self.rank][0]

    @property
    def address(self):
        """Return this host's address in the cluster."""
        return self.hosts[self.rank][1]

    @property
    def longest(self):
        """Return the seconds after which a pair is given up, whatever it is at."""
        return 2 * self.seconds + 45
