# The programs. One derivation builds them all: buildRustPackage keeps no cache of dependencies, so one for
# each program would compile every crate again.
{ pkgs }:
let
  inherit (pkgs) lib;
  manifest = lib.importTOML ../Cargo.toml;
  inherit (manifest.workspace.package) version;
  # Those that are shipped; //:binaries of BUILD.bazel has the same, which `xtask drift` compares.
  names = [
    "client"
    "greeter"
    "grpclb"
    "lab"
  ];
  package = name: [
    "--package"
    name
  ];
  workspace = {
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
    cargoBuildFlags = lib.concatMap package (names ++ [ "xtask" ]);
  };
  fromCargo = pkgs.rustPlatform.buildRustPackage (
    workspace
    // {
      pname = "evenkeel-services";
      # A user who deploys an example does not wait for tests; `tests` below runs them.
      doCheck = false;
    }
  );
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
  # `nix run .#bazel-images` sets this folder and evaluates with --impure; pure evaluation sees "".
  bazelBinaries = builtins.getEnv "BAZEL_BINARIES";
  # A Bazel binary names the loader of the machine that built it; autoPatchelf points it at the image's.
  fromBazel =
    name:
    pkgs.stdenv.mkDerivation {
      pname = name;
      version = "${version}-bazel";
      src = builtins.path {
        path = bazelBinaries + "/${name}";
        inherit name;
      };
      dontUnpack = true;
      nativeBuildInputs = [ pkgs.autoPatchelfHook ];
      buildInputs = [ pkgs.stdenv.cc.cc.lib ];
      installPhase = "install -Dm755 $src $out/bin/${name}";
      meta.mainProgram = name;
    };
in
{
  programs = lib.genAttrs names (if bazelBinaries == "" then one else fromBazel);
  xtask = one "xtask";
  # The packages without sockets, so that a sandbox's network does not matter; cargo and Bazel run the others.
  tests = pkgs.rustPlatform.buildRustPackage (
    workspace
    // {
      pname = "evenkeel-tests";
      cargoTestFlags = lib.concatMap package [
        "evenkeel-core"
        "evenkeel-proto"
        "evenkeel-sim"
      ];
    }
  );
}
