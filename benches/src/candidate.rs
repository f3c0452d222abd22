//! A candidate in a process of its own: connects, says `ready`, then does one slice of work for
//! each line on its input and answers with a [`Slice`] as JSON. Ends with its input.

use std::{net::SocketAddr, time::Duration};

use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{
    callers::{Caller, Candidate},
    clock::Slice,
};

/// Runs until the input ends.
///
/// # Errors
///
/// It can't connect, a command is none, or a stream broke.
pub async fn run(candidate: Candidate, backends: &[SocketAddr]) -> Result<(), String> {
    serve(Caller::connect(candidate, backends).await?).await
}

/// Says `ready` and does what it is asked, until the input ends.
///
/// # Errors
///
/// A command is none, or a stream broke.
pub async fn serve(caller: Caller) -> Result<(), String> {
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.map_err(|e| e.to_string())? {
        let slice = work(&caller, &line).await?;
        println!("{}", serde_json::json!(slice));
    }
    Ok(())
}

async fn work(caller: &Caller, line: &str) -> Result<Slice, String> {
    let words: Vec<&str> = line.split(' ').collect();
    let bad = || format!("expected `unary CALLERS MS`, `up BYTES MS` or `down BYTES MS`: {line:?}");
    let &[kind, amount, length] = words.as_slice() else { return Err(bad()) };
    let amount = amount.parse().map_err(|_| bad())?;
    let length = Duration::from_millis(length.parse().map_err(|_| bad())?);
    match kind {
        "unary" => Ok(caller.load(amount, length).await),
        "up" | "down" => {
            caller.stream(kind == "up", amount, length).await.map_err(|e| format!("{line}: {e}"))
        }
        _ => Err(bad()),
    }
}
