//! What a call is made of before it is sent: its headers in our form, its options, its deadline.

use std::{mem, sync::Arc, time::Duration};

use evenkeel_core::service_config::MethodConfig;
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Request, Uri,
    header::{TE, USER_AGENT},
    request::Parts,
    uri::{self, Authority},
};
use tokio::time::Instant;

use crate::{CallOptions, channel::Defaults, edge::Status};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
/// A wait shorter than this does not change the `grpc-timeout` that is sent.
const TIMEOUT_SLACK: Duration = Duration::from_millis(1);
/// A timeout beyond this is none: it would overflow the clock.
const TIMEOUT_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The headers of a call, kept so that each attempt can send them.
pub(crate) struct Call {
    uri: Uri,
    /// Empty after an attempt took them, until [`Call::restore`].
    pub(crate) headers: HeaderMap,
    /// What the latest attempt took: a list costs one allocation, a second map two.
    sent: Vec<(HeaderName, HeaderValue)>,
    pub(crate) wait_for_ready: bool,
    pub(crate) routing_key: Option<Arc<str>>,
    pub(crate) timeout: Option<Duration>,
    /// The request's, for the response's to be made of: the map is there already.
    pub(crate) extensions: Extensions,
    /// The caller said whether to wait.
    wait_is_own: bool,
    /// The headers have the timeout already.
    timeout_is_own: bool,
    /// When it was first polled: a call that nobody polls does nothing, and is not late.
    started: Option<Instant>,
}

impl Call {
    /// Takes over a request's head.
    pub(crate) fn new(parts: Parts, defaults: &Defaults) -> Result<Self, Status> {
        let Parts { uri, mut headers, extensions, .. } = parts;
        let path = uri
            .into_parts()
            .path_and_query
            .ok_or_else(|| Status::internal("the request has no path; expected /service/method"))?;
        let mut whole = uri::Parts::default();
        whole.scheme = Some(defaults.scheme.clone());
        whole.authority = Some(defaults.authority.clone());
        whole.path_and_query = Some(path);
        let uri = Uri::from_parts(whole)
            .map_err(|e| Status::internal(format!("the request's path is not one: {e}")))?;
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.entry(USER_AGENT).or_insert_with(|| defaults.user_agent.clone());
        let timeout = headers.get(GRPC_TIMEOUT).map(parse_timeout).transpose()?;
        let options = extensions.get::<CallOptions>().cloned().unwrap_or_default();
        Ok(Self {
            uri,
            headers,
            sent: Vec::new(),
            wait_for_ready: options.wait_for_ready.unwrap_or(defaults.wait_for_ready),
            wait_is_own: options.wait_for_ready.is_some(),
            routing_key: options.routing_key,
            timeout: timeout.filter(|t| *t < TIMEOUT_MAX),
            timeout_is_own: true,
            extensions,
            started: None,
        })
    }

    /// The same call under another `:authority`, if one is given.
    pub(crate) fn with_authority(mut self, authority: Option<Authority>) -> Result<Self, Status> {
        if let Some(authority) = authority {
            let mut parts = mem::take(&mut self.uri).into_parts();
            parts.authority = Some(authority);
            self.uri = Uri::from_parts(parts)
                .map_err(|e| Status::internal(format!("the request's path is not one: {e}")))?;
        }
        Ok(self)
    }

    /// From now on the deadline counts.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.started = Some(now);
    }

    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }

    /// Takes what the service config says of the method: the caller's own word on waiting goes
    /// before it, and the sooner of the two deadlines counts. True when the deadline moved.
    pub(crate) fn configure(&mut self, config: &MethodConfig) -> bool {
        if let Some(wait) = config.wait_for_ready.filter(|_| !self.wait_is_own) {
            self.wait_for_ready = wait;
        }
        let timeout = config.timeout_ns.map(Duration::from_nanos).filter(|t| *t < TIMEOUT_MAX);
        let sooner = timeout.filter(|t| self.timeout.is_none_or(|own| *t < own));
        if let Some(timeout) = sooner {
            self.timeout = Some(timeout);
            self.timeout_is_own = false;
        }
        sooner.is_some()
    }

    /// When the call has to be over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        Some(self.started? + self.timeout?)
    }

    /// Gives the headers back after an attempt that has to be repeated; else does nothing.
    pub(crate) fn restore(&mut self) {
        for (name, value) in self.sent.drain(..) {
            self.headers.append(name, value);
        }
    }

    /// The head of one attempt at `now`: the server is told the time that is left, and how many
    /// attempts there were before. Takes the headers with it.
    pub(crate) fn attempt(
        &mut self,
        metadata: Option<(HeaderName, HeaderValue)>,
        retries: u32,
        now: Instant,
    ) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = self.uri.clone();
        self.restore();
        self.sent.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        let mut headers = mem::take(&mut self.headers);
        if let Some((name, value)) = metadata {
            headers.insert(name, value);
        }
        if let Some(timeout) = self.timeout {
            let spent = self.started.map_or(Duration::ZERO, |s| now.saturating_duration_since(s));
            if spent > TIMEOUT_SLACK || !self.timeout_is_own {
                let mut left = write_timeout(timeout.saturating_sub(spent));
                // Never the same twice, so it has no place in the connection's header table.
                left.set_sensitive(true);
                headers.insert(GRPC_TIMEOUT, left);
            }
        }
        if retries > 0 {
            headers.insert(PREVIOUS_ATTEMPTS, retries.into());
        }
        *request.headers_mut() = headers;
        request
    }
}

/// At most 8 digits and a unit
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn parse_timeout(value: &HeaderValue) -> Result<Duration, Status> {
    let parse = || {
        let text = value.to_str().ok()?;
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let n: u64 = digits.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(n * 3600),
            "M" => Duration::from_secs(n * 60),
            "S" => Duration::from_secs(n),
            "m" => Duration::from_millis(n),
            "u" => Duration::from_micros(n),
            "n" => Duration::from_nanos(n),
            _ => return None,
        })
    };
    parse().ok_or_else(|| {
        Status::internal(format!(
            "grpc-timeout: expected at most 8 digits and one of H M S m u n, got {value:?}"
        ))
    })
}

/// The finest unit in which the time fits 8 digits.
fn write_timeout(left: Duration) -> HeaderValue {
    const DIGITS_MAX: u128 = 99_999_999;
    let units = [(1, 'n'), (1_000, 'u'), (1_000_000, 'm'), (1_000_000_000, 'S')];
    let ns = left.as_nanos().max(1);
    let (n, unit) = units
        .into_iter()
        .map(|(size, unit)| (ns.div_ceil(size), unit))
        .find(|(n, _)| *n <= DIGITS_MAX)
        .unwrap_or((ns.div_ceil(3_600_000_000_000).min(DIGITS_MAX), 'H'));
    HeaderValue::try_from(format!("{n}{unit}")).expect("digits and a letter are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_grpc_writes_it() {
        let parse = |s: &str| parse_timeout(&HeaderValue::from_str(s).unwrap());
        let good = [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("99999999m", Duration::from_millis(99_999_999)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
        ];
        for (text, want) in good {
            assert_eq!(parse(text).unwrap(), want, "{text}");
        }
        for text in ["", "S", "1", "1x", "-1S", "+1S", "123456789m", "1.5S", "1 S"] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code(), tonic::Code::Internal, "{text:?}");
            assert!(error.message().contains("expected at most 8 digits"), "{text:?}");
        }
    }

    #[test]
    fn a_timeout_is_written_in_the_finest_unit_that_fits_and_never_as_zero() {
        let cases = [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_secs(99), "99000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(200_000), "200000S"),
            (Duration::from_secs(100_000_000), "27778H"),
        ];
        for (left, want) in cases {
            assert_eq!(write_timeout(left), want, "{left:?}");
        }
    }
}
