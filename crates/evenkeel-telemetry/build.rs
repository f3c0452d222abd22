//! Generates OTLP's messages with protox, so that nobody needs protoc. They are made here and not
//! in `evenkeel-proto`, because no user of a channel needs them; the crate `opentelemetry-proto`
//! has the same ones, with all of the SDK behind them (docs/adr/0032).

use std::{env, error::Error, path::PathBuf};

const FILES: [&str; 6] = [
    "opentelemetry/proto/collector/metrics/v1/metrics_service.proto",
    "opentelemetry/proto/collector/trace/v1/trace_service.proto",
    "opentelemetry/proto/common/v1/common.proto",
    "opentelemetry/proto/metrics/v1/metrics.proto",
    "opentelemetry/proto/resource/v1/resource.proto",
    "opentelemetry/proto/trace/v1/trace.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    // Read at run time: Bazel compiles this program in one folder and runs it in another.
    let manifest_dir =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let root = manifest_dir.join("../../proto");
    for file in FILES {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    let mut descriptors = protox::compile(FILES, [&root])?;
    // Examples in their comments are not Rust's, and would be run as tests of documentation.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    // The packages refer to each other by place, so they are nested as their names are.
    tonic_prost_build::configure()
        .build_transport(false)
        .include_file("otlp.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
