"""apt's lock in other hands and packages that dpkg has not finished, while bootstrap has something to install."""

from collections.abc import Iterator

import pytest
from tests.load.rehearsal import Rehearsal, until
from tests.load.served import background

FAILED = 5
# Takes dpkg's lock as apt does, and keeps it until an apt-get has stood before it for some seconds.
HOLDER = """\
import fcntl, pathlib, time
file = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(file, fcntl.LOCK_EX)
note = pathlib.Path("/run/held")
note.write_text("held")
def waiting():
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\\0")
        except OSError:
            continue
        if words[0].endswith(b"apt-get") and b"install" in words:
            return True
end = time.monotonic() + 240
while not waiting() and time.monotonic() < end:
    time.sleep(0.2)
time.sleep(8)
note.write_text("waited for" if waiting() else "nobody waits")
"""
HOLD = 'rm -f /run/held; python3 -c "$1" > /dev/null 2>&1 & while [ ! -e /run/held ]; do sleep 0.1; done'
BROKEN = "somebodys-agent"
# A package of somebody else's whose script fails: unpacked, and then half-configured.
UNPACK = f"""\
set -e
mkdir -p /tmp/{BROKEN}/DEBIAN
cd /tmp/{BROKEN}/DEBIAN
printf '%s\\n' 'Package: {BROKEN}' 'Version: 1' 'Architecture: all' 'Maintainer: x <x@x>' 'Description: x' > control
printf '#!/bin/sh\\necho no licence >&2\\nexit 1\\n' > postinst
chmod 755 postinst
dpkg-deb --build /tmp/{BROKEN} > /dev/null
dpkg --unpack /tmp/{BROKEN}.deb > /dev/null
"""
WHOLE = {"docker.io": "installed", "rsync": "installed"}
STATE = "${Package} ${db:Status-Status}\\n"


@pytest.fixture
def third(rehearsal: Rehearsal) -> Iterator[str]:
    """A host that has no engine of the model; it is whole at the end."""
    host = rehearsal.hosts[2]
    yield host
    clean = f"dpkg --purge --force-remove-reinstreq {BROKEN}; rm -rf /tmp/{BROKEN}* /run/held"
    rehearsal.lab.exec_root(host, "sh", "-c", clean)
    if states(rehearsal, host, *WHOLE) != WHOLE:
        rehearsal.site.run("bootstrap", "inventory.ini", "--yes")


@pytest.fixture
def lacking(rehearsal: Rehearsal, third: str) -> str:
    """The same host, without a package that bootstrap installs."""
    rehearsal.lab.exec_root(third, "dpkg", "--purge", "rsync")
    return third


def states(rehearsal: Rehearsal, host: str, *names: str) -> dict[str, str]:
    """Return how far dpkg is with packages."""
    shown = rehearsal.lab.exec_root(host, "dpkg-query", "--show", "--showformat", STATE, *names, check=False)
    return dict(line.split() for line in shown.splitlines())


def test_a_lock_in_other_hands_is_waited_for(rehearsal: Rehearsal, lacking: str) -> None:
    rehearsal.lab.exec_root(lacking, "bash", "-c", HOLD, "hold", HOLDER)
    said = rehearsal.site.run("bootstrap", "inventory.ini", "--yes")
    print(said.stdout, said.stderr)
    assert states(rehearsal, lacking, "rsync") == {"rsync": "installed"}
    assert rehearsal.lab.exec_root(lacking, "cat", "/run/held") == "waited for"


def test_a_killed_bootstrap_is_gone_on_with(rehearsal: Rehearsal, lacking: str) -> None:
    """The power of the control host goes while apt-get runs on a host."""
    rehearsal.lab.exec_root(lacking, "bash", "-c", HOLD, "hold", HOLDER)
    installing = ("pgrep", "--full", "apt-get .*install")
    with background(rehearsal.site, "bootstrap", "inventory.ini", "--yes") as process:
        until(lambda: rehearsal.lab.exec_root(lacking, *installing, check=False), 120, "apt-get runs on the host")
        assert process.poll() is None
    rehearsal.site.run("bootstrap", "inventory.ini", "--yes")
    assert states(rehearsal, lacking, "rsync") == {"rsync": "installed"}
    assert rehearsal.lab.exec_root(lacking, "dpkg", "--audit") == ""


def test_a_package_that_cannot_be_configured_is_named(rehearsal: Rehearsal, lacking: str) -> None:
    rehearsal.lab.exec_root(lacking, "sh", "-c", UNPACK)
    said = rehearsal.site.run("bootstrap", "inventory.ini", "--yes", code=FAILED).stderr
    print(said)
    assert f"{lacking}: failed at" in said
    assert f"dpkg: error processing package {BROKEN} (--configure)" in said
    assert "Mend or remove the package that dpkg names" in said
    assert f"ok: {rehearsal.hosts[0]}, {rehearsal.hosts[1]}" in said
    rehearsal.lab.exec_root(lacking, "dpkg", "--purge", "--force-remove-reinstreq", BROKEN)
    said = rehearsal.site.run("bootstrap", "inventory.ini", "--yes").stderr
    assert f"{lacking}: ok" in said
    assert states(rehearsal, lacking, "rsync") == {"rsync": "installed"}


def test_an_engine_that_was_left_half_way_is_finished(rehearsal: Rehearsal, third: str) -> None:
    """As a power cut leaves it in docker.io's script. Nothing is missing, or installing that would mend this too."""
    edit = "/^Package: docker.io$/,/^$/s/^Status: install ok installed$/Status: install ok half-configured/"
    rehearsal.lab.exec_root(third, "sed", "-i", edit, "/var/lib/dpkg/status")
    assert states(rehearsal, third, "docker.io") == {"docker.io": "half-configured"}
    rehearsal.site.run("bootstrap", "inventory.ini", "--yes")
    assert states(rehearsal, third, *WHOLE) == WHOLE
    assert rehearsal.lab.exec_root(third, "docker", "info", "--format", "{{.ServerVersion}}").strip()
