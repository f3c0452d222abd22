//! Services, names, sources and sync, without streams.

use super::*;
use crate::{snapshot::Endpoint, weights::Source};

fn config(yaml: &str) -> Config {
    Config::from_yaml(yaml, "test", "default").expect("good")
}

fn key(text: &str) -> ServiceKey {
    ServiceKey::parse(text, "default").expect("a key")
}

const TWO: &str = "
services:
- {name: fixed, endpoints: [{address: \"127.0.0.1:1\"}]}
- {name: watched}
";

#[test]
fn it_is_in_sync_when_every_service_has_endpoints_or_none_for_sure() {
    let control = Control::new(NameRules::default(), Config::default());
    control.configure(&Config::default());
    assert!(*control.synced().borrow(), "nothing to wait for");
    let control = Control::new(NameRules::default(), Config::default());
    control.configure(&config(TWO));
    assert!(!*control.synced().borrow());
    assert_eq!(**control.wanted().borrow(), [key("watched")].into());
    assert!(control.watched(&key("watched"), Change::Replace(Vec::new())));
    assert!(*control.synced().borrow());
    control.configure(&config("services: [{name: another}]"));
    assert!(*control.synced().borrow(), "it stays so");
}

#[test]
fn it_is_not_in_sync_before_the_file_has_been_read() {
    let control = Control::new(NameRules::default(), Config::default());
    assert!(!*control.synced().borrow(), "the file may name a service");
    control.configure(&config("services: [{name: watched}]"));
    assert!(!*control.synced().borrow());
    control.watched(&key("watched"), Change::Replace(Vec::new()));
    assert!(*control.synced().borrow());
    let flags = config("services: [{name: fixed, endpoints: [{address: \"127.0.0.1:1\"}]}]");
    let control = Control::new(NameRules::default(), flags);
    assert!(!*control.synced().borrow(), "nor where all services of the flags are known");
    control.configure(&Config::default());
    assert!(*control.synced().borrow());
}

fn on_demand() -> Control {
    let rules = NameRules { namespaces: ["default".to_owned()].into(), ..NameRules::default() };
    let control = Control::new(rules, Config::default());
    control.configure(&Config::default());
    control
}

#[tokio::test(start_paused = true)]
async fn a_service_on_demand_stays_while_it_is_subscribed_to_and_goes_when_it_is_idle() {
    let control = on_demand();
    assert!(control.subscribe("greeter.elsewhere").is_none(), "not such a namespace");
    let (one, two) = (control.subscribe("greeter"), control.subscribe("greeter.default:80"));
    control.watched(&key("greeter"), Change::Replace(Vec::new()));
    drop(one);
    for _ in 0..3 {
        control.sweep();
        tokio::time::advance(crate::ON_DEMAND_IDLE).await;
    }
    let two = two.expect("it is there");
    assert!(two.is_served());
    assert_eq!(**control.wanted().borrow(), [key("greeter")].into());
    drop(two);
    control.sweep();
    assert_eq!(control.wanted().borrow().len(), 1, "it may come back");
    tokio::time::advance(crate::ON_DEMAND_IDLE).await;
    control.sweep();
    assert!(control.wanted().borrow().is_empty());
}

#[test]
fn a_service_on_demand_that_does_not_exist_is_gone_for_who_subscribed_to_it() {
    let control = on_demand();
    let subscriber = control.subscribe("greeter").expect("perhaps it exists");
    assert!(control.absent(&key("greeter")));
    assert!(!subscriber.is_served());
    assert!(control.subscribe("greeter").is_none(), "it has just been looked for");
}

#[test]
fn a_configured_service_is_not_on_demand() {
    let control = on_demand();
    let subscriber = control.subscribe("greeter").expect("it is not configured yet");
    control.configure(&config("services: [{name: greeter}]"));
    assert!(subscriber.is_served(), "its readers keep it");
    assert!(control.subscribe("greeter").is_none());
    assert!(control.directory().on_demand.is_empty());
}

#[test]
fn flags_say_how_weights_follow_the_load_where_a_service_does_not() {
    let flagged = LoadAware { source: Source::Clients, ..LoadAware::default() };
    let flags = Config { load_aware: Some(flagged), ..Config::default() };
    let control = Control::new(NameRules::default(), flags);
    control.configure(&config("services: [{name: a}, {name: b, load_aware: {}}]"));
    let load_aware = control.load_aware().borrow().clone();
    assert_eq!(load_aware[&key("a")], flagged);
    assert_eq!(load_aware[&key("b")], LoadAware::default(), "its own word");
}

#[test]
fn services_that_stay_keep_their_readers_and_those_that_go_tell_them() {
    let control = Control::new(NameRules::default(), Config::default());
    control.configure(&config(TWO));
    let mut fixed = control.follow(&key("fixed")).expect("served");
    let mut watched = control.follow(&key("watched")).expect("served");
    assert_eq!(fixed.borrow_and_update().snapshot().expect("one").version, 1);
    control
        .configure(&config("services: [{name: fixed, endpoints: [{address: \"127.0.0.1:2\"}]}]"));
    assert_eq!(fixed.borrow_and_update().snapshot().expect("one").version, 2);
    assert!(matches!(*watched.borrow_and_update(), Published::Gone));
    assert!(!control.watched(&key("watched"), Change::Replace(Vec::new())));
    assert!(control.follow(&key("watched")).is_none());
}

#[test]
fn the_service_of_the_environment_is_there_unless_something_says_more_of_it() {
    let rules = |text: &str| NameRules {
        default_service: Some(key(text)),
        own: ["grpclb".to_owned()].into(),
        ..NameRules::default()
    };
    let control = Control::new(rules("greeter:8000"), Config::default());
    assert_eq!(control.resolve("grpclb"), Ok(key("greeter:8000")));
    control.configure(&config("services: [{name: greeter, port: 9}, {name: b}]"));
    assert_eq!(control.wanted().borrow().len(), 3, "another port is another service");
    let control = Control::new(rules("fixed"), config(TWO));
    assert_eq!(control.wanted().borrow().len(), 1);
    assert_eq!(control.resolve("grpclb.there:9000"), Ok(key("fixed")));
}

#[test]
fn the_list_is_encoded_once_for_a_snapshot() {
    let control = Control::new(NameRules::default(), config(TWO));
    let service = control.directory().services[&key("fixed")].clone();
    let first = service.current().snapshot().expect("one").clone();
    let list = service.list(&first, None);
    assert!(Arc::ptr_eq(&list, &service.list(&first, None)));
    let endpoints = vec![Endpoint::new(([127, 0, 0, 1], 9).into())];
    let fixed = ServiceConfig { endpoints: Some(endpoints), ..ServiceConfig::default() };
    service.configure(fixed);
    let second = service.current().snapshot().expect("one").clone();
    let newer = service.list(&second, None);
    service.list(&first, None);
    assert!(Arc::ptr_eq(&newer, &service.list(&second, None)));
}

#[test]
fn sources_are_good_or_bad_and_tell_since_when() {
    let control = Control::new(NameRules::default(), Config::default());
    control.source("file", Err("no such file".into()));
    control.source("file", Err("no such file".into()));
    let status = control.sources()["file"].clone();
    assert_eq!((status.good, status.failures), (false, 1));
    assert_eq!(status.error.as_deref(), Some("no such file"));
    control.source("file", Ok(()));
    let status = control.sources()["file"].clone();
    assert_eq!((status.good, status.failures, status.error), (true, 1, None));
    let good = control.good();
    assert!(*good.borrow());
    control.source("other", Err("away".into()));
    assert!(!*good.borrow(), "one is enough");
    control.forget_source("other");
    assert!(*good.borrow());
}
