//! The services on demand that one stream uses (`--namespaces`): those that it names. A client that
//! wants everything wants what there is, and brings nothing here; what it then asks for by name
//! follows from what it was told, and keeps nothing here.
//!
//! A name of which nothing comes stays wanted, as xDS has it: it is looked for again every
//! [`ON_DEMAND_RETRY`], because nobody watches Services that nobody uses. The client has been told
//! that it does not exist, and hears of that only when it does: told each time that it might, its
//! calls would wait and fail in turn.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{Kind, machine::Machine};
use crate::control::{Control, Subscriber};

/// Names of one stream that may lead to services on demand.
pub const ON_DEMAND_PER_STREAM_MAX: usize = 200;
/// How often names are looked for again of which nothing came.
pub const ON_DEMAND_RETRY: Duration = Duration::from_secs(30);
/// How long the API server may take to answer before somebody looks whether it has.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// By what was asked for.
    names: BTreeMap<(Kind, String), Wanted>,
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Wanted {
    /// Not set where nothing is there on demand.
    subscriber: Option<Subscriber>,
    /// The view has heard that it is asked for.
    is_asked: bool,
}

/// Some names were left out: there are as many as one stream may have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Demand {
    /// Takes names that a client asks for, of which its view is told; those that can't lead to a
    /// service on demand are passed over.
    pub(super) fn add(
        &mut self,
        control: &Control,
        kind: Kind,
        names: &[String],
        now: Instant,
    ) -> Result<(), TooMany> {
        for name in names {
            let key = (kind, name.clone());
            if self.names.contains_key(&key) || !is_served(control, kind, name) {
                continue;
            }
            if self.names.len() == ON_DEMAND_PER_STREAM_MAX {
                return Err(TooMany);
            }
            let wanted = Wanted { subscriber: control.subscribe(name), is_asked: true };
            self.names.insert(key, wanted);
            self.retry_at.get_or_insert(now + ON_DEMAND_RETRY);
        }
        Ok(())
    }

    /// Lets go of what is not asked for any more.
    pub(super) fn keep(&mut self, machine: &Machine) {
        self.names.retain(|(kind, name), _| machine.names(*kind, name));
        if self.names.is_empty() {
            self.retry_at = None;
        }
    }

    /// When [`Demand::look_again`] is wanted.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Looks for those again of which nothing is there, when it is time. Returns those that have
    /// been found since.
    pub(super) fn look_again(&mut self, control: &Control, now: Instant) -> Vec<(Kind, String)> {
        if self.retry_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let (mut found, mut wait) = (Vec::new(), ON_DEMAND_RETRY);
        for ((kind, name), wanted) in &mut self.names {
            let served = |one: &Wanted| one.subscriber.as_ref().is_some_and(Subscriber::is_served);
            if !served(wanted) {
                let subscriber = control.subscribe(name);
                // What is configured by now has no subscriber.
                let is_asked = subscriber.is_none() && control.resolve(name).is_err();
                *wanted = Wanted { subscriber, is_asked };
            }
            if wanted.is_asked {
                continue;
            }
            if wanted.subscriber.as_ref().is_none_or(Subscriber::is_known) {
                wanted.is_asked = true;
                found.push((*kind, name.clone()));
            } else {
                wait = ANSWER_WAIT;
            }
        }
        self.retry_at = Some(now + wait);
        found
    }
}

/// Whether a name is of a namespace of which every Service is served. Listeners have every form of
/// a name, the others only the service's key.
fn is_served(control: &Control, kind: Kind, name: &str) -> bool {
    let key = control.directory().names.on_demand(name);
    key.is_some_and(|key| kind == Kind::Listener || key.to_string() == name)
}

#[cfg(test)]
mod tests {
    use evenkeel_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

    use super::{super::machine::Variant, *};
    use crate::{config::Config, key::ServiceKey, merge::Change, names::NameRules};

    fn control() -> Control {
        let rules = NameRules { namespaces: ["default".to_owned()].into(), ..NameRules::default() };
        let control = Control::new(rules, Config::default());
        let yaml = "services: [{name: configured, endpoints: []}]";
        control.configure(&Config::from_yaml(yaml, "test", "default").expect("good"));
        control
    }

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    /// The services that are watched because of it.
    fn wanted(control: &Control) -> Vec<String> {
        control.wanted().borrow().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_of_a_served_namespace_bring_their_service_and_others_nothing() {
        let (control, mut demand, now) = (control(), Demand::default(), Instant::now());
        let mut add =
            |kind, names: &[&str]| demand.add(&control, kind, &strings(names), now).expect("few");
        add(Kind::Listener, &["a.default.svc.cluster.local:80", "b.elsewhere", "configured", "*"]);
        add(Kind::Cluster, &["b", "b.default:80", "ingress/b.default"]);
        assert_eq!(wanted(&control), ["a.default"], "a cluster is called like its key");
        add(Kind::Cluster, &["b.default"]);
        add(Kind::Endpoint, &["c.default"]);
        assert_eq!(wanted(&control), ["a.default", "b.default", "c.default"]);
    }

    #[test]
    fn what_is_not_named_any_more_is_let_go_of() {
        let (control, mut demand, now) = (control(), Demand::default(), Instant::now());
        let mut machine = Machine::new(Variant::Delta);
        let names = strings(&["a.default", "b.default"]);
        demand.add(&control, Kind::Cluster, &names, now).expect("few");
        let request = DeltaDiscoveryRequest {
            type_url: Kind::Cluster.type_url().into(),
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        };
        machine.delta(request.clone()).expect("a good request");
        demand.keep(&machine);
        assert_eq!(demand.names.len(), 2);
        let request = DeltaDiscoveryRequest {
            resource_names_unsubscribe: request.resource_names_subscribe,
            resource_names_subscribe: Vec::new(),
            ..request
        };
        machine.delta(request).expect("a good request");
        demand.keep(&machine);
        assert_eq!((demand.names.len(), demand.retry_at()), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_exist_is_looked_for_again_and_told_when_it_does() {
        let (control, mut demand, now) = (control(), Demand::default(), Instant::now());
        let key = ServiceKey::parse("a", "default").expect("a key");
        demand.add(&control, Kind::Listener, &strings(&["a", "b"]), now).expect("few");
        assert!(control.absent(&key));
        assert!(demand.look_again(&control, now).is_empty(), "it is not time");
        assert_eq!(wanted(&control), ["b.default"]);
        tokio::time::advance(ON_DEMAND_RETRY).await;
        assert!(demand.look_again(&control, Instant::now()).is_empty(), "nobody knows yet");
        assert_eq!(wanted(&control), ["a.default", "b.default"]);
        assert_eq!(demand.retry_at(), Some(Instant::now() + ANSWER_WAIT));
        control.watched(&key, Change::Replace(Vec::new()));
        tokio::time::advance(ANSWER_WAIT).await;
        let found = demand.look_again(&control, Instant::now());
        assert_eq!(found, [(Kind::Listener, "a".to_owned())]);
        assert_eq!(demand.retry_at(), Some(Instant::now() + ON_DEMAND_RETRY));
        tokio::time::advance(ON_DEMAND_RETRY).await;
        assert!(demand.look_again(&control, Instant::now()).is_empty(), "once");
    }

    #[test]
    fn a_stream_has_a_limit() {
        let (control, mut demand, now) = (control(), Demand::default(), Instant::now());
        let names: Vec<String> = (0..=ON_DEMAND_PER_STREAM_MAX).map(|n| format!("s{n}")).collect();
        assert_eq!(demand.add(&control, Kind::Listener, &names, now), Err(TooMany));
        assert_eq!(wanted(&control).len(), ON_DEMAND_PER_STREAM_MAX);
        assert_eq!(demand.add(&control, Kind::Listener, &names[..9], now), Ok(()), "again");
    }
}
