//! Generates the messages and stubs of gRPC's interop tests with protox, so that nobody needs
//! protoc. They are made here and not in `evenkeel-proto`, because no user of a channel needs them.

use std::{env, error::Error, path::PathBuf};

const FILES: [&str; 3] =
    ["grpc/testing/empty.proto", "grpc/testing/messages.proto", "grpc/testing/test.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    // Read at run time: Bazel compiles this program in one folder and runs it in another.
    let manifest_dir =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let root = manifest_dir.join("../proto");
    for file in FILES {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(FILES, [&root])?;
    // A method that the server leaves out answers UNIMPLEMENTED, which is a case of its own.
    tonic_prost_build::configure()
        .build_transport(false)
        .generate_default_stubs(true)
        .compile_fds(descriptors)?;
    Ok(())
}
