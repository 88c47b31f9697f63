"""What opens a port of a fan-out to the hosts of its run, and shuts it again: a script, beside the order."""

from __future__ import annotations

import ipaddress
import shlex

# `iptables -S` (iptables(8)) prints the policy and the rules of a chain: one line says that all may come in. firewalld
# gets the rule in every zone in use (firewall-cmd(1)): which of them the line to another host is in, nobody need know.
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
rule() {{ # command, family, address
    if [ -n "$zones" ]; then
        for zone in $zones; do
            firewall-cmd --quiet --zone "$zone" \\
                "--$word-rich-rule=rule family=$2 source address=$3 port port=$port protocol=tcp accept"
        done
    elif [ "$verb" = -D ] || [ "$($1 -w 10 -S INPUT)" != "-P INPUT ACCEPT" ]; then
        $1 -w 10 "$verb" INPUT -p tcp -s "$3" --dport "$port" -j ACCEPT
    fi
}}
{rules}
exit 0
"""


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
    families = {4: ("iptables", "ipv4"), 6: ("ip6tables", "ipv6")}
    hosts = sorted(set(map(known, addresses)), key=lambda one: (one.version, int(one)))
    rules = [f"rule {' '.join(families[one.version])} {shlex.quote(str(one))} 2>/dev/null" for one in hosts]
    return SCRIPT.format(port=int(port), rules="\n".join(rules))
