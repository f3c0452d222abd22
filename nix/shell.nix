# `nix develop`: what the pages of this repository call, beside the Rust that rust-toolchain.toml names.
{ pkgs }:
pkgs.mkShell {
  packages = [
    pkgs.cargo
    pkgs.clippy
    pkgs.curl
    pkgs.git
    pkgs.grpcurl
    pkgs.just
    pkgs.kind
    pkgs.kubectl
    pkgs.kustomize
    pkgs.python3
    pkgs.rustc
    pkgs.rustfmt
    pkgs.shellcheck
  ];
}
