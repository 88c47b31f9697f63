#!/bin/sh
# Make the virtual environment of a checkout: sh tests/setup.sh PYTHON VENV
# On a fresh Debian the venv module is a package of its own, and so are the few tools that tests call.
set -eu
python=$1
venv=$2

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    wanted=""
    "$python" -c 'import ensurepip, venv' 2>/dev/null || wanted="$wanted python3-venv"
    command -v ssh >/dev/null || wanted="$wanted openssh-client"
    command -v sshpass >/dev/null || wanted="$wanted sshpass"
    command -v shellcheck >/dev/null || wanted="$wanted shellcheck"
    # One more shell that hosts have; tests run collect.sh with it.
    command -v busybox >/dev/null || wanted="$wanted busybox"
    command -v skopeo >/dev/null || wanted="$wanted skopeo"
    # Networks without a way out, for the recorder and the fan-out.
    command -v ip >/dev/null || wanted="$wanted iproute2"
    command -v iptables >/dev/null || wanted="$wanted iptables"
    # Packages of the RHEL family, in a lock and out of a bundle.
    command -v dnf >/dev/null || wanted="$wanted dnf"
    command -v rpmbuild >/dev/null || wanted="$wanted rpm"
    command -v createrepo_c >/dev/null || wanted="$wanted createrepo-c"
    command -v gpg >/dev/null || wanted="$wanted gpg"
    # What measures the lines between hosts, on a line that is made up.
    command -v iperf3 >/dev/null || wanted="$wanted iperf3"
    if [ -n "$wanted" ]; then
        echo "Installing:$wanted"
        apt-get update -qq
        # shellcheck disable=SC2086 # a list of names
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted >/dev/null
    fi
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "Installing onprem-llm and its tools into $venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
"$venv/bin/onprem-llm" --version
