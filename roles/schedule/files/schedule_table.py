# SPDX-License-Identifier: Apache-2.0
"""The table of a schedule: which replicas are to run now, from the clock and what was rendered, and nothing else.

A table is asked as often as anybody likes and always says the same of a moment: that is why a host that was off, or
whose timer fired late or twice, ends where the others are.
"""

import datetime
import json
import os
import time

LONGEST = 366 * 8  # days; 29 February comes every eight years where a century lies between


class TableError(Exception):
    """What of a table cannot be used; for a person."""


class Due:
    """An entry and the moment at which it is due: `when` by the wall clock, `epoch` in seconds since 1970."""

    def __init__(self, entry, when):
        """`when`: a naive datetime in the table's time zone, which is this process's."""
        self.entry = entry
        self.when = when
        self.epoch = instant(when)

    @property
    def replicas(self):
        """How many run from then on."""
        return self.entry["replicas"]


class Table:
    """What was rendered for one deployment on this host."""

    def __init__(self, value):
        """`value`: the file's JSON. The time zone is set for this whole process, which serves one table."""
        self.deployment = value["deployment"]
        self.entries = value["entries"]
        self.order = value["order"]
        self.slots = value["slots"]
        self.gateway = value["gateway"]
        self.drain = value["drain"]
        self.start = value["start"]
        if value["timezone"]:
            os.environ["TZ"] = value["timezone"]
            time.tzset()

    @classmethod
    def read(cls, path):
        """Read a file; TableError where it is no table."""
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise TableError(f"{path}: this is no schedule: {error!r}; deploy again") from None

    def in_force(self, now):
        """Return what is due since last, of two at the same minute the one that stands later in the list."""
        found = [due for due in (_search(entry, now, -1) for entry in self.entries) if due]
        if not found:
            raise TableError(f"no entry of the schedule of {self.deployment} was ever due")
        return _last(found)

    def following(self, now):
        """Return what is due next; None where nothing is."""
        found = [due for due in (_search(entry, now, 1) for entry in self.entries) if due]
        first = min((due.epoch for due in found), default=None)
        return _last([due for due in found if due.epoch == first]) if found else None

    def wanted(self, replicas):
        """Return (the replicas that are to run, those that are not), of all hosts: the first of the order run."""
        return self.order[:replicas], self.order[replicas:]


def _last(found):
    """Return which counts of what was due: the latest, of two at the same minute the one that stands later."""
    return max(enumerate(found), key=lambda one: (one[1].when, one[0]))[1]


def instant(when):
    """Return when a clock on the wall shows a time, in seconds since 1970.

    Of a time that comes twice, as the clock is put back, it is the first. One that the clock leaves out, as it is put
    forward, is at the first moment after those.
    """
    first = when.replace(fold=0).timestamp()
    # What is left out, the clock as it is before shows later than the clock as it is after.
    moment = when.replace(fold=1).timestamp()
    if moment >= first:
        return first
    before = _offset(moment)
    while _offset(moment) == before:
        moment += 60
    return moment


def _offset(moment):
    return time.localtime(moment).tm_gmtoff


def _search(entry, now, step):
    """Return when an entry is due, now or before (`step` -1), or after (1); None where it never is."""
    day = datetime.date.fromtimestamp(now)
    for _ in range(LONGEST):
        weekday = (day.weekday() + 1) % 7  # cron's week begins on Sunday
        if day.month in entry["months"] and day.day in entry["days"] and weekday in entry["weekdays"]:
            times = [datetime.time(hour, minute) for hour in entry["hours"] for minute in entry["minutes"]]
            for one in sorted(times, reverse=step < 0):
                due = Due(entry, datetime.datetime.combine(day, one))
                if (due.epoch <= now) == (step < 0):
                    return due
        day += datetime.timedelta(days=step)
    return None
