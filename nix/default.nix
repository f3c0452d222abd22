# What flake.nix gives for one system, put together from one file per concern. Here and not in flake.nix, so
# that it can be imported with any nixpkgs.
{ pkgs, revision }:
let
  inherit (pkgs) lib;
  programs = import ./programs.nix { inherit pkgs; };
  images = import ./images.nix { inherit pkgs programs revision; };
  scripts = import ./scripts.nix { inherit pkgs images; };
in
{
  packages = programs // images;
  apps = lib.mapAttrs (_: script: {
    type = "app";
    program = lib.getExe script;
    meta = { inherit (script.meta) description; };
  }) scripts;
  # Building the scripts runs shellcheck on them.
  checks = programs // scripts // import ./checks.nix { inherit pkgs; };
  devShells.default = import ./shell.nix { inherit pkgs; };
  formatter = pkgs.nixfmt-tree;
}
