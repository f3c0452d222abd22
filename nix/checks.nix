# Beside the programs and scripts: every overlay and test of kustomize/ builds. What an API server says to
# them needs one; `.ci/manifests` asks it.
{ pkgs }:
let
  inherit (pkgs) lib;
  source = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../envoy # a Component lies in it
      ../kustomize
    ];
  };
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
