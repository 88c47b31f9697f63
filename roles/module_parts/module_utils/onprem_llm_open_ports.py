# SPDX-License-Identifier: Apache-2.0
"""What opens ports to the hosts of one run while it runs, and shuts them again: a script, beside the run's order."""

from __future__ import annotations

import ipaddress
import shlex

# `iptables -S` (iptables(8)) prints the policy and the rules of a chain: one line says that all may come in. firewalld
# gets the rules in every zone in use (firewall-cmd(1)), in one call each, since each call starts a Python:
# which of them the line to another host is in, nobody need know. Docker's own zone has its bridges, and lets all in.
# Only running rules change, so that a host that goes down in the middle comes back as it was.
SCRIPT = """#!/bin/sh
# Written by onprem-llm. Opens ports to the hosts of one run, or shuts them again; the rules are gone with a reboot.
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
iptables=$(iptables -w 10 -S INPUT 2>/dev/null) ip6tables=$(ip6tables -w 10 -S INPUT 2>/dev/null)
rule() {{ # command, what it had for rules before, address, protocol, port
    if [ "$verb" = -D ] || [ "$2" != "-P INPUT ACCEPT" ]; then
        $1 -w 10 "$verb" INPUT -p "$4" -s "$3" --dport "$5" -j ACCEPT
    fi
}}
{rules}
exit 0
"""

RICH = "rule family=ipv{one.version} source address={one} port port={port} protocol={protocol} accept"


def known(address):
    """Return it as ipaddress has it; ValueError for what is none, and for one with a scope, which may be any words."""
    if "%" in str(address):
        raise ValueError(f"found the address {address!r}, expected one without a scope (%)")
    return ipaddress.ip_address(str(address))


def script(ports, addresses):
    """Return the script: `open` and `close` are its words. `ports` are (protocol, port); ValueError for no address.

    A host without iptables and firewalld is left as it is: where something else of its own closes a port, no host
    gets through, and whoever uses it says so.
    """
    commands = {4: "iptables", 6: "ip6tables"}
    hosts = sorted(set(map(known, addresses)), key=lambda one: (one.version, int(one)))
    rules, rich = [], []
    for one in hosts:
        command = commands[one.version]
        for protocol, port in ports:
            rules.append(f'rule {command} "${command}" {shlex.quote(str(one))} {protocol} {int(port)} 2>/dev/null')
            text = RICH.format(one=one, port=int(port), protocol=protocol)
            rich.append(f'set -- "$@" --$word-rich-rule={shlex.quote(text)}')
    return SCRIPT.format(rich="\n    ".join(rich), rules="\n".join(rules))
