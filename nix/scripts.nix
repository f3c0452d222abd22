# Apps. Each is a script that shellcheck has read, with the programs that it calls.
{ pkgs, images }:
let
  inherit (pkgs) lib;
  inherit (import ./manifests.nix { inherit pkgs; }) source;
  examples = {
    round-robin.example = 1;
    envoy-static.example = 2;
    envoy-static.client = "greeter-client-with-envoy-static";
    envoy-dynamic.example = 3;
    envoy-dynamic.client = "greeter-client-with-envoy-dynamic";
    envoy-dynamic.mesh = "istio";
    istio.example = 4;
    istio.mesh = "istio";
    istio.server = "greeter-server-istio";
    lookaside.example = 5;
    lookaside.client = "greeter-client-lookaside-lb";
    kubernetes.example = 6;
  };
  bringImages = ''
    ${builtins.readFile ./load-image.sh}
    # bring_images CONTEXT
    bring_images() {
      ${lib.concatLines (
        lib.mapAttrsToList (
          _: image: "load_image ${baseNameOf image.imageName} ${image.imageTag} ${image} \"$1\""
        ) images
      )}
    }
  '';
  # PROGRAM NAME TAG, a line for each.
  imageList = lib.concatStringsSep "\n" (
    lib.mapAttrsToList (
      attribute: image:
      "${lib.removeSuffix "-image" attribute} ${baseNameOf image.imageName} ${image.imageTag}"
    ) images
  );
  deploy =
    overlay:
    {
      example,
      client ? "greeter-client-${overlay}",
      server ? "greeter-server",
      mesh ? "",
    }:
    pkgs.writeShellApplication {
      name = "deploy-${overlay}";
      meta.description = "Deploy example ${toString example} (${overlay}) to the current cluster";
      # Not k3d and minikube: who has such a cluster has its program.
      runtimeInputs = [
        pkgs.kind
        pkgs.kubectl
        pkgs.kustomize
        pkgs.skopeo
      ];
      text = ''
        example=${toString example}
        overlay=${overlay}
        client=${client}
        server=${server}
        mesh=${mesh}
        manifests=${source}/kustomize/overlays/${overlay}
        ${bringImages}
        ${builtins.readFile ./deploy.sh}
      '';
    };
  byName = lib.mapAttrs' (
    overlay: settings: lib.nameValuePair "deploy-${overlay}" (deploy overlay settings)
  ) examples;
  byNumber = lib.mapAttrs' (
    overlay: settings:
    lib.nameValuePair "deploy-example-${toString settings.example}" byName."deploy-${overlay}"
  ) examples;
in
byName
// byNumber
// {
  images = pkgs.writeShellApplication {
    name = "images";
    meta.description = "Write the image archives to $IMAGE_DIR, or load them into the kind cluster $KIND_CLUSTER";
    runtimeInputs = [
      pkgs.kind
      pkgs.skopeo
    ];
    text = ''
      ${bringImages}
      if [[ -n ''${IMAGE_DIR-} || -n ''${DRY_RUN-} ]]; then
        bring_images print
      else
        bring_images "kind-''${KIND_CLUSTER-kind}"
      fi
    '';
  };
  bazel-images = pkgs.writeShellApplication {
    name = "bazel-images";
    meta.description = "The same images with the binaries that Bazel builds";
    runtimeInputs = [
      pkgs.bazelisk
      pkgs.kind
      pkgs.skopeo
    ];
    text = ''
      images='${imageList}'
      ${builtins.readFile ./load-image.sh}
      ${builtins.readFile ./pack-bazel.sh}
    '';
  };
}
