# shellcheck shell=bash
# A real API server alone, for .ci/manifests and .ci/rights: without controllers no pod starts, and
# what is asked of it is what it says itself, so it takes seconds and no root. Sourced.

work=$(mktemp -d)
children=()

end() {
    if ((${#children[@]})); then kill "${children[@]}" 2>/dev/null || true; fi
    wait
    rm -rf "$work"
}
trap end EXIT

failed=0
# verdict NAME STATUS DETAIL
verdict() {
    if (($2 == 0)); then
        echo "  √ $1: $3"
    else
        echo "  × $1: $3"
        # shellcheck disable=SC2034 # who sources it reads it
        failed=1
    fi
}

free_port() {
    python3 -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}

# api_server FLAG…: etcd and kube-apiserver on loopback, ended with the script; the flags are the
# latter's.
api_server() {
    local etcd peer port
    etcd=$(free_port) peer=$(free_port) port=$(free_port)
    openssl genrsa -out "$work/accounts.key" 2048 2>/dev/null
    echo "admin,admin,admin,system:masters" >"$work/tokens"
    local clients=http://127.0.0.1:$etcd peers=http://127.0.0.1:$peer
    etcd --name alone --data-dir "$work/etcd" --unsafe-no-fsync --log-level error \
        --listen-client-urls "$clients" --advertise-client-urls "$clients" \
        --listen-peer-urls "$peers" --initial-advertise-peer-urls "$peers" \
        --initial-cluster "alone=$peers" >"$work/etcd.log" 2>&1 &
    children+=($!)
    kube-apiserver --etcd-servers "http://127.0.0.1:$etcd" --bind-address 127.0.0.1 \
        --secure-port "$port" --cert-dir "$work/certificates" --token-auth-file "$work/tokens" \
        --service-account-issuer https://kubernetes.default.svc --authorization-mode RBAC \
        --service-account-key-file "$work/accounts.key" \
        --service-account-signing-key-file "$work/accounts.key" \
        --service-cluster-ip-range 10.96.0.0/16 "$@" >"$work/kube-apiserver.log" 2>&1 &
    children+=($!)
    cat >"$work/kubeconfig" <<CONFIG
apiVersion: v1
kind: Config
clusters:
- { name: alone, cluster: { server: "https://127.0.0.1:$port", certificate-authority: $work/certificates/apiserver.crt } }
users: [{ name: admin, user: { token: admin } }]
contexts: [{ name: alone, context: { cluster: alone, user: admin } }]
current-context: alone
CONFIG
    export KUBECONFIG=$work/kubeconfig
    for _ in $(seq 300); do
        if kubectl get --raw /readyz >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    tail -n 20 "$work/etcd.log" "$work/kube-apiserver.log"
    return 1
}
