//! `cargo xtask compile-time`: what a user pays at compile time for evenkeel beside tonic's own
//! channel. Two small packages, each built from nothing in a folder of its own, in turn, because a
//! machine's speed changes while one waits; CPU time beside the clock's, because that depends less
//! on what else runs. Not a part of CI: it takes minutes.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Builds of each package, unless another number is asked for.
pub const ROUNDS: usize = 3;

/// What one build took: by the clock, and CPU of all processes (Linux; elsewhere 0).
#[derive(Clone, Copy)]
struct Cost {
    clock: Duration,
    cpu: Duration,
}

/// What is built: a name, the dependencies, and a program that uses them.
struct Candidate {
    name: &'static str,
    dependencies: String,
    program: &'static str,
}

fn candidates(root: &Path) -> [Candidate; 2] {
    let tonic = |features: &str| {
        format!(
            "tonic = {{ version = \"0.14.9\", default-features = false, features = {features} }}"
        )
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

/// Builds both, `rounds` times in turn; a table as text.
///
/// # Errors
///
/// A folder can't be written, or a package does not build.
pub fn measure(root: &Path, rounds: usize) -> Result<String, String> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let folder = env::temp_dir().join(format!("compile-time-{}", std::process::id()));
    // The packages are built elsewhere and name evenkeel's folder.
    let root = root.canonicalize().map_err(|e| format!("{}: {e}", root.display()))?;
    let candidates = candidates(&root);
    let mut packages = Vec::new();
    for candidate in &candidates {
        packages.push(prepare(&root, &folder, candidate)?);
    }
    let mut rows = Vec::new();
    for (profile, flag) in [("debug", None), ("release", Some("--release"))] {
        let mut costs = [Vec::new(), Vec::new()];
        for round in 1..=rounds {
            for (n, candidate) in candidates.iter().enumerate() {
                let cost = build(&folder.join(candidate.name), flag)?;
                let (clock, cpu) = (cost.clock.as_secs_f64(), cost.cpu.as_secs_f64());
                let name = candidate.name;
                eprintln!("{profile}, round {round}: {name} {clock:.1} s, CPU {cpu:.1} s");
                costs[n].push(cost);
            }
        }
        rows.push(row(profile, &costs));
    }
    // Left when a build failed, for whoever looks why.
    fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(format!(
        "{rounds} builds of each from nothing, in turn, on {cores} cores; medians\n\n| profile | \
         tonic, {} packages | evenkeel, {} packages | CPU, evenkeel/tonic, by round |\n| --- | \
         --- | --- | --- |\n{}",
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

fn build(folder: &Path, flag: Option<&str>) -> Result<Cost, String> {
    let target = folder.join("target");
    if target.exists() {
        fs::remove_dir_all(&target).map_err(|e| format!("{}: {e}", target.display()))?;
    }
    let (began, cpu) = (Instant::now(), cpu_of_children());
    let mut arguments = vec!["build", "--quiet", "--offline"];
    arguments.extend(flag);
    run(folder, &arguments)?;
    Ok(Cost { clock: began.elapsed(), cpu: cpu_of_children().saturating_sub(cpu) })
}

/// CPU time of all processes that this one started and waited for, and of theirs: fields 16 and 17
/// of /proc/self/stat (proc(5)), in hundredths of a second.
fn cpu_of_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in brackets, and may hold blanks.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let hundredths: u64 = fields.skip(13).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
    Duration::from_millis(hundredths * 10)
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

/// One line of the table: medians, and the ratio of each round.
fn row(profile: &str, costs: &[Vec<Cost>; 2]) -> String {
    let median = |costs: &[Cost], of: fn(&Cost) -> Duration| {
        let mut sorted: Vec<Duration> = costs.iter().map(of).collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default().as_secs_f64()
    };
    let cell = |costs: &[Cost]| {
        format!("{:.1} s, CPU {:.1} s", median(costs, |c| c.clock), median(costs, |c| c.cpu))
    };
    let ratio = |(theirs, ours): (&Cost, &Cost)| {
        format!("{:.2}", ours.cpu.as_secs_f64() / theirs.cpu.as_secs_f64())
    };
    let ratios: Vec<String> = costs[0].iter().zip(&costs[1]).map(ratio).collect();
    format!("| {profile} | {} | {} | {} |", cell(&costs[0]), cell(&costs[1]), ratios.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_medians_and_each_rounds_ratio() {
        let costs = |list: [u64; 3]| {
            let cost = |s| Cost { clock: Duration::from_secs(s), cpu: Duration::from_secs(2 * s) };
            list.map(cost).to_vec()
        };
        let shown = row("debug", &[costs([10, 30, 20]), costs([15, 30, 50])]);
        let wanted = "| debug | 20.0 s, CPU 40.0 s | 30.0 s, CPU 60.0 s | 1.50, 1.00, 2.50 |";
        assert_eq!(shown, wanted);
    }
}
