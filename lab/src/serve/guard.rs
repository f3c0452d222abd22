//! Who may talk to the page's server. It listens on 127.0.0.1, but a browser that visits any site
//! can be told to send requests there; and a site can point a name of its own at 127.0.0.1. So the
//! host has to be this one by number or as localhost, and whatever changes something must not come
//! from another origin.

use http::{HeaderMap, header};

/// Whether a request with `headers` may be answered at `port`; `changes` when it is more than
/// looking.
pub(super) fn admits(headers: &HeaderMap, port: u16, changes: bool) -> bool {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str());
    let ours = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let Some(Ok(host)) = text(header::HOST) else { return false };
    if !ours.iter().any(|own| own.eq_ignore_ascii_case(host)) {
        return false;
    }
    if !changes {
        return true;
    }
    // A browser sends the origin with each POST; what sends none, as curl, is no browser.
    match text(header::ORIGIN) {
        None => true,
        Some(Ok(origin)) => ours.iter().any(|own| origin == format!("http://{own}")),
        Some(Err(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn our_own_page_and_curl_may_change_things() {
        for (host, origin) in [
            ("127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("localhost:8080", Some("http://localhost:8080")),
            ("127.0.0.1:8080", None),
        ] {
            assert!(admits(&headers(host, origin), 8080, true), "{host} {origin:?}");
        }
    }

    #[test]
    fn another_sites_page_may_not_and_another_name_for_us_is_not_us() {
        for origin in
            ["http://example.com", "null", "https://127.0.0.1:8080", "http://127.0.0.1:81"]
        {
            assert!(!admits(&headers("127.0.0.1:8080", Some(origin)), 8080, true), "{origin}");
        }
        for host in ["evil.example:8080", "127.0.0.1", "127.0.0.1:81", ""] {
            assert!(!admits(&headers(host, None), 8080, false), "{host}");
        }
        assert!(!admits(&HeaderMap::new(), 8080, false), "no host");
    }
}
