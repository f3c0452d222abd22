# shellcheck shell=bash
# What `deploy-example-N` does; nix/scripts.nix puts it, load-image.sh and the example's values
# (example, overlay, client, server, mesh, manifests) into one script. The order is that of a
# careful person: say where, ask, bring the images, apply, wait, look.

usage() {
    cat <<END
usage: nix run .#deploy-$overlay -- [--namespace NAME] [--yes] [--dry-run | --delete]

Deploys example $example ($overlay) to the cluster of the current context, and follows its
client's log.
  --namespace NAME  where; must exist. The context's own when not given
  --yes             does not ask
  --dry-run         prints what would be applied, and needs no cluster (also DRY_RUN=1)
  --delete          takes away what was applied

Images go into the cluster when it is one of kind, k3d or minikube, else to \$REGISTRY (with the
login of docker or podman). \$IMAGE_LOADER, a command that is given an archive's path, replaces
both.
END
}

say() { printf '%s\n' "$*" >&2; }

# built: the manifests, with the registry's name before the images' where one is used.
built() {
    kustomize build "$manifests" | sed "s|image: evenkeel-|image: ${REGISTRY:+$REGISTRY/}evenkeel-|"
}

ask() {
    local answer
    if [[ -n $yes ]]; then return; fi
    if [[ ! -t 0 ]]; then
        say "nobody can be asked here: expected --yes"
        exit 64
    fi
    read -r -p "$1 [y/N] " answer
    [[ $answer == [yY]* ]] || exit 1
}

has_istio() {
    kubectl "${where[@]}" get --raw /apis/networking.istio.io >/dev/null 2>&1
}

main() {
    local action=apply context deployment namespace='' yes='' where
    if [[ -n ${DRY_RUN-} ]]; then action=print; fi
    while (($#)); do
        case $1 in
        --namespace) namespace=${2:?--namespace wants a name} && shift ;;
        --yes) yes=1 ;;
        --dry-run) action=print ;;
        --delete) action=delete ;;
        --help) usage && return ;;
        *) usage >&2 && exit 64 ;;
        esac
        shift
    done
    if [[ $action == print ]]; then
        bring_images print
        built
        return
    fi
    context=$(kubectl config current-context) || {
        say "expected a current context (kubectl config get-contexts); or --dry-run"
        exit 1
    }
    namespace=${namespace:-$(kubectl config view --minify -o 'jsonpath={..namespace}')}
    where=(--context "$context" --namespace "${namespace:-default}")
    say "example $example ($overlay), context $context, namespace ${namespace:-default}"
    if [[ $action == delete ]]; then
        ask "Delete it?"
        built | kubectl "${where[@]}" delete --ignore-not-found -f -
        return
    fi
    if [[ $mesh == istio ]] && ! has_istio; then
        say "example $example needs Istio, and this cluster has none: see \`istioctl install\`;" \
            "example 3 without it is kustomize/overlays/envoy-dynamic-without-istio"
        exit 1
    fi
    ask "Apply it?"
    bring_images "$context"
    built | kubectl "${where[@]}" apply -f -
    for deployment in "$server" "$client"; do
        kubectl "${where[@]}" rollout status "deployment/$deployment" --timeout=180s
    done
    say "
what to try, beside this: kubectl scale deployment $server --replicas=4
and what else: kustomize/overlays/$overlay/README.md; --delete takes it away again
"
    # FOLLOW_S ends it by itself, for tests.
    ${FOLLOW_S:+timeout "$FOLLOW_S"} kubectl "${where[@]}" logs --follow "deployment/$client" \
        -c greeter-client || [[ $? == 124 ]]
}

main "$@"
