//! The order of play, and what is left when a phase fails or panics.

use super::*;
use crate::examples;

fn all() -> Vec<(&'static Example, Vec<&'static Phase>)> {
    examples::ALL.iter().map(|example| (*example, example.phases.iter().collect())).collect()
}

#[test]
fn the_longest_phase_starts_first_and_a_short_one_fills_the_gap() {
    let waiting = in_order(&all());
    let longest = waiting.iter().map(|waiting| waiting.phase.seconds).max();
    assert_eq!(waiting.front().map(|first| first.phase.seconds), longest);
    let small = waiting.iter().map(|waiting| waiting.phase.calls_per_s).min().unwrap();
    let filler = first_that_fits(&waiting, small, false).expect("the smallest fits");
    assert_eq!(waiting[filler].phase.calls_per_s, small);
}

#[test]
fn a_phase_bigger_than_the_machine_plays_alone_and_never_beside_another() {
    let waiting = in_order(&all());
    assert_eq!(first_that_fits(&waiting, 1, true), Some(0));
    assert_eq!(first_that_fits(&waiting, 1, false), None);
    assert_eq!(first_that_fits(&VecDeque::new(), 1, true), None);
}

#[test]
fn programs_of_a_folder_take_the_place_of_the_lab_and_only_theirs() {
    let run = |programs| Run::new(Settings { programs, ..settings() }).expect("it has a folder");
    let words = |command: Command| {
        let words = command.as_std().get_args().map(|word| word.to_string_lossy().into_owned());
        words.collect::<Vec<_>>()
    };
    let own = run(None);
    let others = run(Some("/built".into()));
    assert_eq!(words(own.command("greeter")), ["greeter"]);
    assert_eq!(words(others.command("greeter")), [EXEC, "/built/greeter"]);
    assert_eq!(words(others.command("caller")), ["caller"]);
}

static TROUBLE: Example = Example {
    number: 200,
    name: "trouble",
    title: "",
    control_plane: "",
    policy: "",
    real: &[],
    doubles: &[],
    picture: "",
    needs_envoy: false,
    phases: &[
        Phase {
            name: "waits",
            what: "a child that would run for a minute",
            calls_per_s: 1,
            seconds: 60,
            play: |run, _| Box::pin(with_child(run, |_| Box::pin(std::future::pending()))),
        },
        Phase {
            name: "panics",
            what: "a panic while a child runs",
            calls_per_s: 1,
            seconds: 1,
            play: |run, _| Box::pin(with_child(run, |_| panic!("the sky fell"))),
        },
        Phase {
            name: "fails",
            what: "an error while a child runs",
            calls_per_s: 1,
            seconds: 1,
            play: |run, _| {
                Box::pin(with_child(run, |name| {
                    let error = LabError::Gone { name, signal: "SIGTERM" };
                    Box::pin(std::future::ready(Err(error)))
                }))
            },
        },
    ],
};

async fn with_child(
    run: Arc<Run>,
    then: fn(String) -> examples::Playing,
) -> Result<PhaseReport, LabError> {
    let mut sleeper = Command::new("sleep");
    let _child = run.nursery().spawn("sleeper", sleeper.arg("60")).unwrap();
    then("the sleeper".to_owned()).await
}

fn settings() -> Settings {
    Settings { restarts: 1, envoy_concurrency: 1, ..Settings::default() }
}

async fn trouble(name: &str) -> LabError {
    let run = Arc::new(Run::new(settings()).unwrap());
    let phases = TROUBLE.phases.iter().filter(|phase| ["waits", name].contains(&phase.name));
    let outcome = play(&run, &[(&TROUBLE, phases.collect())]).await;
    let all_gone = tokio::time::timeout(Duration::from_secs(10), run.nursery().empty());
    all_gone.await.expect("no child is left, not even the other phase's");
    outcome.expect_err("trouble was asked for")
}

#[tokio::test]
async fn a_panic_in_a_phase_is_told_with_its_name_and_leaves_no_child() {
    let message = trouble("panics").await.to_string();
    assert_eq!(message, "phase trouble/panics panicked: the sky fell");
}

#[tokio::test]
async fn a_phase_that_could_not_run_ends_the_others_and_leaves_no_child() {
    let message = trouble("fails").await.to_string();
    assert_eq!(message, "the sleeper is no longer running, so it can't be sent SIGTERM");
}

#[test]
fn the_folder_is_removed_unless_it_is_kept() {
    let removed = Folder::make(false).unwrap();
    let path = removed.path.clone();
    assert!(path.is_dir());
    drop(removed);
    assert!(!path.exists());
    let kept = Folder::make(true).unwrap();
    let path = kept.path.clone();
    drop(kept);
    assert!(path.is_dir());
    fs::remove_dir_all(path).unwrap();
}
