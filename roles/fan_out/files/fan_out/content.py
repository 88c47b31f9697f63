# SPDX-License-Identifier: Apache-2.0
"""What this host has of the run's files, and what of it was checked. The disk is the journal: all is hashed anew."""

import functools
import hashlib
import hmac
import os
import threading
import time

from .disk import Place, check_room, link_known, write
from .look import Look
from .order import Refused
from .wire import table_mac

UNKNOWN, MISSING, HAVE = "unknown", "missing", "have"
DIGEST = 32
TRIES = 3
# Bytes after which what came is brought to the disk, lest all of it must wait for that at the end.
SYNC = 64 * 1024 * 1024


class Content:
    """All spans. One that is HAVE was compared with the manifest; a piece that is got, with its span's table."""

    def __init__(self, order, secret, on_error):
        """`on_error(exception)` ends the run on this host."""
        self.order, self.on_error = order, on_error
        self.changed = threading.Condition()
        self.places = [Place(order.folder, file) for file in order.files]
        self.state = [UNKNOWN] * len(order.spans)
        self.got = {}  # span: bytearray with a 1 for each piece that is right
        self.bytes = 0  # that were checked, or have been got
        self.again = 0  # pieces that came damaged
        self.lies = 0  # tables that were not the manifest's
        self.finished, self.ended = 0, None  # files; when the last one had its name, by the monotonic clock
        self.asked = 0  # the last span that somebody wanted
        self.tables = {}  # span: the sha256 of its pieces, of spans that somebody compared with the manifest
        self._secret, self._tried, self._unsynced = secret, {}, 0

    @property
    def source(self):
        """Tell whether all bytes are here from the start."""
        return self.order.rank == 0

    @property
    def complete(self):
        """Tell whether every file has its name."""
        return self.finished == len(self.places)

    def start(self):
        """Open what is there and begin to look at it; raises Refused and OSError."""
        if not self.source:
            for place in self.places:
                place.make_parents()
            link_known(self.order.folder, self.order.files)
        for place in self.places:
            place.open(self.source)
        if not self.source:
            check_room(self.order.folder, self.places)
        for span in self.order.spans:
            self.places[span.file].left += 1
        for work in (Look(self).run, self._finish_in_order):
            threading.Thread(target=self.guarded, args=(work,), daemon=True).start()

    def guarded(self, work, *arguments):
        """Do it; whatever goes wrong ends the run, since without this thread it would go on for ever."""
        try:
            return work(*arguments)
        except Exception as error:
            self.on_error(error)
            raise SystemExit from None

    def settle(self, span, good):
        """Say of a span that was looked at whether it is right."""
        with self.changed:
            self.state[span.number] = HAVE if good else MISSING
            self.bytes += span.size if good else 0
            self.changed.notify_all()
        if good:
            self._span_is_right(span)

    def digest(self, handle, span):
        """Return the sha256 of a span."""
        whole = hashlib.sha256()
        for piece in range(self.order.pieces(span)):
            whole.update(self._pread(handle, span, piece))
        return whole.hexdigest()

    def digest_and_table(self, place, span):
        """Return the sha256 of a span, and those of its pieces in one."""
        whole, table = hashlib.sha256(), []
        for piece in range(self.order.pieces(span)):
            data = self._pread(place.descriptor, span, piece)
            whole.update(data)
            table.append(hashlib.sha256(data).digest())
        return whole.hexdigest(), b"".join(table)

    def _pread(self, handle, span, piece):
        return os.pread(handle, self.order.piece_size(span, piece), span.offset + piece * self.order.piece)

    # What others ask for

    def table(self, number):
        """Return (table, its proof), or None while there is none."""
        span = self.order.spans[number]
        with self.changed:
            self.asked = max(self.asked, number)
            self.changed.notify_all()
            table = self.tables.get(number)
            if table is None and self.state[number] != HAVE:
                return None
        table = table or self._made_table(span)
        return None if table is None else (table, table_mac(self._secret, self.order, span, table))

    def _made_table(self, span):
        """Make the table of a span that was right, and is compared again: a wrong one costs all behind a span."""
        place = self.places[span.file]
        digest, table = self.digest_and_table(place, span)
        if digest == span.sha256:
            self.tables[span.number] = table
            return table
        what = f"{place.path} has changed since it was looked at, in the {span.size} bytes at {span.offset}"
        self.on_error(Refused(f"{what}: see what else writes there, and run it again"))
        return None

    def piece(self, number, piece):
        """Return the bytes of a piece that was checked, or None."""
        with self.changed:
            self.asked = max(self.asked, number)
            if not self._here(number, piece):
                return None
        span = self.order.spans[number]
        return self._pread(self.places[span.file].descriptor, span, piece)

    def _here(self, number, piece):
        got = self.got.get(number)
        return self.state[number] == HAVE or bool(got and got[piece])

    def wait(self, seconds):
        """Wait for something to change."""
        with self.changed:
            self.changed.wait(seconds)

    # What comes

    def put_table(self, number, body):
        """Take a span's table and look which of its pieces are here; tell whether it is from one of the run."""
        span, table = self.order.spans[number], bytes(body[:-DIGEST])
        proof = table_mac(self._secret, self.order, span, table)
        if len(table) != DIGEST * self.order.pieces(span) or not hmac.compare_digest(proof, bytes(body[-DIGEST:])):
            return False
        if self.state[number] == HAVE:  # asked for before the last piece of it was compared
            return True
        place, got = self.places[span.file], bytearray(self.order.pieces(span))
        if place.has_bytes(span.offset, span.size):
            for piece in range(len(got)):
                data = self._pread(place.partial, span, piece)
                got[piece] = hashlib.sha256(data).digest() == table[piece * DIGEST : (piece + 1) * DIGEST]
        place.grow()
        with self.changed:
            self.tables[number], self.got[number] = table, got
            self.bytes += sum(self.order.piece_size(span, piece) for piece, there in enumerate(got) if there)
            self.changed.notify_all()
        return True

    def wanted(self, number):
        """Return the pieces of a span that are not here; None while its table is not."""
        with self.changed:
            if self.state[number] == HAVE:
                return []
            got = self.got.get(number)
            return None if got is None else [piece for piece, there in enumerate(got) if not there]

    def put_piece(self, number, piece, data):
        """Check a piece and write it; tell whether it was right. One that is here already is left alone."""
        span, table = self.order.spans[number], self.tables.get(number)
        right = table is not None and len(data) == self.order.piece_size(span, piece)
        right = right and hashlib.sha256(data).digest() == table[piece * DIGEST : (piece + 1) * DIGEST]
        if not right:
            with self.changed:
                self.again += 1
            return False
        got = self.got.get(number)
        if got is not None and not got[piece]:
            write(self.places[span.file].grow(), data, span.offset + piece * self.order.piece)
            with self.changed:
                if not got[piece]:
                    got[piece] = 1
                    self.bytes += len(data)
                self.changed.notify_all()
        return True

    def _finish_in_order(self):
        """Read what was written behind the pieces that come, and compare each span with the manifest."""
        for span in self.order.spans:
            while not self._compare(span):
                pass

    def _compare(self, span):
        whole = hashlib.sha256()
        for piece in range(self.order.pieces(span)):
            with self.changed:
                self.changed.wait_for(functools.partial(self._here, span.number, piece))
                if self.state[span.number] == HAVE:
                    return True
            whole.update(self._pread(self.places[span.file].partial, span, piece))
        if whole.hexdigest() != span.sha256:
            self._forget(span)
            return False
        self._unsynced += span.size
        if self._unsynced >= SYNC:
            os.fdatasync(self.places[span.file].partial)
            self._unsynced = 0
        with self.changed:
            self.state[span.number] = HAVE
            del self.got[span.number]
            self.changed.notify_all()
        self._span_is_right(span)
        return True

    def _forget(self, span):
        """Take nothing of a span: its table was made by somebody who did not compare it."""
        with self.changed:
            del self.got[span.number], self.tables[span.number]
            self.lies += 1
            self.bytes -= span.size
        tried = self._tried[span.number] = self._tried.get(span.number, 0) + 1
        if tried >= TRIES:
            path = self.places[span.file].path
            raise Refused(
                f"{path}: what came for the {span.size} bytes at {span.offset} was not what the manifest says, "
                f"{tried} times; verify what the first host has"
            )

    def _span_is_right(self, span):
        place = self.places[span.file]
        with self.changed:
            place.left -= 1
            last = not place.left
        if last:
            self.finish(place)

    def finish(self, place):
        """Give a file its name."""
        place.finish()
        with self.changed:
            self.finished += 1
            self.ended = time.monotonic() if self.complete else None
            self.changed.notify_all()
