# kustomize/ as a source of its own: what is not in it can't be part of an overlay, and changes nothing.
{ pkgs }:
let
  inherit (pkgs) lib;
in
{
  source = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../envoy # a Component lies in it
      ../kustomize
    ];
  };
}
