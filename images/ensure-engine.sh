#!/bin/sh
# Make sure that a docker engine answers on this machine: `sh images/ensure-engine.sh`.
#
# Nothing happens when one does. Otherwise, as root: docker.io is installed where it is missing, and
# started: by systemd where systemd runs, as a detached process where it does not (a container, a
# small virtual machine). Running it again is harmless. Exit code 0 means that an engine answers.
set -eu

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
wait_s=${ONPREM_LLM_ENGINE_WAIT_S:-60}

say() { printf 'engine: %s\n' "$*"; }
die() {
    printf 'engine: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

# The server's version is asked for, since the client's half of `docker version` always succeeds.
answers() { command -v docker >/dev/null && docker version --format '{{.Server.Version}}' 2>/dev/null; }

install_engine() {
    command -v apt-get >/dev/null ||
        die "no docker engine, and no apt-get to install one" "install Docker Engine, then run this again"
    say "installing docker.io"
    export DEBIAN_FRONTEND=noninteractive
    log=$cache/engine-install.log
    { apt-get update && apt-get install --yes --no-install-recommends docker.io iptables; } >"$log" 2>&1 ||
        { tail -n 5 "$log" >&2; die "apt-get could not install docker.io" "read $log"; }
    # Only a Debian with the client split off (13 and later) has this package.
    command -v docker >/dev/null || apt-get install --yes --no-install-recommends docker-cli >>"$log" 2>&1 ||
        die "apt-get could not install docker-cli" "read $log"
}

start_by_hand() {
    # A pid file that outlived its process (a killed machine) keeps dockerd from starting.
    pid_file=/var/run/docker.pid
    if [ -f "$pid_file" ] && ! kill -0 "$(cat "$pid_file")" 2>/dev/null; then rm -f "$pid_file"; fi
    [ -f "$pid_file" ] || setsid dockerd >>"$engine_log" 2>&1 </dev/null &
}

wait_for_answer() {
    waited=0
    until version=$(answers) && [ -n "$version" ]; do
        [ "$waited" -lt "$wait_s" ] || return 1
        sleep 1
        waited=$((waited + 1))
    done
}

if version=$(answers) && [ -n "$version" ]; then
    say "docker $version answers, nothing to do"
    exit 0
fi
if [ -n "${DOCKER_HOST:-}" ]; then
    die "no docker engine answers at DOCKER_HOST=$DOCKER_HOST" "start it there, or unset DOCKER_HOST"
fi
if [ "$(id -u)" -ne 0 ]; then
    die "no docker engine answers to user $(id -un)" \
        "run this as root, or, if one is running, add the user to its group: sudo usermod -aG docker $(id -un)"
fi

cache=${ONPREM_LLM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/onprem-llm}
engine_log=$cache/dockerd.log
mkdir -p "$cache"
command -v dockerd >/dev/null || install_engine

if [ -d /run/systemd/system ]; then
    systemctl start docker || die "systemd could not start docker" "journalctl -u docker -n 50"
    how="started by systemd; its log: journalctl -u docker"
    engine_log="the journal"
else
    start_by_hand
    how="started by hand; its log: $engine_log"
fi
if ! wait_for_answer; then
    [ -f "$engine_log" ] && tail -n 15 "$engine_log" >&2
    die "docker does not answer after $wait_s s" "read $engine_log"
fi
say "docker $version answers ($how)"
