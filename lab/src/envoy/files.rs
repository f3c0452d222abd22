//! The files of `envoy/`, and what the lab puts into the place of a cluster's names and addresses.
//!
//! There is no second copy for the lab: the text that a pod runs is the text that is tried here.
//! Each replacement is an exact piece of it that must occur once, so a file that changes under the
//! lab is an error and not an experiment with half of the lab's addresses.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::error::LabError;

/// A file of `envoy/`.
pub(crate) struct File {
    name: &'static str,
    text: &'static str,
}

/// Example 2: the sidecar that knows backends by DNS.
pub(crate) const SIDECAR_STATIC: File =
    File { name: "sidecar-static.yaml", text: include_str!("../../../envoy/sidecar-static.yaml") };
/// Example 3: the sidecar that a balancer tells everything.
pub(crate) const SIDECAR_DYNAMIC: File = File {
    name: "sidecar-dynamic.yaml",
    text: include_str!("../../../envoy/sidecar-dynamic.yaml"),
};
/// Example 4: the client's side.
pub(crate) const MESH_CLIENT: File =
    File { name: "mesh-client.yaml", text: include_str!("../../../envoy/mesh-client.yaml") };
/// Example 4: the server's side.
pub(crate) const MESH_SERVER: File =
    File { name: "mesh-server.yaml", text: include_str!("../../../envoy/mesh-server.yaml") };

/// The admin port; the lab reads the kernel's choice from a file.
const ADMIN: &str = "address: 127.0.0.1, port_value: 9901";
const LISTENER: &str = "address: 0.0.0.0, port_value: 10000";
const BACKENDS: &str = "address: greeter-server, port_value: 8000";
const BALANCER: &str = "address: greeter-server-balancer, port_value: 9000";
const RESOLVERS: &str = "resolvers: []";

/// One replacement: a piece of the file, and what stands there in the lab.
pub(crate) type Replacement = (&'static str, String);

/// The admin port becomes a free one of 127.0.0.1.
pub(crate) fn admin() -> Replacement {
    (ADMIN, "address: 127.0.0.1, port_value: 0".to_owned())
}

/// The listener gets an address of the phase's block, instead of all that the pod has.
pub(crate) fn listener(at: SocketAddrV4) -> Replacement {
    (LISTENER, format!("address: {}, port_value: {}", at.ip(), at.port()))
}

/// The backends' Service gets its name in the lab's DNS.
pub(crate) fn backends(name: &str, port: u16) -> Replacement {
    (BACKENDS, format!("address: {name}., port_value: {port}"))
}

/// The balancer of the phase, without a name. Not for the static sidecar.
pub(crate) fn balancer(at: SocketAddrV4) -> Replacement {
    (BALANCER, format!("address: {}, port_value: {}", at.ip(), at.port()))
}

/// DNS is asked at the lab's server, instead of at those of the pod's resolv.conf.
pub(crate) fn resolver(at: SocketAddrV4) -> Replacement {
    let (ip, port): (&Ipv4Addr, u16) = (at.ip(), at.port());
    let address = format!("{{ address: {ip}, port_value: {port} }}");
    (RESOLVERS, format!("resolvers: [{{ socket_address: {address} }}]"))
}

/// The text of `file` with each of `replacements` made once.
///
/// # Errors
///
/// When a piece that is to be replaced does not occur exactly once.
pub(crate) fn substitute(file: &File, replacements: &[Replacement]) -> Result<String, LabError> {
    let mut text = file.text.to_owned();
    for (piece, by) in replacements {
        let found = text.matches(piece).count();
        if found != 1 {
            let piece = (*piece).to_owned();
            return Err(LabError::Replacement { name: file.name, piece, found });
        }
        text = text.replacen(piece, by, 1);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    fn every_one_hits(file: &File, replacements: &[Replacement]) {
        let text = substitute(file, replacements).unwrap();
        for (piece, by) in replacements {
            assert!(!text.contains(piece), "{}: {piece}", file.name);
            assert_eq!(text.matches(by.as_str()).count(), 1, "{}: {by}", file.name);
        }
        assert_eq!(text.lines().count(), file.text.lines().count(), "{}", file.name);
    }

    #[test]
    fn every_replacement_hits_its_files_once() {
        let dns = || resolver(at("127.64.1.53:4711"));
        let service = backends("greeter.default.svc.cluster.local", 8000);
        let here = listener(at("127.64.1.201:10000"));
        every_one_hits(&SIDECAR_STATIC, &[admin(), here, service, dns()]);
        for file in [&SIDECAR_DYNAMIC, &MESH_CLIENT, &MESH_SERVER] {
            every_one_hits(file, &[admin(), balancer(at("127.64.1.111:9000")), dns()]);
        }
    }

    #[test]
    fn a_piece_that_is_missing_or_ambiguous_is_an_error_with_the_files_name() {
        for (text, found) in [("nothing", "0 times"), ("resolvers: [] resolvers: []", "2 times")] {
            let file = File { name: "x.yaml", text };
            let replacement = resolver(at("127.0.0.1:53"));
            let message = substitute(&file, &[replacement]).expect_err(text).to_string();
            assert!(message.contains("x.yaml"), "{message}");
            assert!(message.contains(found), "{message}");
        }
    }
}
