# SPDX-License-Identifier: Apache-2.0
"""What a host says of its part; whoever started it reads nothing else."""

import json


class Status:
    """status.json of a run's folder."""

    def __init__(self, folder, name, say):
        """`name` is the host's, None where it is not known yet; `say(line)` logs."""
        self.folder, self.name, self.say, self.said = folder, name, say, None

    def tell(self, state, **more):
        """Write it in one piece; return whether it could be. A host goes on without: others pull from it."""
        new = self.folder / "status.new"
        try:
            new.write_text(json.dumps({"state": state, **more}), encoding="utf-8")
            new.replace(self.folder / "status.json")
        except OSError as error:
            who = f"{self.name}: " if self.name else ""
            self._once(f"{who}{new} cannot be written: {error.strerror}; make room or remove what is there")
            return False
        self.said = None
        return True

    def _once(self, text):
        if text != self.said:
            self.say(text)
        self.said = text
