# shellcheck shell=bash
# "Bazel builds, Nix packs": the images of nix/images.nix with the binaries of //:binaries in them.
# A second definition of the images in Bazel would be one that nobody deploys and that drifts.
# nix/scripts.nix puts this, load-image.sh and the list of the images (`images`) into one script.
#
# BAZEL (bazelisk without it) and NIX_FLAGS are set by tests only.

main() {
    local bazel=${BAZEL-bazelisk} binaries context=print bin program name tag stream
    if [[ ! -e MODULE.bazel || ! -e flake.nix ]]; then
        echo "expected the repository's root, where MODULE.bazel and flake.nix are; got $PWD" >&2
        exit 64
    fi
    if [[ -z ${IMAGE_DIR-}${DRY_RUN-} ]]; then context=kind-${KIND_CLUSTER-kind}; fi
    # Not `local`: the trap runs when main is over.
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    binaries=$scratch/binaries
    mkdir "$binaries"
    "$bazel" build --compilation_mode=opt //:binaries >&2
    bin=$("$bazel" info --compilation_mode=opt bazel-bin)
    install -m755 "$bin/lab/lab" "$binaries/"
    while read -r program _; do
        install -m755 "$bin/services/$program/$program" "$binaries/"
    done <<<"$images"
    while read -r program name tag; do
        # shellcheck disable=SC2086 # NIX_FLAGS is a list of words
        stream=$(BAZEL_BINARIES=$binaries nix build --impure ${NIX_FLAGS-} \
            --no-link --print-out-paths ".#$program-image")
        load_image "$name" "$tag" "$stream" "$context"
    done <<<"$images"
}

main "$@"
