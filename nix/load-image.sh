# shellcheck shell=bash
# What the apps do with an image; part of their text, not a program of its own. IMAGE_DIR takes the
# archives instead of a cluster; DRY_RUN loads none.

# load_image NAME STREAM: STREAM is a program that writes the archive.
load_image() {
    if [[ -n ${IMAGE_DIR-} ]]; then
        mkdir -p "$IMAGE_DIR"
        "$2" >"$IMAGE_DIR/$1.tar"
        echo "$IMAGE_DIR/$1.tar"
    elif [[ -z ${DRY_RUN-} ]]; then
        "$2" | kind load image-archive /dev/stdin --name "${KIND_CLUSTER-kind}"
    else
        echo "would load $1 into the kind cluster ${KIND_CLUSTER-kind}"
    fi
}
