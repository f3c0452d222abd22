//! `cargo xtask compile-time`: what a user pays at compile time for evenkeel beside tonic's own
//! channel. Two small packages, each built from nothing in a folder of its own, in turn, because a
//! machine's speed changes while one waits. Not a part of CI: it takes minutes.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Builds of each package.
const ROUNDS: usize = 3;

/// What is built: a name, the dependencies, and a program that uses them.
struct Candidate {
    name: &'static str,
    dependencies: String,
    program: &'static str,
}

fn candidates(root: &Path) -> [Candidate; 2] {
    let tonic = |features: &str| {
        format!("tonic = {{ version = \"0.14.9\", default-features = false, features = {features} }}")
    };
    let tokio = "tokio = { version = \"1.54\", features = [\"macros\", \"rt-multi-thread\"] }";
    [
        Candidate {
            name: "tonic",
            dependencies: format!("{}\n{tokio}\n", tonic("[\"channel\", \"codegen\"]")),
            program: "#[tokio::main]\nasync fn main() {\n    let endpoint = \
                      tonic::transport::Endpoint::from_static(\"http://localhost:1\");\n    \
                      println!(\"{:?}\", endpoint.connect_lazy());\n}\n",
        },
        Candidate {
            name: "evenkeel",
            dependencies: format!(
                "evenkeel = {{ path = {:?} }}\n{}\n{tokio}\n",
                root.join("crates/evenkeel"),
                tonic("[\"codegen\"]")
            ),
            program: "#[tokio::main]\nasync fn main() {\n    let channel = \
                      evenkeel::Channel::builder(\"dns:///localhost:1\").build();\n    \
                      println!(\"{channel:?}\");\n}\n",
        },
    ]
}

/// Builds both, [`ROUNDS`] times in turn; a table as text.
///
/// # Errors
///
/// A folder can't be written, or a package does not build.
pub fn measure(root: &Path) -> Result<String, String> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let folder = env::temp_dir().join(format!("compile-time-{}", std::process::id()));
    let candidates = candidates(root);
    let mut packages = Vec::new();
    for candidate in &candidates {
        packages.push(prepare(root, &folder, candidate)?);
    }
    let mut rows = Vec::new();
    for (profile, flag) in [("debug", None), ("release", Some("--release"))] {
        let mut times = [Vec::new(), Vec::new()];
        for round in 1..=ROUNDS {
            for (n, candidate) in candidates.iter().enumerate() {
                let time = build(&folder.join(candidate.name), flag)?;
                eprintln!("{profile}, round {round}: {} {:.1} s", candidate.name, seconds(time));
                times[n].push(time);
            }
        }
        rows.push(row(profile, &times));
    }
    // Left when a build failed, for whoever looks why.
    fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(format!(
        "{ROUNDS} builds of each from nothing, in turn, on {cores} cores; medians\n\n| profile | \
         tonic, {} packages | evenkeel, {} packages | evenkeel/tonic, by round |\n| --- | --- | \
         --- | --- |\n{}",
        packages[0],
        packages[1],
        rows.join("\n")
    ))
}

/// Writes the package and fetches what it needs; how many packages it is built from.
fn prepare(root: &Path, folder: &Path, candidate: &Candidate) -> Result<usize, String> {
    let folder = folder.join(candidate.name);
    let written = fs::create_dir_all(folder.join("src"))
        .and_then(|()| fs::write(folder.join("src/main.rs"), candidate.program))
        .and_then(|()| fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")))
        .and_then(|_| {
            let head = "[package]\nname = \"compile-time\"\nedition = \"2024\"\n\n[workspace]\n\n";
            let text = format!("{head}[dependencies]\n{}", candidate.dependencies);
            fs::write(folder.join("Cargo.toml"), text)
        });
    written.map_err(|e| format!("{}: {e}", folder.display()))?;
    run(&folder, &["fetch", "--quiet"])?;
    let listed = cargo(&folder, &["tree", "--prefix=none", "--edges=normal,build"]).output();
    let listed = listed.map_err(|e| format!("cargo tree cannot be run: {e}"))?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    let mut packages: Vec<&str> =
        listed.lines().filter_map(|line| line.split(" (").next()).collect();
    packages.sort_unstable();
    packages.dedup();
    // Without the package itself.
    Ok(packages.len().saturating_sub(1))
}

fn build(folder: &Path, flag: Option<&str>) -> Result<Duration, String> {
    let target = folder.join("target");
    if target.exists() {
        fs::remove_dir_all(&target).map_err(|e| format!("{}: {e}", target.display()))?;
    }
    let began = Instant::now();
    let mut arguments = vec!["build", "--quiet", "--offline"];
    arguments.extend(flag);
    run(folder, &arguments)?;
    Ok(began.elapsed())
}

fn cargo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(arguments)
        .current_dir(folder)
        .env_remove("CARGO_BUILD_TARGET")
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let status = cargo(folder, arguments).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{}: cargo {arguments:?}: {status}", folder.display())),
        Err(error) => Err(format!("cargo cannot be run: {error}")),
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// One line of the table: medians, and the ratio of each round.
fn row(profile: &str, times: &[Vec<Duration>; 2]) -> String {
    let median = |times: &[Duration]| {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().map_or(0.0, seconds)
    };
    let ratio = |(theirs, ours): (&Duration, &Duration)| {
        format!("{:.2}", seconds(*ours) / seconds(*theirs))
    };
    let ratios: Vec<String> = times[0].iter().zip(&times[1]).map(ratio).collect();
    let (theirs, ours) = (median(&times[0]), median(&times[1]));
    format!("| {profile} | {theirs:.1} s | {ours:.1} s | {} |", ratios.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_medians_and_each_rounds_ratio() {
        let times = |list: [u64; 3]| list.map(Duration::from_secs).to_vec();
        let shown = row("debug", &[times([10, 30, 20]), times([15, 30, 50])]);
        assert_eq!(shown, "| debug | 20.0 s | 30.0 s | 1.50, 1.00, 2.50 |");
    }
}
