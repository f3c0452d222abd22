//! Which scenarios there are, and which of them may run side by side.
//!
//! Most of a scenario is waiting, so two lanes halve the time. A third would put two loads of 500
//! calls a second on the same two cores, and then the figures of `kill9` and `maxage` are those of
//! the machine and no longer those of the client.

use super::error::Error;

/// Scenarios of `reference.py` that make few calls: about 95 s.
pub(crate) const QUIET: &[&str] = &["dnsadd", "dnsdel", "dnsfail", "empty", "wfr", "srv"];

/// Scenarios of `reference.py` that load the machine: about 150 s.
pub(crate) const LOUD: &[&str] =
    &["dist", "cold", "dead", "kill9", "drain", "maxage", "health", "retry", "grpclb"];

/// Other people's clients and tools against our greeter: about 50 s, after the lanes.
pub(crate) const GREETER: &str = "greeter";

/// Other people's grpclb clients and tools against our balancer: about 125 s, after the lanes.
pub(crate) const BALANCER: &str = "balancer";

/// Our client against every knob of `peer balancer`, and grpc-go's own: 30 s, after the lanes.
pub(crate) const LOOKASIDE: &str = "lookaside";

/// Other people's xDS clients and Envoy under our control plane: about 105 s, after the lanes.
pub(crate) const CONTROL_PLANE: &str = "xds";

/// gRPC's interop cases between us and grpc-go: about 5 s, after the lanes.
pub(crate) const INTEROP: &str = "interop";

/// Every scenario's name.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let apart = [LOOKASIDE, GREETER, BALANCER, CONTROL_PLANE, INTEROP];
    LOUD.iter().chain(QUIET).copied().chain(apart)
}

/// The scenarios that `--only` asks for; all of them if it is empty.
pub(crate) fn select(only: &[String]) -> Result<Vec<String>, Error> {
    if let Some(unknown) = only.iter().find(|name| !names().any(|known| known == name.as_str())) {
        let known: Vec<&str> = names().collect();
        return Err(Error::Usage(format!(
            "--only {unknown}: no such scenario, expected some of {}",
            known.join(",")
        )));
    }
    Ok(names()
        .filter(|name| only.is_empty() || only.iter().any(|wanted| wanted == name))
        .map(str::to_owned)
        .collect())
}

/// Those of `selected` that are in `lane`, in the lane's order.
pub(crate) fn of_lane(lane: &[&'static str], selected: &[String]) -> Vec<&'static str> {
    lane.iter().copied().filter(|name| selected.iter().any(|wanted| wanted == name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_all_without_only_and_refuses_unknown_names() {
        assert_eq!(select(&[]).unwrap().len(), 20);
        assert_eq!(select(&["wfr".into(), "dist".into()]).unwrap(), ["dist", "wfr"]);
        let refused = select(&["dst".into()]).unwrap_err();
        assert_eq!(refused.exit_code(), 64);
        assert!(refused.to_string().contains("--only dst"));
    }

    #[test]
    fn lanes_share_no_scenario() {
        assert!(LOUD.iter().all(|name| !QUIET.contains(name)));
        assert_eq!(of_lane(QUIET, &["wfr".into(), "dist".into()]), ["wfr"]);
    }
}
