# `nix develop`: what the pages of this repository call, beside the Rust that rust-toolchain.toml names.
{ pkgs }:
let
  inherit (pkgs) lib;
in
pkgs.mkShell {
  packages = [
    pkgs.bazel-buildtools
    pkgs.bazelisk
    pkgs.cargo
    pkgs.cargo-deny
    pkgs.clippy
    pkgs.curl
    pkgs.deadnix
    pkgs.git
    pkgs.go # the peers
    pkgs.grpcurl
    pkgs.istioctl
    pkgs.jq
    pkgs.just
    pkgs.kind
    pkgs.kubectl
    pkgs.kustomize
    pkgs.nixfmt
    pkgs.openssl
    pkgs.python3
    pkgs.rustc
    pkgs.rustfmt
    pkgs.shellcheck
    pkgs.skopeo
  ]
  # Not for macOS; and `envoy` itself would be hours of compiling.
  ++ lib.optionals pkgs.stdenv.isLinux [ pkgs.envoy-bin ];
}
