#!/bin/sh
# shellcheck disable=SC2154  # build.sh sets here and cache, and has die, say and run
# What a build takes over from the machine that it runs on: the Debian mirror, the certificates that the
# machine trusts, the package index and the proxies. Read by build.sh; nothing of it is left in an image.

# configured URI-PATTERN: the first of apt's own repositories on this machine that matches.
configured() {
    # shellcheck disable=SC2016  # apt expands $(REPO_URI), not the shell
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -E "$1" | head -n 1
}

# debian_sources SUITE: sources.list from this machine's mirror.
debian_sources() {
    main=$(configured '/debian/?$')
    security=$(configured '/debian-security/?$')
    [ -n "$main" ] || die "apt on this machine knows no Debian mirror (a repository whose address ends in /debian)" \
        "add one to /etc/apt/sources.list.d; the images are made from Debian $1"
    printf 'deb %s %s main\ndeb %s %s-updates main\n' "$main" "$1" "$main" "$1"
    [ -z "$security" ] || printf 'deb %s %s-security main\n' "$security" "$1"
}

# pip_setting NAME: pip's own setting on this machine, from PIP_NAME or its configuration files.
pip_setting() {
    variable=PIP_$(printf '%s' "$1" | tr 'a-z-' 'A-Z_')
    eval "value=\${$variable:-}"
    if [ -z "$value" ] && command -v python3 >/dev/null; then
        value=$(python3 -m pip config get "global.$1" 2>/dev/null || true)
    fi
    printf '%s' "$value"
}

# pip_conf WHEELS: a pip.conf for the build; folders of this machine cannot be seen from there, so the wheels
# of torch that they hold are copied to WHEELS and the rest is left out.
pip_conf() {
    printf '[global]\ndisable-pip-version-check = true\ncert = /etc/ssl/certs/ca-certificates.crt\n'
    links=/site/wheels
    for link in $(pip_setting find-links); do
        case $link in
            http://* | https://*) links="$links $link" ;;
            *) cp "${link#file://}"/torch-*.whl "$1" 2>/dev/null || true ;;
        esac
    done
    printf 'find-links = %s\n' "$links"
    for name in index-url extra-index-url trusted-host timeout; do
        value=
        for word in $(pip_setting "$name"); do
            case $word in file://* | /*) ;; *) value="$value $word" ;; esac
        done
        [ -z "$value" ] || printf '%s =%s\n' "$name" "$value"
    done
}

# write_context DIR: the folder that docker builds from: the recipes, and site/. A subshell, for the names it sets.
write_context() (
    mkdir -p "$1/site/wheels"
    # shellcheck disable=SC2086  # names without spaces
    (cd "$here" && cp -R base install-packages.sh $images $by_name "$1")
    debian_sources "$DEBIAN_SUITE" >"$1/site/sources.list"
    cp /etc/ssl/certs/ca-certificates.crt "$1/site/ca-certificates.crt"
    pip_conf "$1/site/wheels" >"$1/site/pip.conf"
)

ensure_mmdebstrap() {
    command -v mmdebstrap >/dev/null && return 0
    command -v apt-get >/dev/null || die "mmdebstrap is missing" "install it, then run this again"
    say "installing mmdebstrap"
    run "$cache/images/mmdebstrap.log" apt-get update
    run "$cache/images/mmdebstrap.log" apt-get install --yes --no-install-recommends mmdebstrap
}
