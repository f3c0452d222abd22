//! One run of the client, from flags to report.

use std::{
    convert::Infallible,
    fmt,
    io::{self, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use evenkeel::Channel;
use evenkeel_telemetry::Telemetry;
use helloworld::greeter_client::GreeterClient;
use program::{EXIT_CONFIG, SPANS_WAIT};
use tokio::time::MissedTickBehavior;
use tonic::Status;

use crate::{
    admin::Admin,
    attempts::Attempts,
    cost,
    events::EventLog,
    flags::{ConfigError, Flags, Output},
    greeting::{Greeter, Greeting, warm_up},
    load::{self, Outcome, Plan},
    report::Report,
    status::code_name,
    stop::{STOP_GRACE, Stop},
    table,
    tally::{Epoch, SharedTally, SoFar, Tally},
};

/// How long connections may take to close at the end; no call is open on them any more.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Makes the run that the flags describe.
pub(crate) async fn run(flags: Flags) -> ExitCode {
    match prepare(&flags) {
        Err(error) => {
            eprintln!("client: {error}");
            ExitCode::from(EXIT_CONFIG)
        }
        Ok(prepared) => match execute(&flags, prepared).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("client: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

/// What a run needs, all checked.
struct Prepared {
    policy: String,
    plan: Plan,
    events: Arc<EventLog>,
    /// With a balancer, to whose reports they are compared.
    attempts: Option<Attempts>,
    channel: Channel,
    telemetry: Telemetry,
}

fn prepare(flags: &Flags) -> Result<Prepared, ConfigError> {
    let plan = flags.plan()?;
    let policy = flags.policy()?;
    let events = if flags.events {
        EventLog::writing(io::LineWriter::new(io::stderr()))
    } else {
        EventLog::counting()
    };
    let events = Arc::new(events);
    let attempts = (policy == "grpclb").then(Attempts::default);
    let telemetry = program::telemetry("client", flags.metrics_listen.into())?;
    let builder = flags.channel()?.recorder(events.clone());
    let mut builder = telemetry.channel(builder, &flags.target);
    if let Some(attempts) = &attempts {
        builder = builder.attempt_layer(attempts.clone());
    }
    let channel = builder.build()?;
    Ok(Prepared { policy, plan, events, attempts, channel, telemetry })
}

async fn execute(flags: &Flags, prepared: Prepared) -> io::Result<()> {
    let Prepared { policy, plan, events, attempts, channel, telemetry } = prepared;
    let stop = Stop::default();
    let signals = stop.on_signals(STOP_GRACE)?;
    let lines = Arc::new(Lines { stop: stop.clone(), broken: AtomicBool::new(false) });
    if flags.output == Output::Text {
        lines.print(format_args!("Will use {policy} load balancing policy"));
        lines.print(format_args!("Creating channel with target {}", flags.target));
    }
    let admin = match flags.admin_listen {
        Some(address) => Some(Admin::start(address, &channel).await?),
        None => None,
    };
    if let Some(Admin { address, .. }) = admin.as_ref().filter(|_| !flags.events) {
        eprintln!("client: the channel is shown on http://{address}/channels (HTTP/2, channelz)");
    }
    if let Some(address) = telemetry.serve_page().await?
        && !flags.events
    {
        eprintln!("client: metrics are on http://{address}/metrics");
    }
    if !flags.warmup.is_zero() {
        tokio::select! {
            ready = warm_up(&channel, flags.warmup) => if ready.is_none() {
                let state = channel.state();
                eprintln!("client: not READY within {:?} but {state}; starting", flags.warmup);
            },
            _ = stop.draining() => {}
        }
    }
    let cpu_s = cost::cpu_s();
    let (tally, outcome) = measure(flags, &plan, &channel, &events, &lines, &stop).await?;
    let cpu_s = cost::cpu_s() - cpu_s;
    let mut report = Report::new(&flags.target, &policy, tally, &outcome, &events, cpu_s);
    report.attempts = attempts.map(|attempts| attempts.report(events.drops()));
    let spans = telemetry.shutdown(SPANS_WAIT).await;
    report.spans = telemetry.is_on().then(|| spans.into());
    let text = match flags.output {
        Output::Text => table::render(&report),
        Output::Json => serde_json::to_string(&report).map(|json| json + "\n")?,
    };
    let written = io::stdout().lock().write_all(text.as_bytes());
    let _ = tokio::time::timeout(CLOSE_WAIT, channel.shutdown(Duration::ZERO)).await;
    if let Some(admin) = admin {
        admin.stop().await;
    }
    events.flush().await;
    signals.abort();
    // Whoever closed stdout does not want the report.
    if lines.broken.load(Ordering::Relaxed) { Ok(()) } else { written }
}

async fn measure(
    flags: &Flags,
    plan: &Plan,
    channel: &Channel,
    events: &Arc<EventLog>,
    lines: &Arc<Lines>,
    stop: &Stop,
) -> io::Result<(Tally, Outcome)> {
    let greeter = Arc::new(Greeter {
        client: GreeterClient::new(channel.clone()),
        name: flags.name.clone(),
        timeout: flags.call_timeout(),
        wait_for_ready: flags.wait_for_ready,
        hash_header: None,
    });
    let lines = (flags.output == Output::Text && !flags.quiet).then(|| Arc::clone(lines));
    let call = move |k| {
        let (greeter, lines) = (Arc::clone(&greeter), lines.clone());
        async move {
            let result = greeter.say_hello(k).await;
            if let Some(lines) = &lines {
                lines.print_call(&result);
            }
            result.map(Greeting::into_backend)
        }
    };
    let epoch = Epoch::now();
    let tally = SharedTally::new(epoch, flags.slots);
    let sink = {
        let (tally, events) = (tally.clone(), Arc::clone(events));
        move |sample| {
            if let Some(backend) = tally.add(sample) {
                events.first_call(&backend);
            }
        }
    };
    let outcome = tokio::select! {
        outcome = load::run(plan, epoch.begin, call, sink, stop) => outcome?,
        never = tell(flags.live, &tally, events) => match never {},
    };
    Ok((tally.close(outcome.started), outcome))
}

/// Tells every `live` how far the run is, as long as it is polled.
async fn tell(live: Option<Duration>, tally: &SharedTally, events: &EventLog) -> Infallible {
    let Some(live) = live else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(live);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut before = SoFar::default();
    loop {
        ticks.tick().await;
        let so_far = tally.so_far();
        events.answered(&so_far, &before);
        before = so_far;
    }
}

/// Lines on stdout. A reader that has gone away (`client | head`) ends the run and is no panic.
struct Lines {
    stop: Stop,
    broken: AtomicBool,
}

impl Lines {
    fn print_call(&self, result: &Result<Greeting, Status>) {
        match result {
            Ok(greeting) => self.print(format_args!("Greeting: {}", greeting.message)),
            Err(status) => {
                let (code, message) = (code_name(status.code()), status.message());
                self.print(format_args!("Error invoking greeting: {code}: {message}"));
            }
        }
    }

    fn print(&self, line: fmt::Arguments<'_>) {
        if !self.broken.load(Ordering::Relaxed) && writeln!(io::stdout().lock(), "{line}").is_err()
        {
            self.broken.store(true, Ordering::Relaxed);
            self.stop.drain();
        }
    }
}
