//! The file's format: one `address:port` a line, `#` begins a comment. Apart from the resolver,
//! because all that a test of it needs is text.

use std::{collections::BTreeSet, net::SocketAddr};

use evenkeel::core::Endpoint;

/// More lines than this are a mistake and not a service.
const ENDPOINTS_MAX: usize = 10_000;

/// The endpoints, each once, in the file's order. The error begins with the line's number.
pub(crate) fn read(text: &str) -> Result<Vec<Endpoint>, String> {
    let mut endpoints = Vec::new();
    let mut seen = BTreeSet::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let address: SocketAddr = line.parse().map_err(|_| {
            format!("{}: expected address:port, e.g. 10.0.2.95:8000, got {line:?}", n + 1)
        })?;
        if seen.insert(address) {
            endpoints.push(Endpoint::new(address));
        }
        if endpoints.len() > ENDPOINTS_MAX {
            return Err(format!("{}: expected at most {ENDPOINTS_MAX} endpoints", n + 1));
        }
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, String> {
        let first = |e: &Endpoint| e.addresses()[0].to_string();
        read(text).map(|list| list.iter().map(first).collect())
    }

    #[test]
    fn reads_addresses_comments_and_blank_lines() {
        let text = "# greeters\n10.0.0.1:8000\n\n [::1]:80 # local\n10.0.0.1:8000\n";
        assert_eq!(shown(text).unwrap(), ["10.0.0.1:8000", "[::1]:80"]);
        assert!(shown("# nobody\n").unwrap().is_empty());
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, line) in [("10.0.0.1", 1), ("10.0.0.1:80\ngreeter:80", 2), ("\n:80", 2)] {
            let error = shown(text).unwrap_err();
            assert!(error.starts_with(&format!("{line}: expected address:port")), "{error}");
        }
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let lines = |count: u32| {
            let line = |n| format!("{}:80\n", std::net::Ipv4Addr::from(0x0a00_0000 + n));
            (0..count).map(line).collect::<String>()
        };
        assert_eq!(shown(&lines(10_000)).unwrap().len(), 10_000);
        assert!(shown(&lines(10_001)).unwrap_err().starts_with("10001: expected at most"));
    }
}
