# The images of images.toml. Each is a program that writes a docker archive to standard output:
#
#   nix build .#greeter-image && ./result | docker load
#
# They hold the program, the libraries it is linked to, and CA certificates: no shell, no package manager, no
# folder that the user could write to.
{
  pkgs,
  programs,
  revision,
}:
let
  inherit (pkgs) lib;
  manifest = lib.importTOML ../Cargo.toml;
  inherit (manifest.workspace.package) license version;
  inherit (lib.importTOML ./images.toml) images user;
  image =
    name:
    { program, title }:
    pkgs.dockerTools.streamLayeredImage {
      inherit name;
      tag = version;
      contents = [
        programs.${program}
        pkgs.cacert
      ];
      config = {
        Entrypoint = [ (lib.getExe programs.${program}) ];
        User = user;
        # Where rustls and others look; `--tls-ca` takes the same path.
        Env = [ "SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt" ];
        Labels = {
          "org.opencontainers.image.licenses" = license;
          "org.opencontainers.image.revision" = revision;
          "org.opencontainers.image.title" = title;
          "org.opencontainers.image.version" = version;
        };
      };
    };
in
lib.mapAttrs' (
  name: settings: lib.nameValuePair "${settings.program}-image" (image name settings)
) images
