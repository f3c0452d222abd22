# shellcheck shell=bash disable=SC2034
# What .ci/overlays, .ci/faults, .ci/mesh and .ci/injected do alike: sourced, with `root` set to
# this repository and `tools` to ../shared/cluster. The clients' logs are what is looked at,
# because a user looks at them.

work=$(mktemp -d)
# Of this repository's images.
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)
failed=0

end() {
    "$tools/down" >/dev/null || true
    rm -rf "$work"
}
trap end EXIT

# verdict NAME STATUS DETAIL
verdict() {
    if (($2 == 0)); then
        echo "  √ $1: $3"
    else
        echo "  × $1: $3"
        failed=1
    fi
}

# with_envoy_or_without: leaves the overlays with Envoy out of `overlays`, and says so, where there
# is none.
with_envoy_or_without() {
    local cache=${CLUSTER_CACHE:-$HOME/.cache/cluster}
    if [[ " ${overlays[*]} " == *" envoy-"* ]] && ! command -v envoy >/dev/null; then
        echo "not run: overlays with Envoy; it is neither on PATH nor below $cache/bin"
        mapfile -t overlays < <(printf '%s\n' "${overlays[@]}" | grep -v '^envoy-')
    fi
}

# load_images FOLDER OVERLAY…: on every node; archives as they are, binaries as images of the names
# that the overlays ask for, and an Envoy for those that have one.
load_images() {
    local folder=$1 image name envoy file
    shift
    if compgen -G "$folder/*.tar" >/dev/null; then
        "$tools/load" "$folder"/*.tar >/dev/null 2>&1
    fi
    for image in $(for overlay; do kubectl kustomize "$root/kustomize/overlays/$overlay"; done |
        sed -n 's/^ *image: //p' | sort -u); do
        name=${image%:*} name=${name#evenkeel-}
        case $image in
        envoyproxy/*)
            envoy=$(command -v envoy)
            file=$(readlink -f "$envoy")
            "$tools/mkimage" "$image" --add "$file:/usr/local/bin/envoy" "$envoy" >"$work/image.tar"
            ;;
        evenkeel-*)
            if [[ ! -x $folder/$name ]]; then continue; fi
            strip -o "$work/$name" "$folder/$name"
            "$tools/mkimage" "$image" --entrypoint "/$name" --user 65532:65532 "$work/$name" \
                >"$work/image.tar"
            ;;
        esac
        "$tools/load" "$work/image.tar" >/dev/null 2>&1
    done
}

# calls NAMESPACE NAME INJECT TARGET FLAG…: a client of its own in a pod, with or without a sidecar
# of Istio's, until it ends; all that it says is in $work/NAME.
calls() {
    local namespace=$1 name=$2 inject=$3 target=$4 args reason=
    shift 4
    args=$(printf ',"%s"' --quiet --output json "$@")
    kubectl -n "$namespace" apply -f - >/dev/null <<POD
apiVersion: v1
kind: Pod
metadata: { name: $name, labels: { sidecar.istio.io/inject: "$inject" } }
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 5
  containers:
  - { name: client, image: "evenkeel-client:$version", args: ["--target", "$target"$args] }
POD
    for _ in $(seq 300); do
        reason=$(kubectl -n "$namespace" get pod "$name" \
            -o 'jsonpath={.status.containerStatuses[?(@.name=="client")].state.terminated.reason}')
        if [[ -n $reason ]]; then break; fi
        sleep 0.3
    done
    kubectl -n "$namespace" logs "$name" -c client >"$work/$name" 2>&1
    kubectl -n "$namespace" delete pod "$name" --wait=false >/dev/null
}

client_of() {
    case $1 in
    envoy-dynamic*) echo greeter-client-with-envoy-dynamic ;;
    envoy-*) echo "greeter-client-with-$1" ;;
    lookaside) echo greeter-client-lookaside-lb ;;
    *) echo "greeter-client-$1" ;;
    esac
}

# log OVERLAY: all that its client has said; each overlay has the namespace of its name.
log() { kubectl -n "$1" logs "deployment/$(client_of "$1")" -c greeter-client 2>/dev/null || true; }

# backends OVERLAY CALLS: how many of the last CALLS calls went to each backend, sorted: `10 10 10`.
backends() {
    log "$1" | sed -n 's/^Greeting: .*(Backend IP: \(.*\))$/\1/p' | tail -n "$2" | sort | uniq -c |
        awk '{ print $1 }' | sort -n | paste -sd' '
}

# shares OVERLAY CALLS WANTED CHECK: waits 90 s at most for these shares.
shares() {
    local seen status=1
    for _ in $(seq 90); do
        seen=$(backends "$1" "$2")
        if [[ $seen == "$3" ]]; then
            status=0
            break
        fi
        sleep 1
    done
    verdict "$1: $4" "$status" "of the last $2 calls $seen"
}

# errors OVERLAY: how many calls have failed so far.
errors() { log "$1" | grep -c '^Error ' || true; }

# wait_for NAMESPACE LIMIT: until its Deployments are rolled out, but for a collector's: nobody
# loads that image, and without one our programs go on.
wait_for() {
    kubectl -n "$1" rollout status deployment --selector='app!=otel-collector' --timeout="$2"
}

# rolled_out OVERLAY DETAIL
rolled_out() {
    local status=0
    wait_for "$1" 120s >"$work/rollout" 2>&1 || status=$?
    verdict "$1: rolled out $2" "$status" "$(tail -n 1 "$work/rollout")"
    if ((status != 0)); then
        kubectl -n "$1" get pods -o wide || true
        kubectl -n "$1" get events --sort-by=.lastTimestamp | tail -n 20 || true
    fi
}

# first_lines OVERLAY: what a user sees of it.
first_lines() {
    echo
    echo "\$ kubectl logs deployment/$(client_of "$1") -c greeter-client"
    log "$1" | head -n "${2-7}"
}
