#!/bin/sh
# shellcheck disable=SC2154  # build.sh sets work and cache, and has die, say, run, tag_of and image_id
# The root file system that all images start from: Debian with Python, by mmdebstrap. Read by build.sh.

# debian_image: the one with Python, unless it stands.
debian_image() {
    root_image "$(tag_of debian)" "$DEBIAN_SUITE" python3,python3-distutils,ca-certificates,libnuma1,libstdc++6
}

# root_image TAG SUITE PACKAGES: make it unless it stands.
root_image() {
    [ -z "$(image_id "$1")" ] || return 0
    [ "$(id -u)" -eq 0 ] || die "making Debian's root file system needs root" "run it again with sudo"
    ensure_mmdebstrap
    say "making Debian $2 with $3"
    debian_sources "$2" >"$work/sources.list"
    # The image keeps no trace of the mirror. Documentation goes, licences stay.
    # shellcheck disable=SC2016  # mmdebstrap runs the hooks with the root's folder as $1
    run "$cache/images/debian.log" mmdebstrap --variant=minbase --include="$3" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --customize-hook='rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*' \
        --customize-hook='rm -f "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/var/log/*.log' \
        "$2" "$work/debian.tar" "$work/sources.list"
    docker import --change 'ENV LANG=C.UTF-8' --change 'CMD ["bash"]' \
        --message 'Debian by mmdebstrap' "$work/debian.tar" "$1" >/dev/null
    rm -f "$work/debian.tar"
}
