# The services' programs. One derivation builds them all: buildRustPackage keeps no cache of dependencies, so
# one for each program would compile every crate again.
{ pkgs }:
let
  inherit (pkgs) lib;
  manifest = lib.importTOML ../Cargo.toml;
  inherit (manifest.workspace.package) version;
  names = [
    "client"
    "greeter"
    "grpclb"
    "lab"
  ];
  fromCargo = pkgs.rustPlatform.buildRustPackage {
    pname = "evenkeel-services";
    inherit version;
    # All members of the workspace, because cargo wants to see each of them, and nothing that is no source: a
    # change in docs/ or kustomize/ builds nothing again.
    src = lib.fileset.toSource {
      root = ../.;
      fileset = lib.fileset.unions [
        ../Cargo.lock
        ../Cargo.toml
        ../conformance
        ../crates
        ../envoy # the lab carries these files
        ../examples
        ../fuzz
        ../lab
        ../proto
        ../services
        ../xtask
      ];
    };
    # Cargo.lock has the hashes already.
    cargoLock.lockFile = ../Cargo.lock;
    cargoBuildFlags = lib.concatMap (name: [
      "--package"
      name
    ]) names;
    # `cargo test` and Bazel run the tests; here they would need a network namespace with addresses.
    doCheck = false;
  };
  # The linker makes the build id over debug information, which names the build's folder and is stripped
  # later: the id finds nothing any more, and is all that differs between two folders.
  one =
    name:
    pkgs.runCommand "${name}-${version}"
      {
        meta.mainProgram = name;
      }
      ''
        install -Dm755 ${fromCargo}/bin/${name} $out/bin/${name}
        ${lib.optionalString pkgs.stdenv.isLinux ''
          objcopy --remove-section .note.gnu.build-id $out/bin/${name}
        ''}
      '';
in
lib.genAttrs names one
