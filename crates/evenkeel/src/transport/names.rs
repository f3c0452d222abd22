//! The names of headers whose values differ from call to call. Such a value has no place in a
//! connection's header table, so it is sent as a literal (h2 does that with sensitive ones), and
//! its name with it, unless the table has the name: that of some earlier header, then. One request
//! of each connection leaves it there.

use std::sync::atomic::{AtomicU8, Ordering};

use http::{HeaderMap, HeaderName};

/// Those that a channel or its telemetry sends.
const NAMES: [HeaderName; 2] =
    [HeaderName::from_static("grpc-timeout"), HeaderName::from_static("traceparent")];
/// Requests of a connection that are looked through for them. Most have them from the first, or
/// never.
const REQUESTS: u8 = 32;

/// Which of them one connection's table has.
pub(crate) struct Names {
    /// Requests that are still looked through. A count that is lost between threads is no harm.
    left: AtomicU8,
    /// A bit for each.
    known: AtomicU8,
}

impl Default for Names {
    fn default() -> Self {
        Self { left: AtomicU8::new(REQUESTS), known: AtomicU8::new(0) }
    }
}

impl Names {
    /// A request is about to be sent.
    pub(crate) fn leave(&self, headers: &mut HeaderMap) {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return;
        }
        self.left.store(left - 1, Ordering::Relaxed);
        for (bit, name) in NAMES.iter().enumerate() {
            let bit = 1 << bit;
            if let Some(value) = headers.get_mut(name).filter(|value| value.is_sensitive())
                && self.known.fetch_or(bit, Ordering::Relaxed) & bit == 0
            {
                value.set_sensitive(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(names: &[&'static str]) -> HeaderMap {
        let mut value = HeaderValue::from_static("never the same");
        value.set_sensitive(true);
        names.iter().map(|name| (HeaderName::from_static(name), value.clone())).collect()
    }

    fn sensitive(of: &Names, names: &[&'static str]) -> Vec<bool> {
        let mut headers = headers(names);
        of.leave(&mut headers);
        names.iter().map(|name| headers[*name].is_sensitive()).collect()
    }

    #[test]
    fn one_request_leaves_each_name_and_a_password_stays_one() {
        let names = Names::default();
        assert_eq!(sensitive(&names, &["traceparent", "authorization"]), [false, true]);
        assert_eq!(sensitive(&names, &["traceparent", "grpc-timeout"]), [true, false]);
        assert_eq!(sensitive(&names, &["traceparent", "grpc-timeout"]), [true, true]);
    }

    #[test]
    fn later_requests_are_not_looked_through() {
        let names = Names::default();
        for _ in 0..REQUESTS {
            names.leave(&mut HeaderMap::new());
        }
        assert_eq!(sensitive(&names, &["traceparent"]), [true]);
    }
}
