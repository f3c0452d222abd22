# Beside the programs and scripts: every overlay and test of kustomize/ builds. What an API server says to
# them needs one; `.ci/manifests` asks it.
{ pkgs }:
let
  inherit (import ./manifests.nix { inherit pkgs; }) source;
in
{
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
