//! Examples end to end, as `lab run` plays them: the short phases, so that a debug build on a busy
//! machine carries them too.

use std::{env, fs, path::PathBuf, process::Command};

/// Runs the lab with `arguments` in a temporary folder of its own; returns its JSON document.
fn run(name: &str, arguments: &[&str]) -> serde_json::Value {
    let temporary = env::temp_dir().join(format!("lab-test-{name}-{}", std::process::id()));
    fs::create_dir_all(&temporary).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("run")
        .args(arguments)
        .args(["--output", "json"])
        .env("TMPDIR", &temporary)
        // What a user has exported for other greeters must not reach the lab's.
        .env("GREETER_ERROR_RATE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let document = serde_json::from_slice(&output.stdout);
    let document = document.unwrap_or_else(|error| panic!("{error}; the lab said:\n{said}"));
    assert_eq!(output.status.code(), Some(0), "{said}\n{document:#}");
    fs::remove_dir(&temporary).expect("the run's folder is gone");
    document
}

#[test]
fn baseline_shows_that_one_backend_gets_everything() {
    let document = run("baseline", &["0"]);
    let phases = document["examples"][0]["phases"].as_array().expect("phases");
    assert_eq!(phases.len(), 2);
    for phase in phases {
        let rows = phase["distributions"][0]["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 1, "{phase:#}");
        assert_eq!(rows[0]["share"], 1.0);
        assert_eq!(rows[0]["calls"], 300);
        let lines = phase["lines"].as_array().expect("lines");
        let policy = phase["name"].as_str().expect("a name");
        assert_eq!(lines[0], format!("Will use {policy} load balancing policy"));
        assert!(lines[2].as_str().is_some_and(|line| line.starts_with("Greeting: Hello you")));
    }
}

#[test]
fn round_robin_gives_each_backend_its_third() {
    let document = run("steady", &["round-robin", "--phase", "steady"]);
    let example = &document["examples"][0];
    assert_eq!(example["phases_not_run"].as_array().map(Vec::len), Some(7));
    let rows = example["phases"][0]["distributions"][0]["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 3, "{rows:#?}");
    assert_eq!(example["holds"], true);
    let spans = &example["phases"][0]["spans"];
    assert_eq!(spans["calls"], 3500, "{spans:#}");
    // What each backend got by its own spans is what the client counts for it.
    let counted = |list: &serde_json::Value| -> Vec<(String, u64)> {
        let list = list.as_array().expect("a list").iter();
        list.map(|of| (of["backend"].to_string(), of["calls"].as_u64().unwrap())).collect()
    };
    let of_client = &example["phases"][0]["distributions"][0]["rows"];
    assert_eq!(counted(&spans["backends"]), counted(of_client));
}

#[test]
fn a_run_that_is_not_traced_says_nothing_of_spans() {
    let document = run("untraced", &["baseline", "--phase", "pick_first", "--without-spans"]);
    let phase = &document["examples"][0]["phases"][0];
    assert_eq!(phase["spans"], serde_json::Value::Null);
    assert_eq!(phase["checks"].as_array().map(Vec::len), Some(1), "{phase:#}");
}

/// What `lab doctor` says of `id`.
fn examined(id: &str) -> serde_json::Value {
    let doctor = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["doctor", "--output", "json"])
        .output()
        .unwrap();
    let findings: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let findings = findings.as_array().expect("a list");
    findings.iter().find(|of| of["id"] == id).expect("it looks for it").clone()
}

/// Whether `lab doctor` finds an Envoy. A test does not install one.
fn has_envoy() -> bool {
    let envoy = examined("envoy");
    let seen = envoy["seen"].as_str().expect("a text");
    let found = seen.starts_with("Envoy ");
    if !found {
        println!("not run: {seen}; set ENVOY to one");
    }
    found
}

#[test]
fn a_sidecar_takes_exact_turns_and_is_given_nothing_deprecated() {
    if !has_envoy() {
        return;
    }
    let document = run("sidecar", &["envoy-static", "--phase", "steady"]);
    let example = &document["examples"][0];
    assert_eq!(example["number"], 2);
    let phase = &example["phases"][0];
    let calls: Vec<u64> = phase["distributions"][0]["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["calls"].as_u64())
        .collect();
    assert_eq!(calls.len(), 3, "{phase:#}");
    // Envoy counted the lines of the original client too.
    assert_eq!(phase["figures"]["envoy_calls"], (calls.iter().sum::<u64>() + 6) as f64);
    assert_eq!(example["holds"], true);
    let trace = phase["spans"]["trace_example"]["spans"].as_array().expect("one trace");
    let processes: Vec<_> = trace.iter().filter_map(|span| span["process"].as_str()).collect();
    assert_eq!(processes, ["client", "client", "envoy-egress", "envoy-egress", "greeter"]);
}

#[test]
fn a_client_that_watches_slices_uses_new_pods_within_a_second() {
    let document = run("slices", &["6", "--phase", "scale"]);
    let phase = &document["examples"][0]["phases"][0];
    assert_eq!(phase["timelines"].as_array().map(Vec::len), Some(3), "{phase:#}");
    let check = |id: &str| phase["checks"].as_array().unwrap().iter().any(|c| c["id"] == id);
    assert!(check("kubernetes.scale.to_4_within_1_s"), "{phase:#}");
    assert_eq!(document["holds"], true);
}

#[test]
fn lookaside_gives_each_backend_its_third_and_its_balancers_count_every_call() {
    let document = run("lookaside", &["lookaside", "--phase", "steady"]);
    let example = &document["examples"][0];
    assert_eq!(example["number"], 5);
    let phase = &example["phases"][0];
    let rows = phase["distributions"][0]["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 3, "{rows:#?}");
    let lines = phase["lines"].as_array().expect("lines");
    assert_eq!(lines[0], "Will use grpclb load balancing policy");
    assert!(phase["figures"]["client_stats_reports"].as_f64().is_some_and(|reports| reports > 1.0));
    assert_eq!(example["holds"], true);
}

/// The Envoy that is there already; a test installs none.
fn envoy() -> Option<PathBuf> {
    let named = env::var_os("ENVOY").map(PathBuf::from);
    let on_path = || {
        let path = env::var_os("PATH")?;
        env::split_paths(&path).map(|folder| folder.join("envoy")).find(|file| file.is_file())
    };
    named.filter(|file| file.is_file()).or_else(on_path)
}

#[test]
fn sidecars_leave_calls_unharmed() {
    let Some(envoy) = envoy() else {
        eprintln!("skipped: no Envoy in $ENVOY or $PATH");
        return;
    };
    let envoy = envoy.to_str().expect("a path in UTF-8");
    let document = run("unharmed", &["2", "istio", "--phase", "unharmed", "--envoy", envoy]);
    for (example, checks_min) in [(0, 7), (1, 8)] {
        let checks = &document["examples"][example]["phases"][0]["checks"];
        let checks = checks.as_array().expect("checks");
        assert!(checks.len() >= checks_min, "{checks:#?}");
    }
    assert_eq!(document["holds"], true);
}

#[test]
fn a_mesh_serves_nobody_without_the_right_identity() {
    let Some(envoy) = envoy() else {
        eprintln!("skipped: no Envoy in $ENVOY or $PATH");
        return;
    };
    let envoy = envoy.to_str().expect("a path in UTF-8");
    let document = run("strangers", &["4", "--phase", "strangers", "--envoy", envoy]);
    let checks = document["examples"][0]["phases"][0]["checks"].as_array().expect("checks");
    let ids: Vec<&str> = checks.iter().filter_map(|check| check["id"].as_str()).collect();
    assert!(ids.contains(&"mesh.strangers.refused"), "{ids:?}");
    assert!(ids.contains(&"mesh.strangers.impostor_unused"), "{ids:?}");
}

#[test]
fn a_mesh_plays_under_istiod_and_says_what_it_could_not_show() {
    let istiod = examined("istiod");
    if istiod["ok"] != true || !has_envoy() {
        eprintln!("skipped: {}", istiod["seen"]);
        return;
    }
    let document = run("istiod", &["mesh", "--control-plane", "istiod", "--phase", "steady"]);
    let example = &document["examples"][0];
    assert!(example["control_plane"].as_str().is_some_and(|who| who.contains("istiod")));
    let rows = example["phases"][0]["distributions"][0]["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 3, "{rows:#?}");
    let not_run = example["checks_not_run"].as_array().expect("checks");
    assert!(not_run.iter().any(|of| of["id"] == "mesh.steady.mutual_tls"), "{not_run:#?}");
    assert_eq!(example["holds"], true);
}

#[test]
fn a_measurement_without_envoy_compares_the_channel_with_the_floor() {
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args([
            "bench",
            "--without",
            "sidecar",
            "--without",
            "mesh",
            "--rounds",
            "1",
            "--seconds",
            "1",
        ])
        .args(["--rate", "50", "--output", "json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(document["schema"], "evenkeel-bench/1");
    for load in document["loads"].as_array().expect("loads") {
        let ways = load["ways"].as_array().expect("ways");
        let names: Vec<_> = ways.iter().map(|way| way["way"].as_str().unwrap()).collect();
        assert_eq!(names, ["bare", "direct"]);
        for way in ways {
            let backends = way["slices"][0]["seen"]["by_backend"].as_object().expect("backends");
            let counts: Vec<_> = backends.values().map(|calls| calls.as_u64().unwrap()).collect();
            assert_eq!(counts.len(), 3, "{way:#}");
            // Both take turns; callers in parallel may pass each other.
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 64, "{counts:?}");
            let client = &way["processes"]["client"];
            assert!(client["rss_mib"]["median"].as_f64().is_some_and(|mib| mib > 1.0), "{client}");
        }
    }
}
