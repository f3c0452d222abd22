# shellcheck shell=bash
# How an image gets to where pods find it; part of the apps' text, not a program of its own.

# load_image NAME TAG STREAM CONTEXT: STREAM is a program that writes the archive. CONTEXT `print`
# loads nothing. $IMAGE_DIR keeps the archives, $IMAGE_LOADER is given their paths.
load_image() {
    local name=$1 tag=$2 stream=$3 context=$4 archive
    if [[ -n ${IMAGE_DIR-} ]]; then
        mkdir -p "$IMAGE_DIR"
        archive=$IMAGE_DIR/$name.tar
    elif [[ $context == print ]]; then
        return
    else
        archive=$(mktemp --suffix .tar)
        # shellcheck disable=SC2064 # the name of now
        trap "rm -f '$archive'" EXIT
    fi
    "$stream" >"$archive"
    if [[ $context == print ]]; then
        echo "$archive" >&2
    elif [[ -n ${IMAGE_LOADER-} ]]; then
        "$IMAGE_LOADER" "$archive"
    elif [[ -n ${REGISTRY-} ]]; then
        skopeo copy "docker-archive:$archive" "docker://$REGISTRY/$name:$tag"
    else
        case $context in
        kind-*) kind load image-archive "$archive" --name "${context#kind-}" ;;
        k3d-*) k3d image import "$archive" --cluster "${context#k3d-}" ;;
        minikube) minikube image load "$archive" ;;
        *)
            echo "the context $context is none of kind, k3d and minikube, whose nodes take" \
                "images; expected REGISTRY or IMAGE_LOADER" >&2
            exit 64
            ;;
        esac
    fi
}
