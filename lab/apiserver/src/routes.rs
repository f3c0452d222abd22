//! What each request means: the paths of `discovery.k8s.io/v1` EndpointSlices and their verbs.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{
    answer::{self, Body, Refused},
    fault::StreamingLists,
    query::Query,
    selector::Selector,
    server::{Kind, Shared},
    store::Event,
    stream::Watch,
};

const PREFIX: &str = "/apis/discovery.k8s.io/v1/namespaces/";
/// As etcd's.
const OBJECT_BYTES_MAX: usize = 1_536 * 1024;

/// A request, as far as its path and parameters say.
pub(crate) struct Route {
    namespace: String,
    /// `None`: the collection.
    name: Option<String>,
    query: Query,
}

impl Route {
    pub(crate) fn of<B>(request: &Request<B>) -> Result<Self, Refused> {
        let unknown =
            || Refused::new(404, "NotFound", "the server could not find the requested resource");
        let rest = request.uri().path().strip_prefix(PREFIX).ok_or_else(unknown)?;
        let mut parts = rest.split('/').filter(|part| !part.is_empty());
        let namespace = parts.next().ok_or_else(unknown)?.to_owned();
        if parts.next() != Some("endpointslices") {
            return Err(unknown());
        }
        let name = parts.next().map(str::to_owned);
        if parts.next().is_some() {
            return Err(unknown());
        }
        let query = Query::parse(request.uri().query().unwrap_or_default());
        Ok(Self { namespace, name, query })
    }

    pub(crate) fn kind(&self, method: &Method) -> Kind {
        let watch = self.query.flag("watch") == Some(true);
        match (method == Method::GET, watch, self.query.flag("sendInitialEvents")) {
            (false, ..) => Kind::Write,
            (true, true, Some(true)) => Kind::StreamingList,
            (true, true, _) => Kind::Watch,
            (true, false, _) if self.name.is_some() => Kind::Get,
            (true, false, _) => Kind::List,
        }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }
}

/// Answers a request for which no fault is set.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    route: Route,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refused> {
    let kind = route.kind(request.method());
    match (request.method().clone(), &route.name) {
        (Method::GET, None) if matches!(kind, Kind::Watch | Kind::StreamingList) => {
            watch(shared, &route)
        }
        (Method::GET, None) => list(shared, &route),
        (Method::GET, Some(name)) => {
            let store = shared.store();
            let found = store.get(&route.namespace, name);
            found.map(|o| answer::json(StatusCode::OK, o)).ok_or_else(|| Refused::not_found(name))
        }
        (Method::POST, None) => {
            let object = object(request).await?;
            let created = shared.store().create(&route.namespace, object)?;
            shared.changed.notify_waiters();
            Ok(answer::json(StatusCode::CREATED, &created))
        }
        (Method::PUT, Some(name)) => {
            let object = object(request).await?;
            let replaced = shared.store().replace(&route.namespace, name, object)?;
            shared.changed.notify_waiters();
            Ok(answer::json(StatusCode::OK, &replaced))
        }
        (Method::DELETE, Some(name)) => {
            shared.store().delete(&route.namespace, name)?;
            shared.changed.notify_waiters();
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Success"});
            Ok(answer::json(StatusCode::OK, &status))
        }
        (method, _) => {
            let message = format!("the server does not allow {method} on the requested resource");
            Err(Refused::new(405, "MethodNotAllowed", message))
        }
    }
}

fn list(shared: &Shared, route: &Route) -> Result<Response<Body>, Refused> {
    let selector = Selector::parse(route.query.text("labelSelector"))?;
    route.query.version(false)?;
    let store = shared.store();
    let items = store.list(&route.namespace, &selector);
    // The items of a list do not repeat their kind.
    let items: Vec<Value> = items
        .iter()
        .map(|item| {
            let mut item = (**item).clone();
            if let Some(fields) = item.as_object_mut() {
                fields.remove("kind");
                fields.remove("apiVersion");
            }
            item
        })
        .collect();
    let list = json!({
        "kind": "EndpointSliceList",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"resourceVersion": store.version().to_string()},
        "items": items,
    });
    Ok(answer::json(StatusCode::OK, &list))
}

fn watch(shared: &Arc<Shared>, route: &Route) -> Result<Response<Body>, Refused> {
    let query = &route.query;
    let selector = Selector::parse(query.text("labelSelector"))?;
    let version = query.version(true)?;
    let known = shared.streaming_lists() != StreamingLists::Unknown;
    let streaming = query.flag("sendInitialEvents").filter(|_| known);
    if known {
        check_streaming(shared, query, streaming)?;
    }
    let (wants_initial, version_at) = match (streaming, version) {
        // "Get state and start at any": a plain watch without a version, or with 0.
        (None, None | Some(0)) => (true, None),
        (None, Some(version)) => (false, Some(version)),
        (Some(streaming), _) => (streaming, version.filter(|_| !streaming)),
    };
    let store = shared.store();
    let objects = if wants_initial { store.list(&route.namespace, &selector) } else { Vec::new() };
    let watch = Watch {
        shared: shared.clone(),
        namespace: route.namespace.clone(),
        selector,
        version: version_at.unwrap_or_else(|| store.version()),
        initial: objects.iter().map(|object| Event::added(object)).collect(),
        marks_initial: streaming == Some(true),
        bookmarks: query.flag("allowWatchBookmarks") == Some(true),
        timeout: query.timeout(),
    };
    Ok(answer::stream(watch.body()))
}

/// `ValidateListOptions` of kube-apiserver.
fn check_streaming(shared: &Shared, query: &Query, streaming: Option<bool>) -> Result<(), Refused> {
    let matches = query.text("resourceVersionMatch");
    let invalid = |what: &str| {
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {what}");
        Err(Refused::new(422, "Invalid", message))
    };
    match streaming {
        None if !matches.is_empty() => invalid(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless \
             sendInitialEvents is provided",
        ),
        None => Ok(()),
        Some(_) if shared.streaming_lists() == StreamingLists::Refused => invalid(
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the \
             WatchList feature gate is enabled",
        ),
        Some(_) if matches != "NotOlderThan" => invalid(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
             resourceVersionMatch to NotOlderThan",
        ),
        Some(true) if query.flag("allowWatchBookmarks") != Some(true) => invalid(
            "allowWatchBookmarks: Forbidden: sendInitialEvents requires allowWatchBookmarks",
        ),
        Some(_) => Ok(()),
    }
}

async fn object(request: Request<Incoming>) -> Result<Value, Refused> {
    let is_json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_none_or(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json {
        let message = "the body of the request was in an unknown format; accepted: JSON";
        return Err(Refused::new(415, "UnsupportedMediaType", message));
    }
    let body = Limited::new(request.into_body(), OBJECT_BYTES_MAX).collect().await;
    let body = body.map_err(|e| Refused::new(413, "RequestEntityTooLarge", e.to_string()))?;
    let object: Value = serde_json::from_slice(&body.to_bytes())
        .map_err(|e| Refused::new(400, "BadRequest", format!("the object is no JSON: {e}")))?;
    if !object["metadata"].is_object() {
        return Err(Refused::new(400, "BadRequest", "the object has no metadata"));
    }
    Ok(object)
}
