#!/usr/bin/env bash
# Has Envoy itself read each bootstrap, for `bazel test //envoy:validate` and `.ci/run lab`: names
# of fields and types are Envoy's, and no schema here could know them. Envoy accepts deprecated
# fields and only says so, which is a × as well.
#
#   envoy/validate.sh FILE…
#
# The Envoy is $ENVOY, else an `envoy` on PATH. Without any it says so and ends with 0.
set -euo pipefail

envoy=${ENVOY:-$(command -v envoy || true)}
if [[ -z $envoy ]]; then
    echo "SKIPPED: no envoy on PATH and no ENVOY; nothing was validated"
    exit 0
fi
wrong=0
for file in "$@"; do
    if said=$("$envoy" --mode validate --disable-hot-restart --log-level warning \
        --config-path "$file" 2>&1) && ! grep -qi deprecated <<<"$said"; then
        echo "  √ $file"
    else
        echo "  × $file: $said"
        wrong=1
    fi
done
exit "$wrong"
