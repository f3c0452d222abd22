#!/usr/bin/env bash
# Builds folders of kustomize/ as a user would, for `bazel test //kustomize:all`. What an API server
# says to the result is `.ci/manifests`' to ask.
#
#   kustomize/builds.sh FILE…    FILE is the kustomization.yaml of a folder
#
# The program is $KUSTOMIZE, else kustomize on PATH, else the one inside of kubectl. Without any it
# says so and ends with 0.
set -euo pipefail

if [[ -n ${KUSTOMIZE-} ]]; then
    build=("$KUSTOMIZE" build)
elif command -v kustomize >/dev/null; then
    build=(kustomize build)
elif command -v kubectl >/dev/null; then
    build=(kubectl kustomize)
else
    echo "SKIPPED: neither kustomize nor kubectl on PATH and no KUSTOMIZE; nothing was built"
    exit 0
fi
# A copy without links: Bazel links each file to its place, and kustomize reads nothing through a
# link that leads out of the folder.
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
cp -RL envoy kustomize "$tree"
for file in "$@"; do
    "${build[@]}" "$tree/$(dirname "$file")" >"$tree/built.yaml"
    objects=$(grep -c '^kind: ' "$tree/built.yaml")
    echo "$(dirname "$file"): $objects objects"
done
