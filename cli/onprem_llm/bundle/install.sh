#!/bin/sh
# Installs the onprem-llm that made this bundle, on a machine with no way out.
#
#     sh blobs/sha256/<this file> [FOLDER]        FOLDER: where it goes, default ~/.local/share/onprem-llm
#
# Run it after `ssh-keygen -Y verify` said that manifest.json is good, and sha256sum that this file is: `bundle create`
# printed both lines. Each wheel is compared with the manifest before it is used; nothing is fetched from anywhere.
set -eu

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

here=$(cd "$(dirname "$0")/../.." && pwd)
into=${1:-$HOME/.local/share/onprem-llm}
manifest=$here/manifest.json
[ -f "$manifest" ] || fail "$manifest is missing: run this file where it lies, in blobs/sha256 of the bundle"
command -v sha256sum >/dev/null || fail "sha256sum is missing: install coreutils"

# The Pythons that the bundle has wheels for, newest first.
known=$(grep -o '"kind":"wheels","name":"python3\.[0-9]*"' "$manifest" | grep -o '3\.[0-9]*' | sort -t. -k2 -rn | uniq)
[ -n "$known" ] || fail "the bundle has no wheels: it was made from a lock without them"

version_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none
}

is_known() {
    for one in $known; do
        [ "$one" = "$1" ] && return 0
    done
    return 1
}

python=
found=$(version_of python3)
if is_known "$found"; then
    python=python3
else
    for one in $known; do
        if [ "$(version_of "python$one")" = "$one" ]; then
            python=python$one
            found=$one
            break
        fi
    done
    [ -n "$python" ] || fail "python3 is $found, and no other was found; the bundle has wheels for: $(echo $known)"
    echo "python3 is $(version_of python3), too old or too new for the bundle's wheels: using $python"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP

# Names and sums of the wheels for this Python; a name that is no plain file name is refused.
"$python" - "$manifest" "python$found" >"$scratch/sums" <<'PYTHON' || fail "$manifest cannot be read"
import json, re, sys
manifest = json.load(open(sys.argv[1], encoding="utf-8"))
for view in manifest["folders"]:
    if (view["kind"], view["name"]) == ("wheels", sys.argv[2]):
        for file in view["files"]:
            good = re.match(r"^[A-Za-z0-9][A-Za-z0-9._+!-]*[.]whl$", file["path"])
            if not good or not re.match(r"^[0-9a-f]{64}$", file["sha256"]):
                sys.exit("install.sh: strange wheel in the manifest: %r" % file["path"])
            print(file["sha256"] + "  " + file["path"])
PYTHON
[ -s "$scratch/sums" ] || fail "the manifest lists no wheels for Python $found"

mkdir "$scratch/wheels"
while read -r sum name; do
    [ -f "$here/blobs/sha256/$sum" ] ||
        fail "$name (blobs/sha256/$sum) is missing: in another volume, or the bundle is not whole"
    cp "$here/blobs/sha256/$sum" "$scratch/wheels/$name"
done <"$scratch/sums"
(cd "$scratch/wheels" && sha256sum --quiet -c ../sums >&2) || fail "a wheel is not what the manifest says: copy the bundle again"

# Debian's venv has no pip until python3-venv is installed: a pip of the bundle needs neither.
mkdir -p "$(dirname "$into")"
pip=$(find "$scratch/wheels" -name 'pip-*.whl')
if [ -n "$pip" ]; then
    "$python" -m venv --without-pip "$into" || fail "$python cannot make a virtual environment in $into"
    set -- "$into/bin/python" "$pip/pip"
else
    "$python" -m venv "$into" || fail "$python cannot make a virtual environment in $into: install python3-venv"
    set -- "$into/bin/python" -m pip
fi
PIP_CONFIG_FILE=/dev/null "$@" install --quiet --disable-pip-version-check --no-index --find-links "$scratch/wheels" \
    onprem-llm || fail "pip could not install from the bundle's wheels"
echo "Installed: $("$into/bin/onprem-llm" --version). Put it in PATH, or call $into/bin/onprem-llm"
