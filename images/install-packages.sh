#!/bin/sh
# install-packages REQUIREMENTS [REQUIREMENT…]: stage Python packages under /stage, made small.
# Runs inside the build. The lists are complete (see lock.py), so pip resolves nothing.
set -eu
requirements=$1
shift

python3 -m pip install --quiet --no-cache-dir --no-compile --no-deps --break-system-packages \
    --root-user-action=ignore --prefix=/stage/usr --requirement "$requirements" "$@"

packages=/stage/usr/local/lib/python3.11/dist-packages
find "$packages" -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
find "$packages" -type f -name '*.js.map' -delete
# Byte code costs space, and saves its writing at every start of a fresh container
# (its paths are the final ones, and it is not compared with the times of the sources).
python3 -m compileall -q -j 0 -s /stage -p / --invalidation-mode unchecked-hash "$packages" >/dev/null 2>&1 || true
