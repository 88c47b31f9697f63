"""apt's lock in other hands, packages that dpkg has not finished: who and what is said, and the next run goes on."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.offline.apt_host import Host, Repository
from tests.unit.bootstrap.conftest import role_module  # noqa: F401 - a fixture

TOOL = "onprem-llm-tool"
# Takes the lock as apt does, says so, and keeps it for some seconds.
HOLDER = """\
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def packages(
    repository: Repository,
    host: Host,
    role_module: Callable[[str], ModuleType],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> ModuleType:
    """The module that bootstrap installs with, on a host that has what a bundle brought. It waits 2 s for a lock."""
    host.place(repository, role_module("package_repository"))
    module = role_module("container_engine_packages")
    monkeypatch.setattr(module.record, "RECORD", tmp_path / "bootstrap.json")
    monkeypatch.setattr(role_module("onprem_llm_apt_get"), "LOCK_WAIT_S", 2)
    return module


def install(module: ModuleType, host: Host) -> list[str]:
    options = {"mirrors": {}, "extra": [TOOL], "engine": False, "source": str(host.source)}
    found: list[str] = module.by_apt(options, False)
    return found


def refused(module: ModuleType, host: Host) -> str:
    with pytest.raises(module.PackageError) as raised:
        install(module, host)
    return str(raised.value)


@pytest.fixture
def held() -> Iterator[Callable[[Path, float], subprocess.Popen[str]]]:
    """Have a process hold a lock for some seconds; it ends with the test."""
    holders: list[subprocess.Popen[str]] = []

    def hold(path: Path, seconds: float) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", HOLDER, str(path), str(seconds)]
        holders.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        assert holders[-1].stdout is not None
        assert holders[-1].stdout.readline() == "held\n"
        return holders[-1]

    yield hold
    for process in holders:
        process.kill()
        process.communicate()


Held = Callable[[Path, float], subprocess.Popen[str]]


def test_a_lock_is_waited_for(
    packages: ModuleType,
    host: Host,
    held: Held,
    role_module: Callable[[str], ModuleType],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(role_module("onprem_llm_apt_get"), "LOCK_WAIT_S", 60)
    first = held(host.root / "var/lib/dpkg/lock-frontend", 3)
    assert install(packages, host) == [TOOL]
    assert first.poll() == 0, "nobody waited"
    assert TOOL in host.installed()


def test_who_keeps_the_lock_is_named_and_the_next_run_goes_on(packages: ModuleType, host: Host, held: Held) -> None:
    first = held(host.root / "var/lib/dpkg/lock-frontend", 600)
    said = refused(packages, host)
    assert re.search(rf"lock-frontend\. It is held by process {first.pid} \(", said), said
    assert "Wait until that process has ended" in said
    assert "bundle" not in said, said
    assert host.installed() == {}
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert install(packages, host) == [TOOL]


def test_who_keeps_the_package_lists_is_named(packages: ModuleType, host: Host, held: Held) -> None:
    """Without a source of ours, apt's own lists are renewed; their lock has no time limit in apt."""
    first = held(host.root / "var/lib/apt/lists/lock", 600)
    with pytest.raises(packages.PackageError) as raised:
        packages.apt.refresh({})
    assert f"held by process {first.pid} " in str(raised.value)
    assert "Wait until that process has ended" in str(raised.value)


def unpacked(host: Host, path: Path) -> None:
    """A package whose files are there, and which was never configured."""
    command = ["dpkg", f"--root={host.root}", "--force-unsafe-io", "--force-not-root", "--unpack", str(path)]
    subprocess.run(command, check=True, capture_output=True)


def test_a_package_of_ours_that_was_left_half_way_is_configured(
    packages: ModuleType, host: Host, repository: Repository
) -> None:
    for name in ("onprem-llm-part", TOOL):
        unpacked(host, repository.folder / f"pool/{name}_1.0_all.deb")
    assert packages.apt.unfinished([TOOL, "onprem-llm-part", "nobodys"]) == [TOOL, "onprem-llm-part"]
    assert install(packages, host) == [TOOL]
    assert packages.apt.unfinished([TOOL, "onprem-llm-part"]) == []
    assert install(packages, host) == []


def test_a_package_of_others_that_cannot_be_configured_is_named(
    packages: ModuleType, host: Host, tmp_path: Path
) -> None:
    work = tmp_path / "broken"
    (work / "DEBIAN").mkdir(parents=True)
    (work / "DEBIAN/control").write_text(
        "Package: somebodys-agent\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: x\n"
    )
    # There is nothing in this root that could run it.
    (work / "DEBIAN/postinst").write_text("#!/bin/sh\nexit 1\n")
    (work / "DEBIAN/postinst").chmod(0o755)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", work, f"{work}.deb"], check=True, stdout=-3)
    unpacked(host, Path(f"{work}.deb"))
    said = refused(packages, host)
    assert "error processing package somebodys-agent (--configure)" in said, said
    assert "post-installation script" in said
    assert "Mend or remove the package that dpkg names" in said
    assert "bundle" not in said, said
    subprocess.run(["dpkg", f"--root={host.root}", "--force-not-root", "--purge", "somebodys-agent"], check=True)
    install(packages, host)
    assert TOOL in host.installed()
