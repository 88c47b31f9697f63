#!/bin/sh
# Build the stub engine on the images' own Debian layer, in two versions, and save each as an archive.
set -eu
cd "$(dirname "$0")"
cache=${ONPREM_LLM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/onprem-llm}/test/images
mkdir -p "$cache"
sh ../../../images/build.sh debian
debian=$(docker image ls --format '{{.Repository}}:{{.Tag}}' onprem-llm/debian | head -n 1)
[ -n "$debian" ] || { echo "stub engine: no onprem-llm/debian image; run sh images/build.sh first" >&2; exit 1; }
for version in 1 2; do
    image=onprem-llm/stub-engine:$version
    DOCKER_BUILDKIT=0 docker build -q --build-arg "DEBIAN=$debian" --label "stub.version=$version" -t "$image" . >/dev/null
    docker save "$image" -o "$cache/stub-engine-$version.tar.new"
    mv "$cache/stub-engine-$version.tar.new" "$cache/stub-engine-$version.tar"
done
echo "stub engine: $cache"
