//! What an API server does with EndpointSlices, as its clients rely on it. The same assertions run
//! against the double and, when `EVENKEEL_APISERVER` names one (`127.0.0.1:8001`, by `kubectl
//! proxy`), against a real kube-apiserver: so the double can't be kinder than the original.

mod http;

use std::{
    env,
    sync::atomic::{AtomicU32, Ordering},
};

use ::http::Method;
use apiserver::ApiServer;
use serde_json::{Value, json};

use self::http::{Events, send, whole};

/// A server, and a Service on it that is this test's own.
struct Place {
    address: String,
    service: String,
    _double: Option<ApiServer>,
}

static PLACES: AtomicU32 = AtomicU32::new(0);

impl Place {
    async fn new() -> Self {
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let service = format!("place-{}-{number}", std::process::id());
        match env::var("EVENKEEL_APISERVER") {
            Ok(address) => Self { address, service, _double: None },
            Err(_) => {
                let double = ApiServer::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
                let address = double.address().to_string();
                Self { address, service, _double: Some(double) }
            }
        }
    }

    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.service)
    }

    fn slice(&self, name: &str, addresses: &[&str]) -> Value {
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
            .collect();
        // Another manager than the controller, which would delete it.
        json!({
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"name": self.name(name), "labels": {
                "kubernetes.io/service-name": self.service,
                "endpointslice.kubernetes.io/managed-by": "evenkeel-test",
            }},
            "addressType": "IPv4",
            "ports": [{"name": "grpc", "port": 8000, "protocol": "TCP"}],
            "endpoints": endpoints,
        })
    }

    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices{path}");
        let (status, body) = send(&self.address, method, &path, body).await;
        (status.as_u16(), whole(body).await)
    }

    async fn create(&self, slice: &Value) -> Value {
        let (status, created) = self.request(Method::POST, "", Some(slice)).await;
        assert_eq!(status, 201, "{created}");
        created
    }

    async fn replace(&self, name: &str, slice: &Value) -> (u16, Value) {
        self.request(Method::PUT, &format!("/{}", self.name(name)), Some(slice)).await
    }

    async fn delete(&self, name: &str) -> u16 {
        self.request(Method::DELETE, &format!("/{}", self.name(name)), None).await.0
    }

    fn selector(&self) -> String {
        format!("labelSelector=kubernetes.io%2Fservice-name%3D{}", self.service)
    }

    async fn list(&self) -> Value {
        let (status, list) =
            self.request(Method::GET, &format!("?{}", self.selector()), None).await;
        assert_eq!(status, 200, "{list}");
        list
    }

    async fn watch(&self, query: &str) -> Result<Events, (u16, Value)> {
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?watch=true&{}&{query}",
            self.selector()
        );
        let (status, body) = send(&self.address, Method::GET, &path, None).await;
        if status.is_success() {
            Ok(Events::new(body))
        } else {
            Err((status.as_u16(), whole(body).await))
        }
    }

    async fn watch_from(&self, version: &str) -> Events {
        let query = format!("resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=60");
        self.watch(&query).await.unwrap_or_else(|refused| panic!("{refused:?}"))
    }
}

const STREAMING: &str =
    "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

fn version(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    text.parse().unwrap_or_else(|_| panic!("no version: {object}"))
}

fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap_or_default()
}

fn addresses(object: &Value) -> Vec<&str> {
    let endpoints = object["endpoints"].as_array();
    endpoints.into_iter().flatten().filter_map(|e| e["addresses"][0].as_str()).collect()
}

#[tokio::test]
async fn lists_have_a_version_and_only_what_is_selected() {
    let place = Place::new().await;
    let empty = place.list().await;
    assert_eq!(empty["kind"], "EndpointSliceList");
    assert_eq!(empty["apiVersion"], "discovery.k8s.io/v1");
    assert_eq!(empty["items"], json!([]));
    place.create(&place.slice("a", &["10.1.0.1"])).await;
    let mut other = place.slice("b", &["10.1.0.2"]);
    other["metadata"]["labels"]["kubernetes.io/service-name"] = "another".into();
    place.create(&other).await;
    let list = place.list().await;
    assert!(version(&list) > version(&empty));
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(addresses(&items[0]), ["10.1.0.1"]);
    assert!(version(&items[0]) <= version(&list));
    place.delete("a").await;
    place.delete("b").await;
}

#[tokio::test]
async fn writes_are_checked_against_what_is_there() {
    let place = Place::new().await;
    let first = place.slice("a", &["10.1.0.1"]);
    let created = place.create(&first).await;
    let (status, error) = place.request(Method::POST, "", Some(&first)).await;
    assert_eq!((status, error["reason"].as_str()), (409, Some("AlreadyExists")));
    let mut second = place.slice("a", &["10.1.0.2"]);
    second["metadata"]["resourceVersion"] = created["metadata"]["resourceVersion"].clone();
    let (status, replaced) = place.replace("a", &second).await;
    assert_eq!(status, 200, "{replaced}");
    assert!(version(&replaced) > version(&created));
    let (status, error) = place.replace("a", &second).await;
    assert_eq!((status, error["reason"].as_str()), (409, Some("Conflict")), "{error}");
    assert_eq!(error["kind"], "Status");
    assert_eq!(error["code"], 409);
    assert_eq!(place.delete("a").await, 200);
    assert_eq!(place.delete("a").await, 404);
    let (status, error) = place.request(Method::GET, &format!("/{}", place.name("a")), None).await;
    assert_eq!((status, error["reason"].as_str()), (404, Some("NotFound")));
}

#[tokio::test]
async fn a_write_of_the_same_content_is_no_version() {
    let place = Place::new().await;
    let created = place.create(&place.slice("a", &["10.1.0.1"])).await;
    let (_, replaced) = place.replace("a", &place.slice("a", &["10.1.0.1"])).await;
    assert_eq!(version(&replaced), version(&created));
    place.delete("a").await;
}

#[tokio::test]
async fn a_watch_sees_each_change_after_its_version_in_order() {
    let place = Place::new().await;
    let start = place.list().await["metadata"]["resourceVersion"].clone();
    let start = start.as_str().unwrap().to_owned();
    place.create(&place.slice("a", &["10.1.0.1"])).await;
    // What happened before the watch began, and what happens while it runs.
    let mut events = place.watch_from(&start).await;
    let added = events.change().await;
    assert_eq!((kind(&added), addresses(&added["object"])), ("ADDED", vec!["10.1.0.1"]));
    assert_eq!(added["object"]["kind"], "EndpointSlice");
    place.replace("a", &place.slice("a", &["10.1.0.1", "10.1.0.2"])).await;
    let modified = events.change().await;
    assert_eq!(kind(&modified), "MODIFIED");
    assert_eq!(addresses(&modified["object"]), ["10.1.0.1", "10.1.0.2"]);
    place.delete("a").await;
    let deleted = events.change().await;
    assert_eq!(kind(&deleted), "DELETED");
    assert_eq!(addresses(&deleted["object"]), ["10.1.0.1", "10.1.0.2"]);
    let versions = [&added, &modified, &deleted].map(|event| version(&event["object"]));
    assert!(versions.is_sorted() && versions[0] < versions[1] && versions[1] < versions[2]);
    // From the last one on there is nothing but the next.
    let mut later = place.watch_from(&versions[2].to_string()).await;
    place.create(&place.slice("b", &["10.1.0.9"])).await;
    assert_eq!(addresses(&later.change().await["object"]), ["10.1.0.9"]);
    place.delete("b").await;
}

#[tokio::test]
async fn an_object_that_leaves_the_selection_is_deleted_for_the_watch() {
    let place = Place::new().await;
    place.create(&place.slice("a", &["10.1.0.1"])).await;
    let start = version(&place.list().await).to_string();
    let mut events = place.watch_from(&start).await;
    let mut other = place.slice("a", &["10.1.0.1"]);
    other["metadata"]["labels"]["kubernetes.io/service-name"] = "another".into();
    let (_, moved) = place.replace("a", &other).await;
    let deleted = events.change().await;
    assert_eq!((kind(&deleted), version(&deleted["object"])), ("DELETED", version(&moved)));
    place.replace("a", &place.slice("a", &["10.1.0.1"])).await;
    assert_eq!(kind(&events.change().await), "ADDED");
    place.delete("a").await;
}

#[tokio::test]
async fn a_streaming_list_sends_what_is_there_then_its_end_then_changes() {
    let place = Place::new().await;
    place.create(&place.slice("a", &["10.1.0.1"])).await;
    place.create(&place.slice("b", &["10.1.0.2"])).await;
    let at_least = version(&place.list().await);
    let mut events = place.watch(&format!("{STREAMING}&timeoutSeconds=60")).await.unwrap();
    let mut found = Vec::new();
    let end = loop {
        let event = events.next().await.expect("the watch goes on");
        if kind(&event) == "BOOKMARK" {
            break event;
        }
        assert_eq!(kind(&event), "ADDED");
        found.extend(addresses(&event["object"]).into_iter().map(str::to_owned));
    };
    found.sort();
    assert_eq!(found, ["10.1.0.1", "10.1.0.2"]);
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert!(version(&end["object"]) >= at_least);
    place.delete("a").await;
    assert_eq!(kind(&events.change().await), "DELETED");
    place.delete("b").await;
}

#[tokio::test]
async fn a_streaming_list_of_nothing_ends_at_once() {
    let place = Place::new().await;
    let mut events = place.watch(&format!("{STREAMING}&timeoutSeconds=60")).await.unwrap();
    let end = events.next().await.unwrap();
    assert_eq!(kind(&end), "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn a_plain_watch_without_a_version_sends_what_is_there_and_no_end() {
    let place = Place::new().await;
    place.create(&place.slice("a", &["10.1.0.1"])).await;
    let mut events = place.watch("timeoutSeconds=60").await.unwrap();
    assert_eq!(kind(&events.next().await.unwrap()), "ADDED");
    place.delete("a").await;
    assert_eq!(kind(&events.next().await.unwrap()), "DELETED");
}

#[tokio::test]
async fn options_that_do_not_go_together_are_refused() {
    let place = Place::new().await;
    for query in [
        "sendInitialEvents=true&allowWatchBookmarks=true",
        "resourceVersionMatch=NotOlderThan",
        "sendInitialEvents=true&resourceVersionMatch=Exact&allowWatchBookmarks=true",
    ] {
        let refused =
            place.watch(query).await.err().map(|(status, error)| (status, error["kind"].clone()));
        assert_eq!(refused, Some((422, "Status".into())), "{query}");
    }
    let refused = place.watch("resourceVersion=seven").await.err().map(|(status, _)| status);
    assert_eq!(refused, Some(500));
    let (status, _) = place.request(Method::GET, "?resourceVersion=seven", None).await;
    assert_eq!(status, 400);
    let (status, _) = place.request(Method::GET, "?labelSelector=a%20b%3Dc", None).await;
    assert_eq!(status, 400);
}

/// The real one has to have been restarted since it has EndpointSlices: its cache begins then.
#[tokio::test]
async fn a_watch_from_a_version_that_is_too_old_gets_an_error_event() {
    let place = Place::new().await;
    let mut events = place.watch_from("1").await;
    let event = events.next().await.unwrap();
    assert_eq!((kind(&event), &event["object"]["code"]), ("ERROR", &json!(410)), "{event}");
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over_and_says_before_where_to_go_on() {
    let place = Place::new().await;
    let start = version(&place.list().await);
    let began = tokio::time::Instant::now();
    let query = format!("resourceVersion={start}&allowWatchBookmarks=true&timeoutSeconds=6");
    let mut events = place.watch(&query).await.unwrap();
    let mut bookmarks = 0;
    while let Some(event) = events.next().await {
        assert_eq!(kind(&event), "BOOKMARK", "{event}");
        assert!(version(&event["object"]) >= start);
        bookmarks += 1;
    }
    let took = began.elapsed().as_secs_f64();
    assert!((5.5..8.0).contains(&took), "{took} s");
    assert!(bookmarks >= 1);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let place = Place::new().await;
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointcubes";
    let (status, _) = send(&place.address, Method::GET, path, None).await;
    assert_eq!(status.as_u16(), 404);
}
