//! W3C Trace Context in gRPC's metadata: `traceparent` and `tracestate`. The API crate of
//! OpenTelemetry has the words (`SpanContext`), its propagators are in the SDK.

use std::str::FromStr as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Bytes of a `traceparent` of version 00, the one that we write.
const TRACEPARENT_BYTES: usize = 55;
/// Bytes of a `tracestate` that are passed on. The standard asks for at least 512; a longer one is
/// left out, which it allows.
const TRACESTATE_BYTES_MAX: usize = 512;

/// Puts the context into the headers, which have none.
pub(crate) fn inject(context: &SpanContext, headers: &mut HeaderMap) {
    // An owner, so that the copy that a call keeps for its next attempt is no new allocation.
    let text = Bytes::from_owner(traceparent(context));
    let mut value =
        HeaderValue::from_maybe_shared(text).expect("hex digits and dashes are a header value");
    // Never the same twice, so it has no place in the connection's header table.
    value.set_sensitive(true);
    headers.insert(TRACEPARENT, value);
    if *context.trace_state() != TraceState::NONE
        && let Ok(value) = HeaderValue::try_from(context.trace_state().header())
        && !value.is_empty()
    {
        headers.insert(TRACESTATE, value);
    }
}

/// Whether there is a context, good or bad. Most calls begin without one, and their few headers are
/// looked through sooner than two names are hashed.
fn is_in(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| *name == TRACEPARENT || *name == TRACESTATE)
}

/// Written by hand, as `format!` costs a call that is not sampled more than all else here.
fn traceparent(context: &SpanContext) -> [u8; TRACEPARENT_BYTES] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&mut text[3..35], &context.trace_id().to_bytes());
    write_hex(&mut text[36..52], &context.span_id().to_bytes());
    // Only the flag that we know the meaning of is passed on.
    text[54] += u8::from(context.is_sampled());
    text
}

/// Two digits for each byte, of four bytes at once.
fn write_hex(text: &mut [u8], bytes: &[u8]) {
    let (eights, fours) = (text.as_chunks_mut().0, bytes.as_chunks().0);
    for (digits, four) in eights.iter_mut().zip(fours) {
        *digits = hex_digits(u32::from_be_bytes(*four)).to_be_bytes();
    }
}

/// The eight digits of a number, a byte for each.
fn hex_digits(number: u32) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let pairs = u64::from(number);
    let pairs = (pairs | pairs << 16) & 0x0000_ffff_0000_ffff;
    let pairs = (pairs | pairs << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (pairs | pairs << 4) & (0x0f * EACH);
    let is_letter = ((nibbles + 6 * EACH) >> 4) & EACH;
    nibbles + EACH * u64::from(b'0') + is_letter * u64::from(b'a' - b'0' - 10)
}

/// Takes the context out of the headers: another comes in its place.
pub(crate) fn take(headers: &mut HeaderMap) -> Option<SpanContext> {
    if !is_in(headers) {
        return None;
    }
    let context = extract(headers);
    headers.remove(TRACEPARENT);
    headers.remove(TRACESTATE);
    context
}

/// The context in the headers, if there is a good one: anything else begins a new trace.
pub(crate) fn extract(headers: &HeaderMap) -> Option<SpanContext> {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let (Some(one), None) = (all.next(), all.next()) else { return None };
    let (trace, span, flags) = parse(one.as_bytes())?;
    let context = SpanContext::new(trace, span, flags, true, state(headers));
    context.is_valid().then_some(context)
}

fn parse(text: &[u8]) -> Option<(TraceId, SpanId, TraceFlags)> {
    let (known, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
    let known = std::str::from_utf8(known).ok()?;
    let mut parts = known.split('-');
    let version = hex(parts.next()?, 2)?;
    let trace = hex(parts.next()?, 32)?;
    let span = hex(parts.next()?, 16)?;
    let flags = hex(parts.next()?, 2)?;
    // Later versions may have more behind a dash; ff is none.
    let ends_well = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.is_empty() || rest.starts_with(b"-"),
    };
    let flags = TraceFlags::new(flags as u8) & TraceFlags::SAMPLED;
    let (trace, span) = (trace.to_be_bytes(), (span as u64).to_be_bytes());
    (ends_well && parts.next().is_none())
        .then(|| (TraceId::from_bytes(trace), SpanId::from_bytes(span), flags))
}

/// Lower-case only, as the standard has it; `from_str_radix` would also take a sign.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_good = text.len() == digits && text.bytes().all(is_hex);
    is_good.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// Several headers are one list. A bad one is left out and does not harm the trace.
fn state(headers: &HeaderMap) -> TraceState {
    let parts: Option<Vec<&str>> =
        headers.get_all(TRACESTATE).iter().map(|value| value.to_str().ok()).collect();
    let text = parts.unwrap_or_default().join(",");
    if text.is_empty() || text.len() > TRACESTATE_BYTES_MAX {
        return TraceState::NONE;
    }
    TraceState::from_str(&text).unwrap_or(TraceState::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_str(value).expect("visible ASCII"));
        }
        headers
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let given = headers(&[("traceparent", GOOD), ("tracestate", "a=1"), ("tracestate", "b=2")]);
        let context = extract(&given).expect("a good one");
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
        assert!(context.is_sampled() && context.is_remote());
        let mut sent = headers(&[("traceparent", "old"), ("tracestate", "old=1")]);
        take(&mut sent);
        inject(&context, &mut sent);
        assert_eq!(sent, headers(&[("traceparent", GOOD), ("tracestate", "a=1,b=2")]));
        assert_eq!(extract(&sent), Some(context));
    }

    #[test]
    fn a_state_that_became_empty_is_not_sent() {
        let given =
            extract(&headers(&[("traceparent", GOOD), ("tracestate", "a=1")])).expect("good");
        let empty = given.trace_state().delete("a").expect("a key");
        let (trace, span) = (given.trace_id(), given.span_id());
        let context = SpanContext::new(trace, span, given.trace_flags(), false, empty);
        let mut sent = HeaderMap::new();
        inject(&context, &mut sent);
        assert_eq!(sent, headers(&[("traceparent", GOOD)]));
    }

    #[test]
    fn another_context_is_taken_out_whether_it_is_good_or_not() {
        for (parent, is_good) in [(GOOD, true), ("old", false)] {
            let given = [("traceparent", parent), ("tracestate", "a=1"), ("te", "trailers")];
            let mut left = headers(&given);
            assert_eq!(take(&mut left).is_some(), is_good, "{parent}");
            assert_eq!(left, headers(&[("te", "trailers")]), "{parent}");
        }
    }

    #[test]
    fn eight_digits_are_what_format_writes() {
        for number in [0, 0x0123_4567, 0x89ab_cdef, 0x9a9a_a9a9, u32::MAX] {
            let digits = hex_digits(number).to_be_bytes();
            assert_eq!(digits, format!("{number:08x}").as_bytes(), "{number:#x}");
        }
    }

    #[test]
    fn a_bad_context_is_none() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        ] {
            assert_eq!(extract(&headers(&[("traceparent", text)])), None, "{text:?}");
        }
        assert_eq!(extract(&headers(&[("traceparent", GOOD), ("traceparent", GOOD)])), None);
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        let text = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-more";
        let context = extract(&headers(&[("traceparent", text)])).expect("read");
        assert_eq!(context.trace_flags(), TraceFlags::SAMPLED);
    }

    #[test]
    fn a_bad_or_long_state_is_left_out() {
        for state in ["no equals sign", &format!("a={}", "x".repeat(600))] {
            let given = headers(&[("traceparent", GOOD), ("tracestate", state)]);
            let context = extract(&given).expect("the trace goes on");
            assert_eq!(context.trace_state().header(), "", "{state:?}");
        }
    }
}
