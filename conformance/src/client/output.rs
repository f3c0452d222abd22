//! Standard output: events of commands while the client runs, and one last line. A scenario runner
//! takes the last line for the result, so nothing may follow it.

use std::{
    io::{self, Write},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use client::report::round3;
use serde_json::{Value, json};

/// Writes lines until the last one.
pub(super) struct Output<W> {
    start: Instant,
    /// `None` after the last line.
    out: Mutex<Option<W>>,
}

impl<W: Write> Output<W> {
    /// Events count their time from now.
    pub(super) fn new(out: W) -> Self {
        Self { start: Instant::now(), out: Mutex::new(Some(out)) }
    }

    /// Reports a command and its reply.
    pub(super) fn command(&self, line: &str, reply: &str) {
        let t = round3(self.start.elapsed().as_secs_f64());
        let event = json!({ "event": "command", "t": t, "line": line, "reply": reply });
        // A reader that has gone away will miss the result, and that is reported.
        let _ = self.text(&event.to_string());
    }

    /// Writes a line of text.
    pub(super) fn text(&self, line: &str) -> io::Result<()> {
        match self.out.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(out) => writeln!(out, "{line}"),
            None => Ok(()),
        }
    }

    /// Writes the last line.
    pub(super) fn last(&self, line: &Value) -> io::Result<()> {
        match self.out.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(mut out) => {
                writeln!(out, "{line}")?;
                out.flush()
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_the_last_line() {
        let mut written = Vec::new();
        let output = Output::new(&mut written);
        output.command("addrs ", "ok");
        output.last(&json!({ "calls": 3 })).unwrap();
        output.command("addrs ", "ok");
        output.text("late").unwrap();
        let text = String::from_utf8(written).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["line"], &lines[0]["reply"]), (&"addrs ".into(), &"ok".into()));
        assert!(lines[0]["t"].is_f64());
        assert_eq!(lines[1], json!({ "calls": 3 }));
    }
}
