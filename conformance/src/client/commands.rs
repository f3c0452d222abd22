//! Commands on standard input. A thread reads them: tokio's standard input would keep the runtime
//! from shutting down until somebody presses Enter.

use std::{
    io::{BufRead, Read, Write},
    sync::Arc,
};

use super::{
    output::Output,
    static_resolver::{StaticList, parse_endpoints},
};

/// The longest line that is read, in bytes, as in `peer client`.
const LINE_LEN_MAX: u64 = 1 << 20;
const USAGE: &str = "commands: addrs LIST [balancers LIST] | resolver-error TEXT (static targets)";

/// Reads commands from standard input until it ends.
pub(super) fn listen<W: Write + Send + 'static>(list: Option<StaticList>, output: Arc<Output<W>>) {
    std::thread::spawn(move || read(std::io::stdin().lock(), list.as_ref(), &output));
}

fn read<W: Write>(mut input: impl BufRead, list: Option<&StaticList>, output: &Output<W>) {
    loop {
        let mut line = Vec::new();
        let read = input.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            return;
        }
        if line.len() as u64 == LINE_LEN_MAX && !line.ends_with(b"\n") {
            output.command(
                "",
                &format!("expected lines below {LINE_LEN_MAX} bytes; none is read on"),
            );
            return;
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim();
        if !line.is_empty() {
            output.command(line, &handle(line, list));
        }
    }
}

/// Obeys one command; the reply.
fn handle(line: &str, list: Option<&StaticList>) -> String {
    let Some(list) = list else { return USAGE.into() };
    let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let words: Vec<&str> = rest.split_whitespace().collect();
    match (command, words.as_slice()) {
        ("addrs", []) => set(list, "", ""),
        ("addrs", [addresses]) => set(list, addresses, ""),
        ("addrs", [addresses, "balancers", balancers]) => set(list, addresses, balancers),
        ("addrs", _) => "expected addrs LIST [balancers LIST]".into(),
        ("resolver-error", _) => {
            list.fail(rest.trim());
            "ok".into()
        }
        _ => USAGE.into(),
    }
}

fn set(list: &StaticList, addresses: &str, balancers: &str) -> String {
    let parsed = parse_endpoints(addresses).and_then(|endpoints| {
        let balancers = balancers.split(',').filter(|text| !text.is_empty()).map(|text| {
            text.parse().map_err(|_| format!("balancers: expected IP:port, got {text:?}"))
        });
        Ok((endpoints, balancers.collect::<Result<_, String>>()?))
    });
    match parsed {
        Ok((endpoints, balancers)) => {
            list.set(endpoints, balancers);
            "ok".into()
        }
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(input: &str, list: Option<&StaticList>) -> Vec<String> {
        let mut written = Vec::new();
        let output = Output::new(&mut written);
        read(input.as_bytes(), list, &output);
        let reply = |line: &str| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["reply"].as_str().unwrap().to_owned()
        };
        String::from_utf8(written).unwrap().lines().map(reply).collect()
    }

    #[test]
    fn obeys_the_commands_of_static_targets() {
        let list = StaticList::new(vec![], vec![]);
        let input = "addrs 127.0.0.2:1,127.0.0.3:1\n\n  addrs  \nresolver-error no such host\n\
                     addrs 127.0.0.2:1 balancers 127.0.0.9:1,127.0.0.8:1\n";
        assert_eq!(replies(input, Some(&list)), ["ok", "ok", "ok", "ok"]);
    }

    #[test]
    fn a_bad_command_says_what_was_expected() {
        let list = StaticList::new(vec![], vec![]);
        for (line, says) in [
            ("addrs localhost", "expected IP:port"),
            ("addrs 127.0.0.2:1 balancers lb:1", "balancers: expected IP:port, got \"lb:1\""),
            ("addrs 127.0.0.2:1 and more", "expected addrs LIST [balancers LIST]"),
            ("stop", "commands: addrs LIST"),
            ("addrsx", "commands: addrs LIST"),
        ] {
            let replies = replies(line, Some(&list));
            assert!(replies.len() == 1 && replies[0].contains(says), "{line}: {replies:?}");
        }
        assert_eq!(replies("addrs 127.0.0.2:1\n", None), [USAGE]);
    }

    #[test]
    fn an_endless_line_ends_the_reading() {
        let line = "x".repeat(LINE_LEN_MAX as usize + 10) + "\naddrs\n";
        let replies = replies(&line, Some(&StaticList::new(vec![], vec![])));
        assert!(replies.len() == 1 && replies[0].contains("none is read on"), "{replies:?}");
    }
}
