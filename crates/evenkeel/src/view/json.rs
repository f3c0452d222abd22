//! Snapshots over HTTP: a `tower` service without a web framework, to be mounted in whatever
//! server there is (axum's `nest_service`, hyper, tonic's `Routes` through their router).

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde::Serialize;

use super::{ChannelSnapshot, ChannelView, PAGE_MAX};

/// Answers `GET …/channels` and `GET …/channels/ID` with JSON, whatever the path begins with.
///
/// The list has up to [`PAGE_MAX`] channels; `?start=ID` begins at an id, `?max=N` takes fewer, and
/// `end` is true on the last page. Addresses and errors are shown as they are, so mount it where
/// operators come and nobody else.
///
/// ```
/// use tower_service::Service as _;
///
/// let view = evenkeel::ChannelView::default();
/// let mut service = evenkeel::view::JsonService::new(view);
/// let request = http::Request::get("/channels").body(()).unwrap();
/// let response = service.call(request).into_inner().unwrap();
/// assert!(response.body().contains(r#""end": true"#));
/// ```
#[derive(Clone, Debug)]
pub struct JsonService {
    view: ChannelView,
}

impl JsonService {
    /// Shows these channels.
    pub fn new(view: ChannelView) -> Self {
        Self { view }
    }

    fn answer(&self, method: &Method, path: &str, query: &str) -> Response<String> {
        let Some((_, rest)) = path.rsplit_once("/channels") else {
            return refuse(StatusCode::NOT_FOUND, "expected /channels or /channels/ID");
        };
        if method != Method::GET && method != Method::HEAD {
            let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, "expected GET or HEAD");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match rest.trim_matches('/') {
            "" => self.list(query),
            id => match id.parse().ok().and_then(|id| self.view.get(id)) {
                Some(channel) => json(StatusCode::OK, &channel),
                None => {
                    let text = format!("no channel {id:?} here; /channels lists those there are");
                    refuse(StatusCode::NOT_FOUND, &text)
                }
            },
        }
    }

    fn list(&self, query: &str) -> Response<String> {
        #[derive(Serialize)]
        struct List {
            channels: Vec<ChannelSnapshot>,
            end: bool,
        }
        let (mut start, mut max) = (0, PAGE_MAX);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let read = match name {
                "start" => value.parse().map(|id| start = id),
                "max" => value.parse().map(|n| max = n),
                _ => continue,
            };
            if read.is_err() {
                let text = format!("{name}: expected a whole number, got {value:?}");
                return refuse(StatusCode::BAD_REQUEST, &text);
            }
        }
        let page = self.view.page(start, max);
        json(StatusCode::OK, &List { channels: page.channels, end: page.end })
    }
}

impl<B> tower_service::Service<Request<B>> for JsonService {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (method, uri) = (request.method(), request.uri());
        let mut response = self.answer(method, uri.path(), uri.query().unwrap_or_default());
        if method == Method::HEAD {
            response.body_mut().clear();
        }
        ready(Ok(response))
    }
}

fn refuse(status: StatusCode, error: &str) -> Response<String> {
    json(status, &serde_json::json!({ "error": error }))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<String> {
    // People read it with curl as often as programs do.
    let (status, body) = match serde_json::to_string_pretty(value) {
        Ok(body) => (status, body + "\n"),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tower_service::Service as _;

    use super::*;
    use crate::Channel;

    fn ask(service: &mut JsonService, method: &str, path: &str) -> (u16, serde_json::Value) {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let response = service.call(request).into_inner().unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        (response.status().as_u16(), serde_json::from_str(response.body()).unwrap())
    }

    #[tokio::test]
    async fn lists_and_shows_channels_below_any_prefix() {
        let channel = Channel::builder("ipv4:127.0.0.1:1").build().unwrap();
        let mut service = JsonService::new(ChannelView::new([&channel]));
        let id = channel.snapshot().id;
        for prefix in ["", "/debug", "/channels/of/mine"] {
            let (status, list) = ask(&mut service, "GET", &format!("{prefix}/channels"));
            assert_eq!((status, &list["end"]), (200, &true.into()));
            assert_eq!(list["channels"][0]["target"], "ipv4:127.0.0.1:1");
            let (status, one) = ask(&mut service, "GET", &format!("{prefix}/channels/{id}"));
            assert_eq!((status, &one["id"], &one["state"]), (200, &id.into(), &"IDLE".into()));
        }
        let past = format!("/channels?start={}", id + 1);
        assert_eq!(ask(&mut service, "GET", &past).1["channels"], serde_json::json!([]));
    }

    #[tokio::test]
    async fn refuses_with_a_reason_what_it_does_not_have() {
        let mut service = JsonService::new(ChannelView::default());
        let cases = [
            ("GET", "/", 404, "expected /channels"),
            ("GET", "/channels/0", 404, "no channel \"0\""),
            ("GET", "/channels/x", 404, "no channel \"x\""),
            ("POST", "/channels", 405, "expected GET"),
            ("GET", "/channels?max=many", 400, "max: expected a whole number, got \"many\""),
        ];
        for (method, path, status, error) in cases {
            let (got, body) = ask(&mut service, method, path);
            assert_eq!(got, status, "{path}");
            assert!(body["error"].as_str().unwrap().contains(error), "{body}");
        }
    }
}
