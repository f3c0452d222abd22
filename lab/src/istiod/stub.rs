//! A cluster that holds nothing and never changes. istiod runs on files alone, but does not start
//! without an API server: this one's lists are empty and its watches silent. The package
//! `apiserver` would not do: it knows EndpointSlices and answers 404 to all else, for which istiod
//! waits.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{ACCEPT, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

/// istiod has some tens; more wait.
const CONNECTIONS_MAX: usize = 256;

/// A running stub; dropping it closes every connection.
pub(super) struct Stub {
    pub(super) address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Stub {
    /// Serves on `address`.
    pub(super) async fn start(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener));
        Ok(Self { address, _serving: serving })
    }

    /// How to reach it.
    pub(super) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\n\
             clusters: [{{name: stub, cluster: {{server: \"http://{}\"}}}}]\n\
             contexts: [{{name: stub, context: {{cluster: stub, user: stub}}}}]\n\
             current-context: stub\nusers: [{{name: stub, user: {{}}}}]\n",
            self.address
        )
    }
}

async fn accept(listener: TcpListener) {
    static SLOTS: Semaphore = Semaphore::const_new(CONNECTIONS_MAX);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = SLOTS.acquire().await else { return };
        // Fails only for this one caller.
        let Ok((socket, _)) = listener.accept().await else { continue };
        connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| async move {
                Ok::<_, Infallible>(answer(&request))
            });
            // A connection that breaks is its client's business.
            http1::Builder::new().serve_connection(TokioIo::new(socket), service).await.ok();
            drop(slot);
        });
    }
}

type Body = BoxBody<Bytes, Infallible>;

fn answer(request: &Request<Incoming>) -> Response<Body> {
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    match said(request.method(), path, query, accept.unwrap_or_default()) {
        Some((status, value)) => response(status, Full::new(value.to_string().into()).boxed()),
        None => {
            let silent = stream::pending::<Result<Frame<Bytes>, Infallible>>();
            response(StatusCode::OK, StreamBody::new(silent).boxed())
        }
    }
}

fn response(status: StatusCode, body: Body) -> Response<Body> {
    let json = http::HeaderValue::from_static("application/json");
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// The answer; `None` for a watch, which never says anything.
fn said(method: &Method, path: &str, query: &str, accept: &str) -> Option<(StatusCode, Value)> {
    let no = |status: StatusCode, reason: &str| {
        let code = status.as_u16();
        let value = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": reason, "code": code, "message": reason});
        Some((status, value))
    };
    let yes = |value| Some((StatusCode::OK, value));
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let is_list = matches!(
        parts.as_slice(),
        ["api", _, _]
            | ["apis", _, _, _]
            | ["api", _, "namespaces", _, _]
            | ["apis", _, _, "namespaces", _, _]
    );
    match path {
        "/version" => yes(json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0"})),
        "/api" => yes(json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => yes(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
        _ if method != Method::GET => no(StatusCode::FORBIDDEN, "Forbidden"),
        // A client that is refused lists and watches, as with older servers.
        _ if query.contains("sendInitialEvents") => no(StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
        _ if query.contains("watch=") => None,
        _ if is_list && accept.contains("as=PartialObjectMetadataList") => yes(json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"resourceVersion": "1"}, "items": []})),
        _ if is_list => yes(json!({"metadata": {"resourceVersion": "1"}, "items": []})),
        _ => no(StatusCode::NOT_FOUND, "NotFound"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, query: &str) -> Option<(u16, Value)> {
        said(&Method::GET, path, query, "").map(|(status, value)| (status.as_u16(), value))
    }

    #[test]
    fn lists_are_empty_and_watches_silent_for_every_resource() {
        for path in [
            "/api/v1/services",
            "/api/v1/namespaces/default/configmaps",
            "/apis/discovery.k8s.io/v1/endpointslices",
            "/apis/x.io/v1/namespaces/a/things",
        ] {
            let (status, list) = asked(path, "limit=500").expect("a list");
            assert_eq!((status, &list["items"]), (200, &json!([])), "{path}");
            assert_eq!(asked(path, "watch=true&resourceVersion=1"), None, "{path}");
            assert_eq!(asked(path, "sendInitialEvents=true&watch=true").expect("no").0, 422);
        }
        assert_eq!(asked("/api/v1/namespaces/default/configmaps/one", "").expect("no").0, 404);
        assert_eq!(asked("/version", "").expect("yes").1["major"], "1");
        let written = said(&Method::POST, "/api/v1/events", "", "").expect("no");
        assert_eq!(written.0, StatusCode::FORBIDDEN);
    }

    #[tokio::test]
    async fn it_is_reached_as_its_kubeconfig_says() {
        let stub = Stub::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        assert!(stub.kubeconfig().contains(&format!("http://{}", stub.address)));
        let body = crate::http::get(stub.address, "/api/v1/pods").await.unwrap();
        assert!(body.contains("\"items\":[]"), "{body}");
    }
}
