//! What a pick, a call and a connection cost: time and allocations of a pick, allocations of a
//! unary call beyond raw h2, memory of an idle subchannel. The hidden commands are for the
//! processes that it starts.

use std::{alloc::System, net::SocketAddr, process::ExitCode};

use benches::{
    allocations::{self, CallCost},
    backends,
    callers::Candidate,
    memory::{self, MemoryCost},
    picks,
    ratios::{self, Output},
    subprocess::Subprocess,
    table,
};
use clap::{Parser, Subcommand};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Measures a pick, a call's allocations and a connection's memory.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Rounds of the picks.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Idle connections; the process may need `ulimit -n` of twice as many.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Tables for people or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Server { listeners: usize },
    #[command(hide = true)]
    Memory {
        candidate: Candidate,
        #[arg(value_delimiter = ',')]
        backends: Vec<SocketAddr>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match arguments.role {
        Some(Role::Server { listeners }) => {
            backends::run(listeners).await.map_err(|e| format!("servers: {e}"))
        }
        Some(Role::Memory { candidate, backends }) => {
            memory::measure(candidate, &backends).await.map(|cost| println!("{}", json!(cost)))
        }
        None => run(&arguments).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("costs: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), String> {
    let picks = picks::measure(arguments.rounds)?;
    let own =
        [Candidate::RawH2, Candidate::Evenkeel, Candidate::HandPicked, Candidate::BalanceList];
    let (servers, backends) = servers(ratios::BACKENDS).await?;
    let mut calls = Vec::new();
    for candidate in own {
        calls.push(allocations::measure(candidate, &backends).await?);
    }
    calls.insert(1, allocations::measure_channel(&backends).await?);
    calls.insert(2, allocations::measure_metered(&backends).await?);
    servers.end().await?;
    let memory = memory_costs(arguments.connections as usize).await?;
    if arguments.output == Output::Json {
        let all = json!({ "picks": picks, "calls": calls, "memory": memory });
        println!("{all}");
        return Ok(());
    }
    let rows: Vec<_> = picks.iter().map(picks::PickCost::row).collect();
    let aims = "aims: ≤ 100 ns at any number, 0 allocations, 2 threads ≤ 2.5 × 1";
    let head = ["policy", "endpoints", "threads", "ns", "allocations"];
    table::print(&format!("one pick ({aims})"), &head, &rows);
    let floor = calls.first().map_or(0.0, |call| call.allocations);
    let rows = calls.iter().map(|call| {
        let CallCost { what, allocations, bytes } = call;
        let beyond = format!("{:.2}", allocations - floor);
        vec![(*what).into(), format!("{allocations:.2}"), beyond, format!("{bytes:.0}")]
    });
    let head = ["candidate", "allocations", "beyond raw h2", "bytes"];
    let title = "one unary call (aim: the channel alone ≤ 6 beyond raw h2)";
    table::print(title, &head, &rows.collect::<Vec<_>>());
    let rows = memory.iter().map(|cost| {
        vec![cost.candidate.name().into(), cost.connections.to_string(), format!("{:.1}", cost.kib)]
    });
    let head = ["candidate", "connections", "KiB each"];
    table::print("memory of idle connections", &head, &rows.collect::<Vec<_>>());
    Ok(())
}

async fn servers(listeners: usize) -> Result<(Subprocess, Vec<SocketAddr>), String> {
    let servers = Subprocess::start(["server".to_owned(), listeners.to_string()]).await?;
    let backends = serde_json::from_str(&servers.greeting)
        .map_err(|e| format!("the servers' addresses: {e}"))?;
    Ok((servers, backends))
}

/// Each in a process of its own, so that none finds the memory that another left.
async fn memory_costs(connections: usize) -> Result<Vec<MemoryCost>, String> {
    let (servers, backends) = servers(connections).await?;
    let list = backends.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
    let mut costs = Vec::new();
    for candidate in [Candidate::RawH2, Candidate::Evenkeel, Candidate::HandPicked] {
        let process = Subprocess::start(["memory", candidate.name(), &list]).await?;
        costs.push(serde_json::from_str(&process.greeting).map_err(|e| e.to_string())?);
        process.end().await?;
    }
    servers.end().await?;
    Ok(costs)
}
