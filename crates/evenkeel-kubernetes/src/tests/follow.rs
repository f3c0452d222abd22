//! The follower's rules, with events as text and time as numbers.

use super::*;

const MS: Nanos = 1_000_000;

struct Play {
    follower: Follower,
    rng: fastrand::Rng,
    request: Request,
}

impl Play {
    fn new() -> Self {
        let key = ServiceKey::new("default", "greeter").unwrap();
        let mut follower = Follower::new(key, "http://api".into());
        let mut rng = fastrand::Rng::with_seed(3);
        let request = follower.request(&mut rng);
        Self { follower, rng, request }
    }

    /// Past the first list: slice `a` with one address, version 10.
    fn listed() -> Self {
        let mut play = Self::new();
        assert_eq!(play.event("ADDED", &slice("a", 9, 1)), Ok(Heard::Nothing));
        assert_eq!(play.end_of_initial_events(10), Ok(Heard::Changed));
        play
    }

    fn event(&mut self, kind: &str, object: &str) -> Result<Heard, WatchErrorKind> {
        let line = format!(r#"{{"type":"{kind}","object":{object}}}"#);
        self.follower.line(line.as_bytes()).map_err(|refusal| refusal.error.kind)
    }

    fn end_of_initial_events(&mut self, version: u32) -> Result<Heard, WatchErrorKind> {
        let object = format!(
            r#"{{"metadata":{{"resourceVersion":"{version}",
            "annotations":{{"k8s.io/initial-events-end":"true"}}}}}}"#
        );
        self.event("BOOKMARK", &object)
    }

    /// Ends the request, returns the wait in ms, and makes the next one.
    fn end(&mut self, ended: &Ended) -> Nanos {
        let wait = self.follower.ended(&self.request, ended, &mut self.rng);
        self.request = self.follower.request(&mut self.rng);
        wait / MS
    }

    fn refuse(&mut self, code: u16, retry_after: Option<u64>) -> Nanos {
        let status = api::Status { code, ..api::Status::default() };
        let error = refused("http://api", &self.follower.key, &status);
        let retry_after = retry_after.map(Duration::from_secs);
        self.end(&Ended::Refused(Refusal { error, retry_after }))
    }

    fn names(&self) -> Vec<String> {
        let slices = self.follower.slices().unwrap();
        slices.by_name.keys().map(ToString::to_string).collect()
    }

    fn is_streaming_list(&self) -> bool {
        matches!(self.request, Request::StreamingList { .. })
    }

    fn version(&self) -> &str {
        match &self.request {
            Request::Watch { version, .. } => version,
            other => panic!("expected a watch, got {other:?}"),
        }
    }
}

fn slice(name: &str, version: u32, address: u8) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}},"addressType":"IPv4",
        "ports":[],"endpoints":[{{"addresses":["10.0.0.{address}"]}}]}}"#
    )
}

fn lost() -> Ended {
    Ended::Failed(WatchError::new(WatchErrorKind::Connection, "lost"))
}

#[test]
fn a_streaming_list_counts_when_its_initial_events_have_ended() {
    let mut play = Play::new();
    assert!(play.is_streaming_list());
    assert_eq!(play.event("ADDED", &slice("a", 3, 1)), Ok(Heard::Nothing));
    assert_eq!(play.event("ADDED", &slice("b", 4, 2)), Ok(Heard::Nothing));
    assert_eq!(play.event("DELETED", &slice("b", 5, 2)), Ok(Heard::Nothing));
    let plain = r#"{"metadata":{"resourceVersion":"6"}}"#;
    assert_eq!(play.event("BOOKMARK", plain), Ok(Heard::Nothing));
    assert_eq!(play.follower.slices(), None);
    assert_eq!(play.end_of_initial_events(7), Ok(Heard::Changed));
    assert_eq!(play.names(), ["a"]);
    // The same answer goes on as a watch.
    assert_eq!(play.event("ADDED", &slice("c", 8, 3)), Ok(Heard::Changed));
    assert_eq!(play.names(), ["a", "c"]);
    assert_eq!(play.end(&Ended::InTime), 0);
    assert_eq!(play.version(), "8");
}

#[test]
fn a_service_without_slices_is_an_empty_set() {
    let mut play = Play::new();
    assert_eq!(play.end_of_initial_events(7), Ok(Heard::Changed));
    assert!(play.follower.slices().unwrap().is_empty());
}

#[test]
fn only_what_differs_is_news() {
    let mut play = Play::listed();
    assert_eq!(play.event("MODIFIED", &slice("a", 11, 1)), Ok(Heard::Nothing));
    assert_eq!(play.event("MODIFIED", &slice("a", 12, 2)), Ok(Heard::Changed));
    assert_eq!(play.event("DELETED", &slice("b", 13, 2)), Ok(Heard::Nothing));
    let version = play.follower.slices().unwrap().version();
    assert_eq!(play.event("DELETED", &slice("a", 14, 2)), Ok(Heard::Changed));
    assert_eq!(play.follower.slices().unwrap().version(), version + 1);
    // A bookmark moves the version on and changes nothing.
    let bookmark = r#"{"metadata":{"resourceVersion":"20"}}"#;
    assert_eq!(play.event("BOOKMARK", bookmark), Ok(Heard::Nothing));
    assert_eq!(play.end(&Ended::InTime), 0);
    assert_eq!(play.version(), "20");
}

#[test]
fn servers_without_streaming_lists_are_asked_for_a_list_at_once() {
    for code in [400, 404, 405, 422] {
        let mut play = Play::new();
        assert_eq!(play.refuse(code, None), 0, "{code}");
        assert_eq!(play.request, Request::List);
        let list =
            format!(r#"{{"metadata":{{"resourceVersion":"5"}},"items":[{}]}}"#, slice("a", 4, 1));
        assert_eq!(play.follower.list(list.as_bytes()), Ok(Heard::Changed));
        assert_eq!(play.end(&Ended::InTime), 0);
        assert_eq!(play.version(), "5");
        // For good: the next list is a list as well.
        play.refuse(410, None);
        assert_eq!(play.request, Request::List);
    }
    let mut play = Play::new();
    assert_eq!(play.end(&Ended::NoInitialEventsEnd), 0);
    assert_eq!(play.request, Request::List);
    // The same codes for a list are failures.
    assert!(play.refuse(404, None) >= 800);
}

#[test]
fn a_version_that_is_gone_is_listed_again_and_the_set_is_kept_meanwhile() {
    let mut play = Play::listed();
    let gone = r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old"}"#;
    assert_eq!(play.event("ERROR", gone), Err(WatchErrorKind::Gone));
    assert!(play.refuse(410, None) < 800);
    assert!(play.is_streaming_list());
    assert_eq!(play.names(), ["a"]);
    // The new list replaces the set as a whole.
    play.event("ADDED", &slice("b", 90, 2)).unwrap();
    assert_eq!(play.names(), ["a"]);
    assert_eq!(play.end_of_initial_events(91), Ok(Heard::Changed));
    assert_eq!(play.names(), ["b"]);
    // Again and again it is a failure like others.
    assert!(play.refuse(410, None) < 800);
    assert!((1_600..=4_800).contains(&play.refuse(410, None)));
}

#[test]
fn a_list_that_brings_the_same_set_is_no_news() {
    let mut play = Play::listed();
    play.refuse(410, None);
    play.event("ADDED", &slice("a", 90, 1)).unwrap();
    assert_eq!(play.end_of_initial_events(91), Ok(Heard::Complete));
}

#[test]
fn waits_double_from_0_8_to_30_s_and_start_anew_after_a_good_stream() {
    let mut play = Play::listed();
    let bounds = [(800, 2_400), (1_600, 4_800), (3_200, 9_600), (6_400, 19_200), (10_000, 30_000)];
    for (low, high) in bounds {
        let wait = play.end(&lost());
        assert!((low..=high).contains(&wait), "{wait} is not within {low} and {high}");
    }
    for _ in 0..100 {
        assert!((10_000..=30_000).contains(&play.end(&lost())));
    }
    assert_eq!(play.version(), "10");
    play.event("ADDED", &slice("b", 11, 1)).unwrap();
    assert!((800..=2_400).contains(&play.end(&Ended::Early)));
}

#[test]
fn jitter_uses_all_of_its_range() {
    let mut waits = Vec::new();
    for seed in 0..1_000 {
        let mut play = Play::listed();
        play.rng = fastrand::Rng::with_seed(seed);
        waits.push(play.end(&lost()));
    }
    assert!(waits.iter().min().unwrap() < &820 && waits.iter().max().unwrap() > &2_380);
    let mut timeouts = std::collections::BTreeSet::new();
    for seed in 0..1_000 {
        let mut play = Play::listed();
        play.rng = fastrand::Rng::with_seed(seed);
        play.end(&Ended::InTime);
        timeouts.extend(play.request.timeout_s());
    }
    assert_eq!((timeouts.first(), timeouts.last()), (Some(&24), Some(&36)));
}

#[test]
fn a_server_may_ask_for_a_longer_wait() {
    let mut play = Play::listed();
    assert!((20_000..=24_000).contains(&play.refuse(429, Some(20))));
    assert!((1_600..=4_800).contains(&play.refuse(429, Some(0))));
}

#[test]
fn what_cannot_be_read_is_an_error_and_costs_a_new_list() {
    for line in ["", "{}", "nonsense", r#"{"type":"NEW","object":{}}"#, r#"{"type":"ADDED"}"#] {
        let mut play = Play::listed();
        let refusal = play.follower.line(line.as_bytes()).unwrap_err();
        assert_eq!(refusal.error.kind, WatchErrorKind::Unreadable, "{line}");
        assert!(refusal.error.message.contains("greeter.default"), "{}", refusal.error);
        assert!(play.end(&Ended::Failed(refusal.error)) >= 800);
        assert!(play.is_streaming_list());
        assert_eq!(play.names(), ["a"]);
    }
}

#[test]
fn a_service_has_a_limit() {
    let mut play = Play::listed();
    let endpoints = vec![r#"{"addresses":["10.0.0.1"]}"#; ENDPOINTS_MAX].join(",");
    let huge =
        format!(r#"{{"metadata":{{"name":"b"}},"addressType":"IPv4","endpoints":[{endpoints}]}}"#);
    assert_eq!(play.event("ADDED", &huge), Err(WatchErrorKind::Unreadable));
}

#[test]
fn refusals_say_what_to_do() {
    let key = ServiceKey::new("shop", "greeter").unwrap();
    let message = "endpointslices.discovery.k8s.io is forbidden: User \
                   \"system:serviceaccount:shop:default\" cannot watch resource";
    let status = api::Status { code: 403, message: message.into(), reason: String::new() };
    let text = refused("https://10.96.0.1:443", &key, &status).to_string();
    for part in [
        message,
        "https://10.96.0.1:443 answered 403 for the EndpointSlices of greeter.shop",
        "list and watch endpointslices in namespace shop",
        "apiGroups: [\"discovery.k8s.io\"], resources: [\"endpointslices\"], verbs: [\"list\", \
         \"watch\"]",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let status = api::Status { code: 401, ..api::Status::default() };
    assert!(refused("x", &key, &status).to_string().contains("look at the token"));
}

#[test]
fn paths_are_what_the_api_server_reads() {
    let key = ServiceKey::new("default", "greeter").unwrap();
    let list = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices\
                ?labelSelector=kubernetes.io%2Fservice-name%3Dgreeter";
    assert_eq!(Request::List.path(&key), list);
    let watch = Request::Watch { version: "7&x=ä".into(), timeout_s: 30 };
    assert_eq!(
        watch.path(&key),
        format!(
            "{list}&watch=true&allowWatchBookmarks=true&resourceVersion=7%26x%3D%C3%A4\
             &timeoutSeconds=30"
        )
    );
    let streaming = Request::StreamingList { timeout_s: 24 }.path(&key);
    assert!(streaming.contains("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&"));
}
