//! What differs between what was sent and what came, in words. Pure, so that tests show each
//! difference found.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tonic::{Code, Status, metadata::MetadataMap};

use super::{BYTES, COPIED, call::Answer, mirror::Arrived};

/// Headers that hold one value each and must arrive as they were sent, bit by bit.
const EXACT: [&str; 2] = ["traceparent", "tracestate"];

/// What was sent.
pub(super) type Sent = [(&'static str, HeaderValue)];

/// The differences between the headers that were sent and those that arrived.
pub(super) fn of_request(sent: &Sent, arrived: &Arrived) -> Vec<String> {
    let compared = EXACT.iter().chain(&COPIED).filter_map(|name| {
        let wanted = joined(values_of(sent, name));
        let came = joined(arrived.values(name));
        different(&format!("request header {name}"), name, &wanted, &came)
    });
    compared.collect()
}

/// The differences between what the mirror copied and what came back, after `prefix`.
pub(super) fn of_response(sent: &Sent, came: &HeaderMap, prefix: &str, place: &str) -> Vec<String> {
    let compared = COPIED.iter().filter_map(|name| {
        let wanted = joined(values_of(sent, name));
        let all = came.get_all(format!("{prefix}{name}"));
        let came = joined(all.iter().map(|value| value.to_str().unwrap_or("(no text)")));
        different(&format!("{place} {prefix}{name}"), name, &wanted, &came)
    });
    compared.collect()
}

/// The differences between the status that the mirror was asked for and the one that came.
pub(super) fn of_status(
    asked: &Status,
    in_trailers: bool,
    came: &Result<Answer, Status>,
) -> Vec<String> {
    let code = asked.code();
    let answer = match came {
        Ok(answer) => answer,
        Err(status) => return vec![format!("{code:?}: the channel ended it with {status}")],
    };
    let (status, was_in_trailers) = answer.status();
    let Some(status) = status else { return vec![format!("{code:?}: no status came")] };
    let mut harm = Vec::new();
    if status.code() != code {
        harm.push(format!("{code:?}: came as {:?}", status.code()));
    }
    if status.message() != asked.message() {
        harm.push(format!("{code:?}: its message came as {:?}", status.message()));
    }
    if status.details() != asked.details() {
        harm.push(format!("{code:?}: its details came as {:?}", status.details()));
    }
    if was_in_trailers != in_trailers {
        let place = if was_in_trailers { "in trailers" } else { "without trailers" };
        harm.push(format!("{code:?}: came {place}"));
    }
    if answer.arrived.is_some() != in_trailers {
        harm.push(format!("{code:?}: the message before it came or went"));
    }
    harm
}

/// Whether a backend got a deadline that is not later than the one of the call.
pub(super) fn of_deadline(sent: Duration, arrived: &Arrived) -> Vec<String> {
    match arrived.values("grpc-timeout").as_slice() {
        [value] => match timeout(value) {
            Some(left) if !left.is_zero() && left <= sent => Vec::new(),
            _ => vec![format!("grpc-timeout came as {value:?}, of {sent:?}")],
        },
        others => vec![format!("expected one grpc-timeout, got {others:?}")],
    }
}

/// Whether a call that nobody answers ends by its deadline.
pub(super) fn of_late(came: &Result<Answer, Status>) -> Vec<String> {
    let code = match came {
        Err(status) => Some(status.code()),
        Ok(answer) => answer.status().0.map(|status| status.code()),
    };
    if code == Some(Code::DeadlineExceeded) {
        return Vec::new();
    }
    vec![format!("a call that nobody answers ended with {code:?}")]
}

/// A `grpc-timeout`: up to eight digits and a unit.
fn timeout(value: &str) -> Option<Duration> {
    let digits = value.get(..value.len().checked_sub(1)?)?;
    let count = digits.parse::<u64>().ok().filter(|_| digits.len() <= 8)?;
    match value.as_bytes().last()? {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

fn values_of<'a>(sent: &'a Sent, name: &str) -> Vec<&'a str> {
    let named = sent.iter().filter(|(key, _)| *key == name);
    named.map(|(_, value)| value.to_str().unwrap_or("(no text)")).collect()
}

/// gRPC lets a proxy join values of one name by commas, and so they mean the same.
fn joined<'a>(values: impl IntoIterator<Item = &'a str>) -> String {
    let pieces = values.into_iter().flat_map(|value| value.split(',')).map(str::trim);
    pieces.collect::<Vec<_>>().join(",")
}

fn different(what: &str, name: &str, wanted: &str, came: &str) -> Option<String> {
    let same = if name == BYTES { bytes(wanted) == bytes(came) } else { wanted == came };
    (!same).then(|| {
        if came.is_empty() {
            return format!("{what} is missing");
        }
        let cut = |text: &str| text.chars().take(60).collect::<String>();
        let lengths = format!("{} and {} bytes", wanted.len(), came.len());
        format!("{what}: expected {:?}, got {:?} ({lengths})", cut(wanted), cut(came))
    })
}

/// What base64 stands for, with or without padding. `None` for what is none.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let mut headers = HeaderMap::new();
    headers.insert(BYTES, HeaderValue::from_str(text).ok()?);
    let metadata = MetadataMap::from_headers(headers);
    metadata.get_bin(BYTES)?.to_bytes().ok().map(|bytes| bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unharmed::{TEXT, TWO, mirror};

    fn sent() -> Vec<(&'static str, HeaderValue)> {
        let value = HeaderValue::from_static;
        vec![
            ("traceparent", value("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
            (TEXT, value("a b")),
            (TWO, value("one")),
            (TWO, value("two, three")),
            (BYTES, value("AAH+/w")),
        ]
    }

    fn arrived(change: impl Fn(&mut Vec<(String, String)>)) -> Arrived {
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let mut headers: Vec<(String, String)> =
            sent().iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
        change(&mut headers);
        Arrived { headers, ..Arrived::default() }
    }

    #[test]
    fn nothing_differs_when_values_are_joined_or_base64_is_padded() {
        assert_eq!(of_request(&sent(), &arrived(|_| {})), [] as [String; 0]);
        let same = arrived(|headers| {
            headers.retain(|(name, _)| name != TWO);
            headers.push((TWO.to_owned(), "one,two,three".to_owned()));
            headers.iter_mut().find(|(name, _)| name == BYTES).unwrap().1 = "AAH+/w==".to_owned();
        });
        assert_eq!(of_request(&sent(), &same), [] as [String; 0]);
    }

    #[test]
    fn each_header_that_is_changed_lost_or_reordered_is_named() {
        let set = |name: &'static str, value: &'static str| {
            arrived(move |headers| {
                headers.retain(|(key, _)| key != name);
                headers.push((name.to_owned(), value.to_owned()));
            })
        };
        for (name, value) in [
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
            (TEXT, "a  b"),
            (TWO, "two,three,one"),
            (BYTES, "AAH+/g"),
            (BYTES, "not base64"),
        ] {
            let harm = of_request(&sent(), &set(name, value));
            assert!(harm.len() == 1 && harm[0].contains(name), "{name}: {harm:?}");
        }
        let harm = of_request(&sent(), &arrived(|headers| headers.clear()));
        assert_eq!(harm.len(), 4, "{harm:?}");
        assert!(harm.iter().all(|harm| harm.contains("is missing")), "{harm:?}");
    }

    #[test]
    fn a_copy_that_does_not_come_back_is_named_with_its_place() {
        let mut came = HeaderMap::new();
        for (name, value) in sent() {
            came.append(format!("x-end-{name}").parse::<http::HeaderName>().unwrap(), value);
        }
        assert_eq!(of_response(&sent(), &came, "x-end-", "trailer"), [] as [String; 0]);
        came.remove("x-end-x-text");
        assert_eq!(
            of_response(&sent(), &came, "x-end-", "trailer"),
            ["trailer x-end-x-text is missing"]
        );
    }

    /// As the mirror answers.
    fn answer(status: &Status, in_trailers: bool) -> Answer {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        if in_trailers {
            let arrived = Some(Arrived::default());
            return Answer { headers: HeaderMap::new(), arrived, trailers: Some(headers) };
        }
        Answer { headers, arrived: None, trailers: None }
    }

    #[test]
    fn a_status_is_the_same_when_code_message_details_and_place_are() {
        let asked = mirror::status("7");
        for in_trailers in [true, false] {
            let came = Ok(answer(&asked, in_trailers));
            assert_eq!(of_status(&asked, in_trailers, &came), [] as [String; 0]);
            assert!(!of_status(&asked, !in_trailers, &came).is_empty());
        }
        let message = asked.message();
        for other in [
            mirror::status("8"),
            Status::with_details(Code::PermissionDenied, message, b"x"[..].into()),
            Status::with_details(Code::PermissionDenied, "x", asked.details().to_vec().into()),
        ] {
            assert!(!of_status(&asked, true, &Ok(answer(&other, true))).is_empty(), "{other:?}");
        }
        assert!(!of_status(&asked, true, &Err(asked.clone())).is_empty());
    }

    #[test]
    fn a_deadline_may_shrink_on_its_way_and_neither_grow_nor_vanish() {
        let second = Duration::from_secs(1);
        let with = |value: &str| Arrived {
            headers: vec![("grpc-timeout".to_owned(), value.to_owned())],
            ..Arrived::default()
        };
        for good in ["1S", "1000m", "999999u", "1n"] {
            assert_eq!(of_deadline(second, &with(good)), [] as [String; 0], "{good}");
        }
        for bad in ["1001m", "1M", "0m", "", "m", "1x", "123456789n"] {
            assert_eq!(of_deadline(second, &with(bad)).len(), 1, "{bad}");
        }
        assert_eq!(of_deadline(second, &Arrived::default()).len(), 1);
    }

    #[test]
    fn only_deadline_exceeded_ends_a_call_that_nobody_answers() {
        assert_eq!(of_late(&Err(Status::deadline_exceeded(""))), [] as [String; 0]);
        let late = Status::deadline_exceeded("");
        assert_eq!(of_late(&Ok(answer(&late, false))), [] as [String; 0]);
        assert!(!of_late(&Err(Status::cancelled(""))).is_empty());
        assert!(!of_late(&Ok(answer(&Status::ok(""), true))).is_empty());
    }
}
