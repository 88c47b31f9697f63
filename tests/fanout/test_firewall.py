"""Opening a run's port where a host's firewall shuts it: with the kernel's own rules, in a network namespace."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

PEERS = ["10.1.0.3", "10.1.0.2", "fd00::2"]
CLOSED = "iptables -P INPUT DROP; iptables -A INPUT -p tcp --dport 22 -j ACCEPT; ip6tables -P INPUT DROP"
SHOW = "iptables -S INPUT; ip6tables -S INPUT"


@pytest.fixture
def script(role_module: Callable[[str], ModuleType], tmp_path: Path) -> Path:
    path = tmp_path / "firewall"
    path.write_text(role_module("onprem_llm_open_ports").script([("tcp", 7470)], PEERS))
    return path


def rules(words: str) -> list[str]:
    """Run words in a network of their own, by a shell, and return what they printed."""
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-ec", words], env={**os.environ, "PATH": path}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_a_closed_port_is_opened_to_the_hosts_of_the_run_and_shut_again(script: Path) -> None:
    before = rules(f"{CLOSED}; {SHOW}")
    opened = rules(f"{CLOSED}; sh {script} open; {SHOW}")
    new = [line for line in opened if line not in before]
    assert sorted(new) == [
        "-A INPUT -s 10.1.0.2/32 -p tcp -m tcp --dport 7470 -j ACCEPT",
        "-A INPUT -s 10.1.0.3/32 -p tcp -m tcp --dport 7470 -j ACCEPT",
        "-A INPUT -s fd00::2/128 -p tcp -m tcp --dport 7470 -j ACCEPT",
    ]
    assert rules(f"{CLOSED}; sh {script} open; sh {script} close; sh {script} close; {SHOW}") == before


def test_a_host_that_lets_all_in_is_left_as_it_is(script: Path) -> None:
    assert rules(f"sh {script} open; {SHOW}") == ["-P INPUT ACCEPT", "-P INPUT ACCEPT"]


FIREWALLD = """#!/bin/sh
case $* in
--state) ;;
--get-active-zones) printf '%s\\n' docker '  interfaces: docker0' 'dmz (default)' '  interfaces: eth1' internal ;;
*) for word; do printf '%s\\n' "$word"; done; echo . ;;
esac
"""


@pytest.mark.parametrize(("word", "verb"), [("open", "add"), ("close", "remove")])
def test_firewalld_is_asked_once_a_zone_and_dockers_own_is_left_out(
    script: Path, tmp_path: Path, word: str, verb: str
) -> None:
    (tmp_path / "firewall-cmd").write_text(FIREWALLD)
    (tmp_path / "firewall-cmd").chmod(0o755)
    # As the script sets a path of its own, the command is put in front of it.
    script.write_text(script.read_text().replace("PATH=/usr/sbin", f"PATH={tmp_path}:/usr/sbin"))
    done = subprocess.run(["sh", str(script), word], capture_output=True, text=True, check=True)
    calls = [call.split("\n") for call in done.stdout.removesuffix("\n.\n").split("\n.\n")]
    wanted = [
        f"--{verb}-rich-rule=rule family={family} source address={address} port port=7470 protocol=tcp accept"
        for family, address in (("ipv4", "10.1.0.2"), ("ipv4", "10.1.0.3"), ("ipv6", "fd00::2"))
    ]
    assert calls == [["--quiet", "--zone", zone, *wanted] for zone in ("dmz", "internal")]


def test_a_name_is_no_address(role_module: Callable[[str], ModuleType]) -> None:
    with pytest.raises(ValueError, match="does not appear"):
        role_module("onprem_llm_open_ports").script([("tcp", 7470)], ["host; reboot"])


@pytest.mark.parametrize("address", ["fe80::1%x;touch pwned;#", "fe80::1%eth0"])
def test_a_scope_is_refused_since_any_words_may_be_one(role_module: Callable[[str], ModuleType], address: str) -> None:
    with pytest.raises(ValueError, match=re.escape(address)):
        role_module("onprem_llm_open_ports").script([("tcp", 7470)], ["10.1.0.3", address])
