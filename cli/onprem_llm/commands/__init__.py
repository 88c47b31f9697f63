"""One thin file a verb: read, call, show."""
