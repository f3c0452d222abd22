{
  description = "gRPC load balancing on Kubernetes, in Rust";

  # The only input: each further one would be a second thing to update and to trust.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ];
      each =
        attribute:
        nixpkgs.lib.genAttrs systems (
          system:
          (import ./nix {
            pkgs = nixpkgs.legacyPackages.${system};
            revision = self.rev or "dirty"; # a tree with changes has no rev
          }).${attribute}
        );
    in
    {
      packages = each "packages";
      apps = each "apps";
      checks = each "checks";
      devShells = each "devShells";
      formatter = each "formatter";
    };
}
