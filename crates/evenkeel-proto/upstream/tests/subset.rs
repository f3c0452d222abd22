//! Every message, field, enum value and method of our subset is upstream's: the same number, type,
//! label and oneof. A wrong number would not be seen by a test of our own, because both ends of it
//! would be wrong alike.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};
use protox::compile;

/// Roots of the imports in `envoy-types`' folder `proto`.
const ROOTS: [&str; 7] = [
    "cel-spec/proto",
    "client_model",
    "data-plane-api",
    "googleapis",
    "opentelemetry-proto",
    "protoc-gen-validate",
    "xds",
];

/// Full name → one line for each thing of it that is on the wire.
type Api = BTreeMap<String, Vec<String>>;

fn our_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto").canonicalize().expect("there")
}

fn protos(folder: &Path, root: &Path, found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            protos(&path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path.strip_prefix(root).expect("below").to_owned());
        }
    }
}

/// Where cargo has unpacked envoy-types.
fn upstream_root() -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--locked", "--format-version", "1"]);
    let out = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let packages = json["packages"].as_array().expect("packages");
    let found = packages.iter().find(|one| one["name"] == "envoy-types").expect("it is locked");
    let manifest = Path::new(found["manifest_path"].as_str().expect("a path"));
    manifest.parent().expect("a folder").join("proto")
}

fn api(set: &FileDescriptorSet) -> Api {
    let mut api = Api::new();
    for file in &set.file {
        let package = file.package();
        for message in &file.message_type {
            add_message(package, message, &mut api);
        }
        for one in &file.enum_type {
            add_enum(package, one, &mut api);
        }
        for service in &file.service {
            let methods = service.method.iter().map(|method| {
                let (from, to) = (method.client_streaming(), method.server_streaming());
                let (takes, gives) = (method.input_type(), method.output_type());
                format!("rpc {} {takes} {from} {gives} {to}", method.name())
            });
            api.insert(format!("{package}.{}", service.name()), methods.collect());
        }
    }
    api
}

fn add_message(scope: &str, message: &DescriptorProto, api: &mut Api) {
    let name = format!("{scope}.{}", message.name());
    let fields = message.field.iter().map(|field| {
        let oneof = field.oneof_index.map(|index| message.oneof_decl[index as usize].name());
        let (label, kind) = (field.label(), field.r#type());
        let of = field.type_name();
        format!("{} {} {label:?} {kind:?} {of} {oneof:?}", field.number(), field.name())
    });
    api.insert(name.clone(), fields.collect());
    for nested in &message.nested_type {
        add_message(&name, nested, api);
    }
    for nested in &message.enum_type {
        add_enum(&name, nested, api);
    }
}

fn add_enum(scope: &str, one: &EnumDescriptorProto, api: &mut Api) {
    let values = one.value.iter().map(|value| format!("{} {}", value.number(), value.name()));
    api.insert(format!("{scope}.{}", one.name()), values.collect());
}

#[test]
fn each_message_and_field_of_the_subset_is_upstreams() {
    let root = our_root();
    let mut ours = Vec::new();
    for folder in ["envoy", "google/rpc"] {
        protos(&root.join(folder), &root, &mut ours);
    }
    let ours = compile(&ours, [&root]).expect("our files compile");
    // Files of other packages are left out: protox resolves a name in one of them differently.
    let packages: BTreeSet<_> = ours.file.iter().map(|file| file.package().to_owned()).collect();
    let ours = api(&ours);

    let upstream = upstream_root();
    let roots: Vec<PathBuf> = ROOTS.iter().map(|root| upstream.join(root)).collect();
    let api_root = upstream.join("data-plane-api");
    let mut files = Vec::new();
    for folder in ["envoy/config", "envoy/service", "envoy/type", "envoy/extensions"] {
        protos(&api_root.join(folder), &api_root, &mut files);
    }
    files.retain(|file| {
        let text = std::fs::read_to_string(api_root.join(file)).expect("readable");
        let package = text.lines().find_map(|line| line.strip_prefix("package "));
        package.is_some_and(|package| packages.contains(package.trim_end_matches(';')))
    });
    let mut theirs = api(&compile(&files, &roots).expect("upstream's files compile"));
    let rpc = compile(["google/rpc/status.proto"], [upstream.join("googleapis")]);
    theirs.extend(api(&rpc.expect("upstream's status compiles")));

    let mut wrong = Vec::new();
    for (name, lines) in &ours {
        let Some(known) = theirs.get(name) else {
            wrong.push(format!("{name} is not upstream's"));
            continue;
        };
        for line in lines.iter().filter(|line| !known.contains(line)) {
            wrong.push(format!("{name}: {line}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ from upstream:\n{}", wrong.len(), wrong.join("\n"));
    assert!(ours.len() > 80 && ours.values().map(Vec::len).sum::<usize>() > 300, "all is compared");
}
