"""What opens a port of a fan-out to the hosts of its run, and shuts it again: a script, beside the order."""

from __future__ import annotations

import ipaddress
import shlex

# `iptables -S` (iptables(8)) prints the policy and the rules of a chain: one line says that all may come in. firewalld
# gets the rules in every zone in use (firewall-cmd(1)), in one call each, since each call starts a Python:
# which of them the line to another host is in, nobody need know. Docker's own zone has its bridges, and lets all in.
# Only running rules change, so that a host that goes down in the middle comes back as it was.
SCRIPT = """#!/bin/sh
# Written by onprem-llm. Opens a port to the hosts of one fan-out, or shuts it again; the rules are gone with a reboot.
port={port}
case $1 in
open) verb=-I word=add ;;
close) verb=-D word=remove ;;
*) exit 64 ;;
esac
PATH=/usr/sbin:/usr/bin:/sbin:/bin
zones=
if firewall-cmd --state >/dev/null 2>&1; then
    zones=$(firewall-cmd --get-active-zones | sed -n 's/^\\([^ ]*\\).*/\\1/p')
fi
if [ -n "$zones" ]; then
    set --
    {rich}
    for zone in $zones; do
        [ "$zone" = docker ] || firewall-cmd --quiet --zone "$zone" "$@" 2>/dev/null
    done
    exit 0
fi
rule() {{ # command, address
    if [ "$verb" = -D ] || [ "$($1 -w 10 -S INPUT)" != "-P INPUT ACCEPT" ]; then
        $1 -w 10 "$verb" INPUT -p tcp -s "$2" --dport "$port" -j ACCEPT
    fi
}}
{rules}
exit 0
"""

RICH = "rule family=ipv{one.version} source address={one} port port={port} protocol=tcp accept"


def known(address):
    """Return it as ipaddress has it; ValueError for what is none, and for one with a scope, which may be any words."""
    if "%" in str(address):
        raise ValueError(f"found the address {address!r}, expected one without a scope (%)")
    return ipaddress.ip_address(str(address))


def script(port, addresses):
    """Return the script: `open` and `close` are its words; ValueError for what is no address.

    A host without iptables and firewalld is left as it is: where something else of its own closes the port, no host
    gets through, and weights come from the control host instead.
    """
    commands = {4: "iptables", 6: "ip6tables"}
    hosts = sorted(set(map(known, addresses)), key=lambda one: (one.version, int(one)))
    rules = [f"rule {commands[one.version]} {shlex.quote(str(one))} 2>/dev/null" for one in hosts]
    rich = [f'set -- "$@" --$word-rich-rule={shlex.quote(RICH.format(one=one, port=int(port)))}' for one in hosts]
    return SCRIPT.format(port=int(port), rich="\n    ".join(rich), rules="\n".join(rules))
