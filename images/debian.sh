#!/bin/sh
# shellcheck disable=SC2154  # build.sh sets work and cache, and has die, say, run, tag_of and image_id
# The root file system that all images start from: Debian with Python, by mmdebstrap. Read by build.sh.

# debian_image: make it unless it stands.
debian_image() {
    tag=$(tag_of debian)
    [ -z "$(image_id "$tag")" ] || return 0
    [ "$(id -u)" -eq 0 ] || die "making Debian's root file system needs root" "run it again with sudo"
    ensure_mmdebstrap
    say "making Debian $DEBIAN_SUITE with Python"
    # The image keeps no trace of the mirror. Documentation goes, licences stay.
    # shellcheck disable=SC2016  # mmdebstrap runs the hooks with the root's folder as $1
    run "$cache/images/debian.log" mmdebstrap --variant=minbase \
        --include=python3,python3-distutils,ca-certificates,libnuma1,libstdc++6 \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --customize-hook='rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*' \
        --customize-hook='rm -f "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/var/log/*.log' \
        "$DEBIAN_SUITE" "$work/debian.tar" "$work/context/site/sources.list"
    docker import --change 'ENV LANG=C.UTF-8' --change 'CMD ["bash"]' \
        --message 'Debian by mmdebstrap' "$work/debian.tar" "$tag" >/dev/null
    rm -f "$work/debian.tar"
}
