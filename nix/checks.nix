# Beside the programs and scripts: tests, every overlay and test of kustomize/, and that Cargo, Bazel, Nix,
# Kustomize and the READMEs agree. What an API server says to the overlays needs one; `.ci/manifests` asks it.
{
  pkgs,
  tests,
  xtask,
}:
let
  inherit (import ./manifests.nix { inherit pkgs; }) source;
in
{
  inherit tests;
  drift =
    pkgs.runCommand "drift"
      {
        nativeBuildInputs = [ xtask ];
      }
      ''
        xtask drift ${../.} >$out
      '';
  kustomize =
    pkgs.runCommand "kustomize-builds"
      {
        nativeBuildInputs = [ pkgs.kustomize ];
      }
      ''
        cd ${source}/kustomize
        mkdir $out
        for folder in overlays/* tests/*; do
          kustomize build "$folder" >"$out/''${folder//\//-}.yaml"
        done
      '';
}
