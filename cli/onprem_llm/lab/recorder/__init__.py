"""Runs as root on a rehearsal host, with that host's own python3 and nothing else: the standard library, Python 3.9."""
