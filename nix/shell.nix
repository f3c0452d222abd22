# `nix develop`: what the pages of this repository call, beside the Rust that rust-toolchain.toml names.
{ pkgs }:
let
  inherit (pkgs) lib;
in
pkgs.mkShell {
  packages = [
    pkgs.cargo
    pkgs.clippy
    pkgs.curl
    pkgs.git
    pkgs.grpcurl
    pkgs.istioctl
    pkgs.just
    pkgs.kind
    pkgs.kubectl
    pkgs.kustomize
    pkgs.openssl
    pkgs.python3
    pkgs.rustc
    pkgs.rustfmt
    pkgs.shellcheck
  ]
  # Not for macOS; and `envoy` itself would be hours of compiling.
  ++ lib.optionals pkgs.stdenv.isLinux [ pkgs.envoy-bin ];
}
