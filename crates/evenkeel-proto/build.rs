//! Generates the protocols' messages and stubs with protox, so that nobody needs protoc, and keeps
//! the descriptor sets of services that tools ask a server for.

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

use prost::Message as _;

const CHANNELZ: &str = "grpc/channelz/v1/channelz.proto";
const LOAD_BALANCER: &str = "grpc/lb/v1/load_balancer.proto";

const FILES: [&str; 5] = [
    CHANNELZ,
    "grpc/health/v1/health.proto",
    LOAD_BALANCER,
    "xds/data/orca/v3/orca_load_report.proto",
    "xds/service/orca/v3/orca.proto",
];

/// Imported by `FILES`; no Rust module is made of it.
const IMPORTS: [&str; 1] = ["validate/validate.proto"];

/// Where our subset of Envoy's API is, with all its files.
const ENVOY: [&str; 2] = ["envoy", "google/rpc"];

fn main() -> Result<(), Box<dyn Error>> {
    // Read at run time: Bazel compiles this program in one folder and runs it in another.
    let manifest_dir =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    // A link to the repository's `proto/`, so that the files are in the published archive as well.
    let root = manifest_dir.join("proto");
    for file in FILES.iter().chain(&IMPORTS) {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    for (file, set) in [(CHANNELZ, "channelz.bin"), (LOAD_BALANCER, "load_balancer.bin")] {
        let descriptors = protox::compile([file], [&root])?;
        fs::write(out_dir.join(set), descriptors.encode_to_vec())?;
    }
    let descriptors = protox::compile(FILES, [&root])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    let mut envoy = Vec::new();
    for folder in ENVOY {
        find_protos(&root, Path::new(folder), &mut envoy)?;
    }
    envoy.sort();
    let descriptors = protox::compile(envoy, [&root])?;
    fs::write(out_dir.join("envoy.bin"), descriptors.encode_to_vec())?;
    // One file with the modules as they are nested: twenty packages refer to each other by place.
    let envoy = tonic_prost_build::configure().build_transport(false).include_file("envoy.rs");
    // What the balancer sends has a version that is made of the bytes, so their order is fixed.
    let envoy = envoy.btree_map(".envoy.config").btree_map(".envoy.extensions");
    envoy.compile_fds(descriptors)?;
    Ok(())
}

/// Adds all `.proto` files below `folder`, as paths from `root`.
fn find_protos(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", root.join(folder).display());
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.path().is_dir() {
            find_protos(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}
