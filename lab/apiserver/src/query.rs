//! The parameters of a request.

use std::{collections::BTreeMap, time::Duration};

use crate::answer::Refused;

/// A watch without a time-out ends after this time; the real one after 30 to 60 minutes.
const WATCH_TIMEOUT: Duration = Duration::from_secs(1800);

/// What stands after the `?`.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(key), unescape(value))
        });
        Self(pairs.collect())
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// `None` when it is not there.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).map(|value| !matches!(value.as_str(), "0" | "false"))
    }

    /// `resourceVersion`; `None`: the newest. kube-apiserver answers a bad one with 400, and in a
    /// watch with 500.
    pub(crate) fn version(&self, is_watch: bool) -> Result<Option<u64>, Refused> {
        let text = self.text("resourceVersion");
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            let message = format!("resourceVersion: Invalid value: {text:?}: invalid syntax");
            match is_watch {
                true => Refused::new(500, "", message),
                false => Refused::new(400, "BadRequest", message),
            }
        })
    }

    pub(crate) fn timeout(&self) -> Duration {
        let seconds = self.text("timeoutSeconds").parse().ok().filter(|s| *s > 0);
        seconds.map_or(WATCH_TIMEOUT, Duration::from_secs)
    }
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, hex) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_unescaped() {
        let query = Query::parse("labelSelector=a%2Fb%3Dc+d&watch&x=1&resourceVersion=7&y=%zz%");
        assert_eq!(query.text("labelSelector"), "a/b=c d");
        assert_eq!((query.flag("watch"), query.flag("no")), (Some(true), None));
        assert_eq!(query.version(true), Ok(Some(7)));
        assert_eq!(query.text("y"), "%zz%");
        let bad = Query::parse("resourceVersion=x");
        assert_eq!([true, false].map(|watch| bad.version(watch).unwrap_err().code), [500, 400]);
        assert_eq!(Query::parse("timeoutSeconds=3").timeout(), Duration::from_secs(3));
    }
}
