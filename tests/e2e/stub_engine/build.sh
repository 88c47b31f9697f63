#!/bin/sh
# Build the stub engine on the images' own Debian layer: two versions, and one that cannot start; each an archive.
set -eu
cd "$(dirname "$0")"
cache=${ONPREM_LLM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/onprem-llm}/test/images
mkdir -p "$cache"
sh ../../../images/build.sh debian
debian=$(docker image ls --format '{{.Repository}}:{{.Tag}}' onprem-llm/debian | head -n 1)
[ -n "$debian" ] || { echo "stub engine: no onprem-llm/debian image; run sh images/build.sh first" >&2; exit 1; }

# Two runs of different kinds build it at once: each waits for the other, and finds its archives.
exec 9>"$cache/lock"
flock 9

# build TAG PROGRAM: nothing is saved again where the archive holds this image already.
build() {
    image=onprem-llm/stub-engine:$1
    archive=$cache/stub-engine-$1.tar
    DOCKER_BUILDKIT=0 docker build -q --build-arg "DEBIAN=$debian" --build-arg "PROGRAM=$2" --label "stub.version=$1" \
        -t "$image" . >"$archive.id.new"
    if [ ! -f "$archive" ] || ! cmp -s "$archive.id" "$archive.id.new"; then
        docker save "$image" -o "$archive.new"
        mv "$archive.new" "$archive"
    fi
    mv "$archive.id.new" "$archive.id"
}

build 1 vllm
build 2 vllm
build broken broken
echo "stub engine: $cache"
