//! `lab explain` from the command line to the exit code, with a program in kubectl's place: what is
//! asked of a cluster, what a refusal leads to, and that nothing but reading is asked for.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const SERVICE: &str = r#"{"metadata":{"name":"greeter","namespace":"web"},"spec":{
    "type":"ClusterIP","clusterIP":"None","selector":{"app":"greeter"},
    "ports":[{"name":"grpc","port":8000,"targetPort":"grpc"}]}}"#;
const SLICE: &str = r#"{"ports":[{"name":"grpc","port":8000}],"endpoints":[
    {"addresses":["10.0.0.1"],"conditions":{"ready":true}},
    {"addresses":["10.0.0.2"],"conditions":{"ready":true}}]}"#;
const CLIENT: &str = r#"{"kind":"Deployment","metadata":{"name":"shop","namespace":"web"},"spec":{
    "template":{"metadata":{"labels":{"app":"shop"}},"spec":{"containers":[{"name":"client",
    "image":"evenkeel-client","env":[
    {"name":"GREETER_SERVICE_TARGET","value":"kubernetes:///greeter:grpc"}]}]}}}}"#;

/// A folder with a program `kubectl` that answers from files beside it, and notes what it is asked.
struct Double(PathBuf);

impl Double {
    /// `may` is what `auth can-i` answers.
    fn new(may: &str) -> Self {
        let name = format!("lab-explain-{}-{may}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a new folder");
        let pod = |ip: &str| {
            format!(
                r#"{{"metadata":{{"name":"greeter-{ip}","namespace":"web",
                "labels":{{"app":"greeter"}},"ownerReferences":[{{"kind":"ReplicaSet"}}]}},
                "spec":{{"containers":[{{"name":"g","ports":[
                {{"name":"grpc","containerPort":8000}}]}}]}},
                "status":{{"podIP":"{ip}","conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
            )
        };
        let pods = [pod("10.0.0.1"), pod("10.0.0.2")].join(",");
        for (file, items) in
            [("services", SERVICE), ("slices", SLICE), ("pods", &pods), ("workloads", CLIENT)]
        {
            let list = format!(r#"{{"kind":"List","items":[{items}]}}"#);
            fs::write(folder.join(file), list).expect("a new file");
        }
        let script = format!(
            r#"#!/bin/sh
here={}
echo "$*" >>$here/asked
case "$*" in
    *"get services --all-namespaces"*)
        echo 'Error from server (Forbidden): services is forbidden' >&2; exit 1;;
    *"get services -n web"*) cat $here/services;;
    *"get endpointslices"*) cat $here/slices;;
    *"get pods -n web"*) cat $here/pods;;
    *"get deployments"*) cat $here/workloads;;
    *"get namespaces"*) echo '{{"items":[]}}';;
    *"auth can-i"*) echo {may}; test {may} = yes;;
    *) echo "error: not expected: $*" >&2; exit 1;;
esac
"#,
            folder.display()
        );
        let program = folder.join("kubectl");
        fs::write(&program, script).expect("a new file");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its owner may");
        Self(folder)
    }

    fn explain(&self, service: &str, further: &[&str]) -> Output {
        let kubectl = self.0.join("kubectl");
        Command::new(env!("CARGO_BIN_EXE_lab"))
            .args(["explain", service, "--context", "here", "--kubectl"])
            .arg(&kubectl)
            .args(further)
            .output()
            .expect("the lab starts")
    }

    fn asked(&self) -> Vec<String> {
        let asked = fs::read_to_string(Path::new(&self.0).join("asked")).expect("it was asked");
        asked.lines().map(str::to_owned).collect()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn a_missing_right_is_exit_1_with_the_cure_and_only_reading_was_asked_for() {
    let double = Double::new("no");
    let output = double.explain("web/greeter", &[]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("× access     deployment/shop in web"), "{text}");
    assert!(text.contains("--serviceaccount=web:default"), "{text}");
    assert!(text.contains("- not read: services of other namespaces"), "{text}");
    let asked = double.asked();
    for command in &asked {
        let reads = ["--context here get ", "--context here auth can-i "];
        assert!(reads.iter().any(|of| command.starts_with(of)), "{command}");
    }
    let account = "--as=system:serviceaccount:web:default";
    assert_eq!(asked.iter().filter(|command| command.ends_with(account)).count(), 2, "{asked:?}");
}

#[test]
fn with_the_right_it_is_exit_0_and_the_document_says_what_could_not_be_seen() {
    let double = Double::new("yes");
    let output = double.explain("web/greeter", &["--output", "json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(output.status.code(), Some(0), "{found:#}");
    assert_eq!((&found["schema"], &found["holds"]), (&"evenkeel-explain/1".into(), &true.into()));
    let mark = |rule: &str| {
        let findings = found["findings"].as_array().expect("a list");
        findings.iter().find(|of| of["rule"] == rule).expect("every rule")["mark"].clone()
    };
    assert_eq!(mark("access"), "holds");
    // Other namespaces are not seen, so nothing is said of who looks there.
    assert_eq!(mark("namespace"), "not_judged");
    assert_eq!(found["unread"][0]["what"], "services of other namespaces");
}

#[test]
fn a_service_that_is_not_there_is_exit_1_with_those_that_are() {
    let double = Double::new("gone");
    let output = double.explain("web/greter", &[]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("there is no Service greter in web; it has: greeter"), "{text}");
}
