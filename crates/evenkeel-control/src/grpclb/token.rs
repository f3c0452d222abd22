//! Load-balance tokens: printable, shorter than the protocol's 50 bytes, the same for an endpoint
//! in every list of every replica, and without a table to look them up in: an endpoint's token is
//! its address in hexadecimal, so that whoever holds one can read it back.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

/// Before an endpoint's address.
const ENDPOINT: char = 'b';
/// Before a category.
const DROP: &str = "drop-";

/// The token of an endpoint.
#[must_use]
pub fn of_endpoint(address: SocketAddr) -> String {
    let mut token = String::from(ENDPOINT);
    let hex = |token: &mut String, bytes: &[u8]| {
        for byte in bytes {
            // Writing to a String does not fail.
            let _ = write!(token, "{byte:02x}");
        }
    };
    match address.ip() {
        IpAddr::V4(ip) => hex(&mut token, &ip.octets()),
        IpAddr::V6(ip) => hex(&mut token, &ip.octets()),
    }
    hex(&mut token, &address.port().to_be_bytes());
    token
}

/// The token of the calls that a client drops for this reason.
#[must_use]
pub fn of_drop(category: &str) -> String {
    format!("{DROP}{category}")
}

/// The endpoint of a token; `None` for other tokens.
#[must_use]
pub fn decode(token: &str) -> Option<SocketAddr> {
    let hex = token.strip_prefix(ENDPOINT).filter(|hex| hex.is_ascii())?;
    let byte = |at: usize| u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..hex.len() / 2).map(byte).collect::<Option<_>>()?;
    let (ip, port): (IpAddr, [u8; 2]) = match (hex.len(), &bytes[..]) {
        (12, [ip @ .., high, low]) => (<[u8; 4]>::try_from(ip).ok()?.into(), [*high, *low]),
        (36, [ip @ .., high, low]) => (<[u8; 16]>::try_from(ip).ok()?.into(), [*high, *low]),
        _ => return None,
    };
    Some((ip, u16::from_be_bytes(port)).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CATEGORY_BYTES_MAX;

    /// "Its length can be variable but must be less than 50 bytes."
    const TOKEN_BYTES_MAX: usize = 49;

    #[test]
    fn tokens_are_short_and_lead_back_to_their_endpoint() {
        for text in ["10.0.2.95:8000", "[fd00:1:2:3:4:5:6:7]:65535", "0.0.0.0:0", "[::1]:1"] {
            let address = text.parse().expect("an address");
            let token = of_endpoint(address);
            assert!(token.len() <= TOKEN_BYTES_MAX, "{token}");
            assert_eq!(decode(&token), Some(address), "{token}");
        }
        assert_eq!(of_endpoint("10.0.2.95:8000".parse().expect("an address")), "b0a00025f1f40");
        assert!(of_drop(&"c".repeat(CATEGORY_BYTES_MAX)).len() <= TOKEN_BYTES_MAX);
    }

    #[test]
    fn other_tokens_are_no_endpoints() {
        for token in ["", "b", "drop-b", "b0a00025f1f4", "b0a00025f1f4g", "bé", "x0a00025f1f40"] {
            assert_eq!(decode(token), None, "{token}");
        }
    }
}
