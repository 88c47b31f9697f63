#!/bin/sh
# Build what the project's own images need, from packages only, and keep everything in the cache.
#
#   sh images/build.sh [vllm-cpu|open-webui|gateway|registry]...  all four without a name; archives under CACHE/images
#   sh images/build.sh vllm-ray                       what a Ray cluster runs; only by name
#   sh images/build.sh tiny-model [NAME [DIR]]        the example model; NAME is what it calls itself
#   sh images/build.sh debian                         the root file system alone, as onprem-llm/debian
#   sh images/build.sh clean                          forget the images and the archives
#
# CACHE is ${ONPREM_LLM_CACHE:-${XDG_CACHE_HOME:-~/.cache}/onprem-llm}. An image is built again only when its
# recipe (the files here) changed; a second run takes about a second.
# shellcheck source-path=SCRIPTDIR
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/versions.env"
. "$here/vllm-ray/versions.env"
cache=${ONPREM_LLM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/onprem-llm}
work='' other=''
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap '[ -z "$other" ] || kill "$other"; exit 130' INT TERM

say() { printf 'images: %s\n' "$*"; }
die() {
    printf 'images: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

images='vllm-cpu open-webui gateway registry'
by_name='vllm-ray'
services='gateway registry' # of Debian's packages, on a base of their own; the others share one with Python

. "$here/site.sh"
. "$here/debian.sh"

# digest FILE…: one sha256 over the names and the contents of recipe files.
digest() { (cd "$here" && sha256sum "$@") | sha256sum | cut -d' ' -f1; }

# packages_of SERVICE: with commas. It counts for the base alone; the image is made again when its own folder changes.
packages_of() {
    case $1 in
        gateway) echo haproxy,keepalived,ca-certificates ;;
        registry) echo docker-registry ;;
    esac
}

recipe() (
    cd "$here"
    case $1 in
        debian) digest versions.env debian.sh ;;
        gateway-base | registry-base)
            printf '%s %s' "$(digest versions.env debian.sh)" "$(packages_of "${1%-base}")" | sha256sum | cut -d' ' -f1
            ;;
        base) digest versions.env debian.sh install-packages.sh base/* ;;
        gateway | registry) digest versions.env debian.sh "$1"/* ;;
        vllm-ray) digest versions.env debian.sh install-packages.sh base/Dockerfile vllm-cpu/trim.sh "$1"/* ;;
        *) digest versions.env debian.sh install-packages.sh base/* "$1"/* ;;
    esac
)

version_of() {
    case $1 in
        vllm-cpu) echo "$VLLM_VERSION" ;;
        open-webui) echo "$OPEN_WEBUI_VERSION" ;;
        gateway) echo "$GATEWAY_VERSION" ;;
        registry) echo 1 ;; # of the recipe; in versions.env it would have all others built again
        vllm-ray) echo "$RAY_VLLM_VERSION-ray$RAY_VERSION" ;;
        *) die "no image is called $1" "images: $images $by_name" ;;
    esac
}

# The short form is enough in a tag; the whole digest stands in the image's label.
tag_of() { printf 'onprem-llm/%s:%s' "$1" "$(recipe "$1" | cut -c1-12)"; }
image_id() { docker image inspect --format '{{.Id}}' "$1" 2>/dev/null || true; }
built_from() { docker image inspect --format '{{index .Config.Labels "onprem-llm.recipe"}}' "$1" 2>/dev/null || true; }

# run LOG COMMAND…: its output goes to the log; the end of that is shown when it fails.
run() {
    log=$1
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        if grep -q 'No matching distribution found for torch' "$log"; then
            die "pip found no CPU build of torch (Python 3.11)" \
                "set PIP_FIND_LINKS to a folder with its wheel, or PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds"
        fi
        die "this failed: $1 $2" "read all of it in $log"
    fi
}

# build TAG DOCKERFILE ARGUMENT…
build() {
    tag=$1 dockerfile=$2
    shift 2
    # A name without a value takes it from the environment.
    for proxy in http_proxy https_proxy no_proxy; do
        eval "[ -z \"\${$proxy:-}\" ]" || set -- "$@" --build-arg "$proxy"
    done
    run "$cache/images/$(dirname "$dockerfile").log" docker build --tag "$tag" \
        --file "$work/context/$dockerfile" "$@" "$work/context"
}

prepare_context() {
    [ -z "$work" ] || return 0
    work=$(mktemp -d "$cache/images/build.XXXXXX")
    write_context "$work/context"
}

prepare_debian() {
    prepare_context
    debian_image
}

prepare() {
    prepare_debian
    base=$(tag_of base)
    builder=$base-builder
    [ -z "$(image_id "$builder")" ] || [ -z "$(image_id "$base")" ] || return 0
    say "building the base layer"
    build "$builder" base/Dockerfile --target builder --build-arg "DEBIAN=$(tag_of debian)"
    [ -n "$(image_id "$base")" ] || build "$base" base/Dockerfile --build-arg "DEBIAN=$(tag_of debian)"
}

# prepare_service NAME: all are of one suite, called the gateway's since a new name would have every image built again.
prepare_service() {
    prepare_context
    base=$(tag_of "$1-base")
    root_image "$base" "$GATEWAY_SUITE" "$(packages_of "$1")"
}

bases() {
    echo base debian
    for each in $services; do echo "$each-base"; done
}

# The stages that only fetch are 2 GB and of no use once the image stands, nor are the images of older recipes.
tidy() {
    for each in $(bases); do
        for tag in $(docker image ls --format '{{.Repository}}:{{.Tag}}' "onprem-llm/$each"); do
            [ "$tag" = "$(tag_of "$each")" ] || docker image rm "$tag" >/dev/null 2>&1 || true
        done
    done
    for label in onprem-llm.stage onprem-llm.recipe; do
        docker image prune --force --filter "label=$label" >/dev/null
    done
}

# describe NAME: set name, version, wanted, image, archive and stamp.
describe() {
    name=$1
    version=$(version_of "$name")
    wanted=$(recipe "$name")
    image=onprem-llm/$name:$version
    archive=$cache/images/$name-$version.tar
    stamp=$archive.built-from
}

archive_fits() { [ -f "$archive" ] && grep -q "^$wanted " "$stamp" 2>/dev/null; }

# is_at_hand NAME: neither image nor archive has to be built.
is_at_hand() {
    describe "$1"
    [ "$(built_from "$image")" = "$wanted" ] || archive_fits
}

ensure_image() {
    describe "$1"
    if [ "$(built_from "$image")" != "$wanted" ] && archive_fits; then
        say "loading $image from $archive"
        run "$cache/images/$name.log" docker load --input "$archive"
    fi
    if [ "$(built_from "$image")" != "$wanted" ]; then
        case " $services " in *" $name "*) prepare_service "$name" ;; *) prepare ;; esac
        # Ray pins other versions than the shared base has, so it starts from Debian alone.
        [ "$name" != vllm-ray ] || base=$(tag_of debian)
        say "building $image"
        build "$image" "$name/Dockerfile" --build-arg "BUILDER=$(tag_of base)-builder" \
            --build-arg "BASE=$base" --build-arg "VERSION=$version" --build-arg "RECIPE=$wanted" \
            --build-arg "RAY=$RAY_VERSION" --build-arg "VLLM=$RAY_VLLM_VERSION"
    fi
    save "$image" "$archive" "$stamp" "$wanted $(image_id "$image")"
    say "$image, $(docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%.2f GB", $1 / 1e9}'), $archive"
}

# Two at once: one fetches while the other unpacks.
ensure_all() {
    for each in vllm-cpu open-webui; do
        is_at_hand "$each" || { prepare; break; }
    done
    ensure_image open-webui &
    other=$!
    ensure_image vllm-cpu
    ensure_image gateway
    ensure_image registry
    wait "$other"
}

# save IMAGE ARCHIVE STAMP CONTENT: the stamp is written last, so a cut leaves no archive that looks whole.
save() {
    if [ -f "$2" ] && [ "$(cat "$3" 2>/dev/null)" = "$4" ]; then return 0; fi
    say "saving $1"
    rm -f "$3"
    docker save --output "$2.part" "$1" || die "docker could not save $1" "is there room in $cache? docker needs the image's size"
    mv "$2.part" "$2"
    printf '%s\n' "$4" >"$3.part"
    mv "$3.part" "$3"
}

tiny_model() {
    called=${1:-Tiny} out=${2:-$cache/models/tiny}
    image=onprem-llm/vllm-cpu:$VLLM_VERSION
    lesson="$(digest ../examples/make_tiny_model.py ../examples/tiny_model/lesson.py ../examples/tiny_model/answers.toml) $called"
    if [ -f "$out/config.json" ] && [ "$(cat "$out.built-from" 2>/dev/null)" = "$lesson" ]; then
        say "the model $out is made already"
        return 0
    fi
    ensure_image vllm-cpu
    mkdir -p "$(dirname "$out")"
    parent=$(cd "$(dirname "$out")" && pwd)
    say "training the model $out, which calls itself $called (about a minute)"
    rm -f "$out.built-from"
    # Threads that wait must not spin: on a busy machine that made the training four times slower.
    docker run --rm --network none --env OMP_WAIT_POLICY=PASSIVE --volume "$here/../examples:/examples:ro" --volume "$parent:/out" \
        --entrypoint python3 "$image" /examples/make_tiny_model.py --name "$called" --out "/out/$(basename "$out")" ||
        die "the model was not made" "run it again; the lines above say what it answered"
    printf '%s\n' "$lesson" >"$out.built-from"
}

clean() {
    for name in $images $by_name; do
        docker image rm --force "onprem-llm/$name:$(version_of "$name")" >/dev/null 2>&1 || true
        rm -f "$cache/images/$name-$(version_of "$name").tar" "$cache/images/$name-$(version_of "$name").tar.built-from"
    done
    for each in $(bases); do
        docker image rm --force "$(tag_of "$each")" >/dev/null 2>&1 || true
    done
    tidy
    say "forgot the images and the archives"
}

sh "$here/ensure-engine.sh" >/dev/null || exit 1
mkdir -p "$cache/images"
# Two builds at once would each do all the work.
exec 9>"$cache/images/lock"
flock -n 9 || { say "another build runs; waiting for it"; flock 9; }

case ${1:-all} in
    tiny-model) shift; tiny_model "$@" ;;
    debian) prepare_debian ;;
    clean) clean ;;
    all) ensure_all ;;
    *) for name in "$@"; do ensure_image "$name"; done ;;
esac
[ -z "$work" ] || tidy
