//! The `grpc-timeout` request header: at most eight digits and a unit.

use std::time::Duration;

use http::HeaderMap;
use tonic::Status;

const HEADER: &str = "grpc-timeout";
const DIGITS_MAX: usize = 8;

/// The time that the client gives the call, if it says so. A malformed value is refused, as grpc-go
/// does, because going on without a deadline is the opposite of what the client asked for.
pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    value.to_str().ok().and_then(parse).map(Some).ok_or_else(|| {
        Status::internal(format!(
            "malformed grpc-timeout: expected 1 to {DIGITS_MAX} digits and one of H M S m u n, \
             got {value:?}"
        ))
    })
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let well_formed = (1..=DIGITS_MAX).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !well_formed {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &[u8]) -> Result<Option<Duration>, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, http::HeaderValue::from_bytes(value).expect("a header value"));
        from_headers(&headers)
    }

    #[test]
    fn every_unit_is_read() {
        let cases: [(&[u8], Duration); 7] = [
            (b"2H", Duration::from_secs(7200)),
            (b"3M", Duration::from_secs(180)),
            (b"4S", Duration::from_secs(4)),
            (b"5m", Duration::from_millis(5)),
            (b"6u", Duration::from_micros(6)),
            (b"7n", Duration::from_nanos(7)),
            (b"99999999H", Duration::from_secs(99_999_999 * 3600)),
        ];
        for (text, expected) in cases {
            assert_eq!(header(text).expect("well formed"), Some(expected));
        }
        assert_eq!(from_headers(&HeaderMap::new()).expect("absent"), None);
    }

    #[test]
    fn malformed_values_are_refused_with_internal() {
        let cases: [&[u8]; 9] =
            [b"", b"S", b"5", b"5s", b"123456789S", b"-1S", b"+1S", b"1.5S", b"1\xff"];
        for text in cases {
            let status = header(text).expect_err("malformed");
            assert_eq!(status.code(), tonic::Code::Internal, "{text:?}");
        }
    }
}
