# SPDX-License-Identifier: Apache-2.0
"""Look at what is on the disk when a run begins: hashed anew, several spans at once, in the order in which they go."""

import concurrent.futures
import os

from .order import Refused

# Spans that the source hashes before they are asked for: not so many that the page cache has to read them twice.
AHEAD = 16
LOOKERS = 4


class Look:
    """Settles every span of a content."""

    def __init__(self, content):
        """`content` has opened its files."""
        self.content, self.order = content, content.order

    def run(self):
        """Look at everything; what is wrong with the source or a disk ends the run."""
        content, by_file = self.content, {}
        for place in content.places:
            if not place.left:
                content.finish(place)
        for span in self.order.spans:
            by_file.setdefault(span.file, []).append(span)
        with concurrent.futures.ThreadPoolExecutor(min(LOOKERS, os.cpu_count() or 1)) as pool:
            for file, spans in sorted(by_file.items()):
                if content.places[file].whole is not None and not content.source:
                    pool.submit(content.guarded, self._whole, content.places[file], spans)
                else:
                    look = self._source if content.source else self._partial
                    for span in spans:
                        pool.submit(content.guarded, look, span)

    def _source(self, span):
        content, place = self.content, self.content.places[span.file]
        with content.changed:
            content.changed.wait_for(lambda: span.number <= content.asked + AHEAD)
        digest, table = content.digest_and_table(place, span)
        if digest != span.sha256:
            raise Refused(
                f"{place.path} differs from its manifest in the {span.size} bytes at {span.offset}: send it anew"
            )
        content.tables[span.number] = table
        content.settle(span, True)

    def _partial(self, span):
        place = self.content.places[span.file]
        there = place.has_bytes(span.offset, span.size)
        self.content.settle(span, there and self.content.digest(place.partial, span) == span.sha256)

    def _whole(self, place, spans):
        """Look at a file under its name. Where it is not right it stays as it is: somebody may be reading it."""
        right = [self.content.digest(place.whole, span) == span.sha256 for span in spans]
        if any(right) and not all(right):
            place.copy_from_whole()
        elif not all(right):
            place.grow()
        for span, good in zip(spans, right):
            self.content.settle(span, good)
