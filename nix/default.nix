# What flake.nix gives for one system, put together from one file per concern. Here and not in flake.nix, so
# that it can be imported with any nixpkgs.
{ pkgs, revision }:
let
  inherit (pkgs) lib;
  inherit (import ./programs.nix { inherit pkgs; }) programs tests xtask;
  images = import ./images.nix { inherit pkgs programs revision; };
  scripts = import ./scripts.nix { inherit pkgs images; };
  app = description: program: {
    type = "app";
    program = lib.getExe program;
    meta = { inherit description; };
  };
in
{
  packages = programs // images;
  apps = lib.mapAttrs (_: script: app script.meta.description script) scripts // {
    lab = app "Run and measure the examples on this machine, or on a cluster" programs.lab;
  };
  # Building the scripts runs shellcheck on them.
  checks = programs // scripts // import ./checks.nix { inherit pkgs tests xtask; };
  devShells.default = import ./shell.nix { inherit pkgs; };
  formatter = pkgs.nixfmt-tree;
}
