//! One run of the client, from flags to the JSON line.

use std::{
    io::{self, Stdout},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use client::{
    cost,
    greeting::{Greeter, Greeting, warm_up},
    load::{self, Outcome},
    report::round3,
    status::code_name,
    stop::{STOP_GRACE, Stop},
    tally::{Epoch, SharedTally, Tally},
};
use evenkeel::Channel;
use helloworld::greeter_client::GreeterClient;
use serde_json::{Value, json};

use super::{
    EXIT_FLAGS, commands,
    flags::{Flags, positive},
    line::{Facts, line, refusal},
    output::Output,
    static_resolver::{PREFIX, StaticList, TARGET, parse_endpoints},
};

/// State changes that are kept.
const STATES_MAX: usize = 10_000;
/// How long connections may take to close at the end; no call is open on them any more.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Makes the run that the flags describe.
pub(super) async fn run(flags: Flags) -> ExitCode {
    let prepared = match prepare(&flags) {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("conformance-client: {error}");
            // If nobody reads, the exit code says it.
            let _ = Output::new(io::stdout()).last(&refusal(&flags, &error));
            return ExitCode::from(EXIT_FLAGS);
        }
    };
    match execute(&flags, prepared).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conformance-client: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a run needs, all checked.
struct Prepared {
    channel: Channel,
    greeter: Greeter,
    /// The list behind a static target.
    list: Option<StaticList>,
}

fn prepare(flags: &Flags) -> Result<Prepared, String> {
    let hash_header = flags.hash_header()?;
    let list = match flags.target.strip_prefix(PREFIX) {
        Some(text) => {
            let endpoints = parse_endpoints(text).map_err(|error| format!("--target: {error}"))?;
            Some(StaticList::new(endpoints, flags.balancers.clone()))
        }
        None if !flags.balancers.is_empty() => {
            return Err("--balancers goes with a static target; DNS has SRV records".into());
        }
        None => None,
    };
    let builder = match &list {
        Some(list) => flags.channel(TARGET).register_resolver(Arc::new(list.clone())),
        None => flags.channel(&flags.target),
    };
    let channel = builder.build().map_err(|error| error.to_string())?;
    let greeter = Greeter {
        client: GreeterClient::new(channel.clone()),
        name: flags.name.clone(),
        timeout: positive(flags.timeout),
        wait_for_ready: flags.wait_for_ready,
        hash_header,
    };
    Ok(Prepared { channel, greeter, list })
}

async fn execute(flags: &Flags, prepared: Prepared) -> io::Result<()> {
    let Prepared { channel, greeter, list } = prepared;
    let output = Arc::new(Output::new(io::stdout()));
    let stop = Stop::default();
    let signals = stop.on_signals(STOP_GRACE)?;
    if !flags.no_stdin {
        commands::listen(list, Arc::clone(&output));
    }
    let done = if flags.print {
        print(flags, Arc::new(greeter), &output, &stop).await
    } else {
        let line = measure(flags, &channel, Arc::new(greeter), &stop).await?;
        output.last(&line)
    };
    let _ = tokio::time::timeout(CLOSE_WAIT, channel.shutdown(Duration::ZERO)).await;
    signals.abort();
    done
}

/// `--print`: the example's text lines instead of the JSON line.
async fn print(
    flags: &Flags,
    greeter: Arc<Greeter>,
    output: &Arc<Output<Stdout>>,
    stop: &Stop,
) -> io::Result<()> {
    output.text(&format!("Will use {} load balancing policy", flags.policy_shown()))?;
    output.text(&format!("Creating channel with target {}", flags.target))?;
    let call = move |k| {
        let greeter = Arc::clone(&greeter);
        async move { greeter.say_hello(k).await }
    };
    let sink = {
        let (output, stop) = (Arc::clone(output), stop.clone());
        move |sample: load::Sample<Result<Greeting, tonic::Status>>| {
            let line = match sample.result {
                Ok(greeting) => format!("Greeting: {}", greeting.message),
                Err(status) => {
                    format!("Error: {}: {}", code_name(status.code()), status.message())
                }
            };
            // Nobody reads any more.
            if output.text(&line).is_err() {
                stop.drain();
            }
        }
    };
    load::run(&flags.plan(), Instant::now(), call, sink, stop).await?;
    Ok(())
}

/// Warms up, runs the load, and makes the line.
async fn measure(
    flags: &Flags,
    channel: &Channel,
    greeter: Arc<Greeter>,
    stop: &Stop,
) -> io::Result<Value> {
    let states = flags.states.then(|| States::watch(channel.clone()));
    let mut ready_s = None;
    if let Some(limit) = positive(flags.warmup) {
        tokio::select! {
            ready = warm_up(channel, limit) => ready_s = Some(ready.map(|took| took.as_secs_f64())),
            _ = stop.draining() => {}
        }
    }
    for k in 0..u64::from(flags.warmup_calls) {
        if stop.is_draining() {
            break;
        }
        // Only the measured calls count.
        let _ = greeter.say_hello(k).await;
    }
    let cpu_s = cost::cpu_s();
    let (tally, outcome) = load(flags, greeter, stop).await?;
    let facts = Facts {
        target: &flags.target,
        policy: flags.policy_shown(),
        cpu_s: cost::cpu_s() - cpu_s,
        ready_s,
        states: states.map(States::take),
    };
    Ok(line(facts, &tally, &outcome))
}

async fn load(flags: &Flags, greeter: Arc<Greeter>, stop: &Stop) -> io::Result<(Tally, Outcome)> {
    let warmup_calls = u64::from(flags.warmup_calls);
    let call = move |k| {
        let greeter = Arc::clone(&greeter);
        async move { greeter.say_hello(warmup_calls + k).await.map(Greeting::into_backend) }
    };
    let epoch = Epoch::now();
    let tally = SharedTally::new(epoch, positive(flags.timeline));
    let sink = {
        let tally = tally.clone();
        move |sample| {
            tally.add(sample);
        }
    };
    let outcome = load::run(&flags.plan(), epoch.begin, call, sink, stop).await?;
    Ok((tally.close(outcome.started), outcome))
}

/// Collects the channel's states from now on.
struct States {
    seen: Arc<Mutex<Vec<Value>>>,
    task: tokio::task::JoinHandle<()>,
}

impl States {
    fn watch(channel: Channel) -> Self {
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let begin = Instant::now();
        let task = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                let mut state = channel.state();
                for _ in 0..STATES_MAX {
                    let t = round3(begin.elapsed().as_secs_f64());
                    let change = json!({ "t": t, "state": state.to_string() });
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(change);
                    state = channel.wait_for_state_change(state).await;
                }
            }
        });
        Self { seen, task }
    }

    fn take(self) -> Vec<Value> {
        self.task.abort();
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
