# Apps. Each is a script that shellcheck has read, with the programs that it calls.
{ pkgs, images }:
let
  inherit (pkgs) lib;
in
{
  images = pkgs.writeShellApplication {
    name = "images";
    meta.description = "Write the image archives to $IMAGE_DIR, or load them into a kind cluster";
    runtimeInputs = [ pkgs.kind ];
    text = ''
      ${builtins.readFile ./load-image.sh}
      ${lib.concatLines (lib.mapAttrsToList (name: image: "load_image ${name} ${image}") images)}
    '';
  };
}
