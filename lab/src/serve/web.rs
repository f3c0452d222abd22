//! The page's server: HTTP/1.1 on 127.0.0.1, a page without any other origin, server-sent events
//! for what happens, and a POST for each button. Paths are the whole interface: no body is read.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{Either, Full, StreamBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{
        Semaphore,
        broadcast::{self, error::RecvError},
        mpsc::error::TrySendError,
        watch,
    },
    task::JoinSet,
};

use super::{
    deeds::Deed,
    guard,
    hub::{Hub, News},
    show::Wish,
};
use crate::examples::{self, live::RETRIES};

/// Connections at once; a browser has six for a page.
const CONNECTIONS_MAX: usize = 64;
/// From the connect to the end of the request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Nothing but what the page itself brings.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// What is served as it is: path, kind, text.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("../../page/serve.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("../../page/page.css")),
    ("/chart.js", "text/javascript; charset=utf-8", include_str!("../../page/chart.js")),
    ("/serve.js", "text/javascript; charset=utf-8", include_str!("../../page/serve.js")),
];

type Body = Either<Full<Bytes>, StreamBody<EventStream>>;
type EventStream = std::pin::Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

/// Serves until it is dropped; connections end with it.
pub(super) async fn serve(listener: TcpListener, address: SocketAddr, hub: Hub) {
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                // Too many files, say; the next one may be well.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let hub = hub.clone();
        connections.spawn(async move {
            converse(socket, address.port(), hub).await;
            drop(place);
        });
    }
}

async fn converse(socket: TcpStream, port: u16, hub: Hub) {
    let answer = service_fn(move |request| {
        let answered = answer(&request, port, &hub);
        async move { Ok::<_, Infallible>(answered) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    // An error is a browser that went away.
    server.serve_connection(TokioIo::new(socket), answer).await.ok();
}

fn answer(request: &Request<Incoming>, port: u16, hub: &Hub) -> Response<Body> {
    let changes = request.method() != Method::GET;
    if !guard::admits(request.headers(), port, changes) {
        let why = "expected this page's own origin; open the address that `lab serve` printed\n";
        return text(StatusCode::FORBIDDEN, why);
    }
    let path = request.uri().path();
    match *request.method() {
        Method::GET if path == "/events" => events(hub),
        Method::GET if path == "/targets" => {
            let targets = Bytes::copy_from_slice(hub.targets.borrow().as_bytes());
            response(StatusCode::OK, "application/json", Either::Left(Full::new(targets)))
        }
        Method::GET => match FILES.iter().find(|(at, ..)| *at == path) {
            Some((_, kind, body)) => whole(StatusCode::OK, kind, body),
            None => text(StatusCode::NOT_FOUND, "no such page\n"),
        },
        Method::POST => match wish(path) {
            Some(wish) => match hub.wishes.try_send(wish) {
                Ok(()) => text(StatusCode::ACCEPTED, "it happens\n"),
                Err(TrySendError::Full(_)) => {
                    text(StatusCode::TOO_MANY_REQUESTS, "16 others wait already\n")
                }
                Err(TrySendError::Closed(_)) => {
                    text(StatusCode::SERVICE_UNAVAILABLE, "the lab is ending\n")
                }
            },
            None => text(StatusCode::NOT_FOUND, "no such wish\n"),
        },
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "expected GET or POST\n"),
    }
}

/// What a path of a POST asks for.
fn wish(path: &str) -> Option<Wish> {
    let words: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    match *words.as_slice() {
        ["example", name] => Some(Wish::Example(examples::find(name).ok()?.name)),
        ["policy", policy @ ("round_robin" | "pick_first" | "grpclb" | RETRIES)] => {
            Some(Wish::Policy(policy.to_owned()))
        }
        ["source", "silence"] => Some(Wish::Silence(true)),
        ["source", "answer"] => Some(Wish::Silence(false)),
        ["backends"] => Some(Wish::Grow),
        ["backends", host, deed] => Some(Wish::Backend(host.parse().ok()?, Deed::of(deed)?)),
        ["balancers", number, "kill"] => Some(Wish::KillBalancer(number.parse().ok()?)),
        ["balancers", number, "start"] => Some(Wish::StartBalancer(number.parse().ok()?)),
        _ => None,
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", body)
}

fn whole(status: StatusCode, kind: &'static str, body: &'static str) -> Response<Body> {
    response(status, kind, Either::Left(Full::new(Bytes::from_static(body.as_bytes()))))
}

fn response(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, http::HeaderValue::from_static(value));
    }
    response
}

/// The state at once, and then what happens.
fn events(hub: &Hub) -> Response<Body> {
    let mut state = hub.state.clone();
    state.mark_changed();
    let lines = stream::unfold((state, hub.news()), |(mut state, mut news)| async move {
        let line = next(&mut state, &mut news).await?;
        Some((Ok(Frame::data(Bytes::from(line))), (state, news)))
    });
    let body = Either::Right(StreamBody::new(lines.boxed() as EventStream));
    response(StatusCode::OK, "text/event-stream", body)
}

async fn next(
    state: &mut watch::Receiver<Arc<str>>,
    news: &mut broadcast::Receiver<News>,
) -> Option<String> {
    loop {
        tokio::select! {
            biased;
            changed = state.changed() => {
                changed.ok()?;
                let json = Arc::clone(&state.borrow_and_update());
                return Some(event("state", &json));
            }
            told = news.recv() => match told {
                Ok(News { name, json }) => return Some(event(name, &json)),
                // A page that was slow goes on with what is new.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            },
        }
    }
}

/// JSON has no line ends, so one line of data is enough.
fn event(name: &str, json: &str) -> String {
    format!("event: {name}\ndata: {json}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_wish_or_nothing() {
        for (path, wanted) in [
            ("/backends", Some(Wish::Grow)),
            ("/backends/2/kill", Some(Wish::Backend(2, Deed::Kill))),
            ("/backends/2/delete", Some(Wish::Backend(2, Deed::Delete))),
            ("/backends/2/cut", Some(Wish::Backend(2, Deed::Cut))),
            ("/policy/round_robin+retry", Some(Wish::Policy(RETRIES.to_owned()))),
            ("/source/silence", Some(Wish::Silence(true))),
            ("/source/shout", None),
            ("/balancers/1/start", Some(Wish::StartBalancer(1))),
            ("/policy/pick_first", Some(Wish::Policy("pick_first".to_owned()))),
            ("/example/istio", Some(Wish::Example("mesh"))),
            ("/policy/weighted", None),
            ("/backends/256/kill", None),
            ("/backends/2/eat", None),
            ("/backends/2/kill/now", None),
            ("/example/../etc", None),
            ("", None),
        ] {
            assert_eq!(wish(path), wanted, "{path}");
        }
    }

    #[test]
    fn every_file_of_the_page_is_served_and_fetches_nothing_else() {
        let page = FILES[0].2;
        for (path, ..) in &FILES[1..] {
            assert!(page.contains(&format!("\"{path}\"")), "{path} is not asked for");
        }
        for (path, _, body) in FILES {
            let body = body.replace("http://www.w3.org/2000/svg", "");
            assert!(!body.contains("://") && !body.contains("innerHTML"), "{path}");
        }
    }
}
