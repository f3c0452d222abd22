//! `conformance peers`: both lanes at once, then the strangers and the interop cases, and every row
//! judged as it comes.

use super::block::Block;
use super::error::Error;
use super::facility::{Facility, built_beside, on_path};
use super::report::Report;
use super::row::Row;
use super::scenario::{self, BALANCER, CONTROL_PLANE, GREETER, INTEROP, LOOKASIDE, LOUD, QUIET};
use super::{balancer, control_plane, interop, lane, lookaside, strangers};
use std::io::Write;
use std::path::PathBuf;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Rows come a few a second at most.
const ROWS_WAITING_MAX: usize = 64;

/// Everything that a run needs, found before anything is started.
pub(crate) struct Plan {
    facility: Facility,
    python: PathBuf,
    client: String,
    greeter: Option<PathBuf>,
    balancer: Option<PathBuf>,
    control_plane: Option<PathBuf>,
    interop: Option<interop::Programs>,
    selected: Vec<String>,
    blocks: [Block; 3],
}

/// What ended a run.
pub(crate) enum Ended {
    /// All of it ran; whether all is well.
    Whole(bool),
    /// SIGINT, SIGTERM or SIGHUP.
    BySignal,
}

impl Plan {
    /// Finds the peers and our binaries. `client` is a command as a shell splits it; without one
    /// it is `conformance-client` beside this binary.
    pub(crate) fn new(
        facility: Facility,
        only: &[String],
        client: Option<&str>,
        greeter: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let selected = scenario::select(only)?;
        let strangers = selected.iter().any(|name| name == GREETER);
        let cases = selected.iter().any(|name| name == INTEROP);
        let apart = [GREETER, BALANCER, CONTROL_PLANE, INTEROP];
        let scenarios = selected.iter().any(|name| !apart.contains(&name.as_str()));
        let python = on_path("python3")?;
        facility.require(&["peer"])?;
        if strangers {
            facility.require(strangers::TOOLS)?;
        }
        let balancer = if selected.iter().any(|name| name == BALANCER) {
            facility.require(balancer::TOOLS)?;
            Some(built_beside("grpclb")?)
        } else {
            None
        };
        let control_plane = if selected.iter().any(|name| name == CONTROL_PLANE) {
            facility.require(control_plane::TOOLS)?;
            Some(built_beside("conformance-xds")?)
        } else {
            None
        };
        if selected.iter().any(|name| name == LOOKASIDE) {
            facility.require(lookaside::TOOLS)?;
        }
        let interop = if cases {
            facility.require(interop::TOOLS)?;
            let client = built_beside("conformance-interop")?;
            Some(interop::Programs { client, server: built_beside("conformance-server")? })
        } else {
            None
        };
        let client = match client {
            Some(command) => command.to_owned(),
            None if scenarios => {
                lane::quoted(&built_beside("conformance-client")?.to_string_lossy())
            }
            None => String::new(),
        };
        let greeter = match greeter {
            _ if !strangers => None,
            Some(given) => Some(given),
            None => Some(built_beside("greeter")?),
        };
        let first = Block::free(&[])?;
        let second = Block::free(std::slice::from_ref(&first))?;
        let third = Block::free(&[first.clone(), second.clone()])?;
        let blocks = [first, second, third];
        Ok(Self {
            facility,
            python,
            client,
            greeter,
            balancer,
            control_plane,
            interop,
            selected,
            blocks,
        })
    }

    /// The facility that was found.
    pub(crate) fn facility(&self) -> &Facility {
        &self.facility
    }

    /// Runs everything `runs` times and reports it. A signal ends every child before this returns.
    pub(crate) async fn run<W: Write>(
        &self,
        runs: u32,
        report: &mut Report<'_, W>,
    ) -> Result<Ended, Error> {
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut hangup = listen(SignalKind::hangup())?;
        for run in 1..=runs {
            if runs > 1 {
                eprintln!("run {run} of {runs}");
            }
            let before = report.came();
            // Whichever branch wins, the other future is dropped, and with it its children.
            tokio::select! {
                () = self.once(report) => {}
                _ = interrupt.recv() => return Ok(Ended::BySignal),
                _ = terminate.recv() => return Ok(Ended::BySignal),
                _ = hangup.recv() => return Ok(Ended::BySignal),
            }
            report.missing(&self.selected, before);
        }
        Ok(Ended::Whole(report.sum()))
    }

    async fn once<W: Write>(&self, report: &mut Report<'_, W>) {
        let (rows, came) = mpsc::channel(ROWS_WAITING_MAX);
        tokio::join!(self.produce(rows), judge(came, report));
    }

    async fn produce(&self, rows: Sender<Row>) {
        let [quiet, loud, third] = &self.blocks;
        let lane = |block, scenarios| {
            let scenarios = scenario::of_lane(scenarios, &self.selected);
            let rows = &rows;
            async move {
                let (python, client) = (&self.python, &self.client);
                lane::run(&self.facility, python, block, client, &scenarios, rows).await
            }
        };
        let (first, second) = tokio::join!(lane(quiet, QUIET), lane(loud, LOUD));
        let balancers = match self.selected.iter().any(|name| name == LOOKASIDE) {
            true => lookaside::run(&self.facility, &self.client, third, &rows).await,
            false => Ok(()),
        };
        let third = match &self.greeter {
            Some(greeter) => strangers::run(&self.facility, greeter, third, &rows).await,
            None => Ok(()),
        };
        let fourth = match &self.balancer {
            Some(program) => balancer::run(&self.facility, program, &self.blocks[2], &rows).await,
            None => Ok(()),
        };
        let control = match &self.control_plane {
            Some(program) => control_plane::run(&self.facility, &self.python, program, &rows).await,
            None => Ok(()),
        };
        let fifth = match &self.interop {
            Some(programs) => interop::run(&self.facility, programs, &rows).await,
            None => Ok(()),
        };
        // The rows that this cost are missing, and a missing row fails.
        let all = [first, second, balancers, third, fourth, control, fifth];
        for error in all.into_iter().filter_map(Result::err) {
            eprintln!("conformance: {error}");
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(Error::io("listen for signals"))
}

async fn judge<W: Write>(mut came: Receiver<Row>, report: &mut Report<'_, W>) {
    while let Some(row) = came.recv().await {
        report.row(row);
    }
}
