//! EndpointSlices as the EndpointSlice controller writes them, from what a test wants to say.

use std::net::IpAddr;

use serde_json::{Value, json};

/// An EndpointSlice of a Service.
#[derive(Clone, Debug)]
pub struct SliceSpec {
    /// Its namespace.
    pub namespace: String,
    /// The Service that it belongs to.
    pub service: String,
    /// Its own name.
    pub name: String,
    /// The name of its port, and the number that its endpoints have.
    pub port: (String, u16),
    /// Of one family.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug)]
pub struct SliceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// It takes connections, and is not about to go.
    pub ready: bool,
    /// It takes connections.
    pub serving: bool,
    /// It is about to go.
    pub terminating: bool,
    /// The pod's name.
    pub pod: String,
    /// The node's name.
    pub node: String,
    /// The node's zone, if it has one.
    pub zone: Option<String>,
    /// For which zones it is hinted.
    pub for_zones: Vec<String>,
}

impl SliceSpec {
    /// The slice `SERVICE-1` of a Service in the namespace `default`, with a port named `grpc`.
    pub fn new(service: &str, port: u16, endpoints: Vec<SliceEndpoint>) -> Self {
        Self {
            namespace: "default".into(),
            service: service.into(),
            name: format!("{service}-1"),
            port: ("grpc".into(), port),
            endpoints,
        }
    }

    pub(crate) fn object(&self) -> Value {
        let ipv6 = self.endpoints.first().is_some_and(|e| e.address.is_ipv6());
        let endpoints: Vec<Value> =
            self.endpoints.iter().map(|e| e.object(&self.namespace)).collect();
        // The controller leaves out the ports of a slice without endpoints.
        let ports = if endpoints.is_empty() {
            Value::Null
        } else {
            json!([{"name": self.port.0, "port": self.port.1, "protocol": "TCP"}])
        };
        let endpoints = if endpoints.is_empty() { Value::Null } else { endpoints.into() };
        json!({
            "metadata": {
                "name": self.name,
                "labels": {
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                    "kubernetes.io/service-name": self.service,
                },
            },
            "addressType": if ipv6 { "IPv6" } else { "IPv4" },
            "endpoints": endpoints,
            "ports": ports,
        })
    }
}

impl SliceEndpoint {
    /// A ready one, of a pod that is named after its address.
    pub fn ready(address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        let name = address.to_string().replace(['.', ':'], "-");
        Self {
            address,
            ready: true,
            serving: true,
            terminating: false,
            pod: format!("pod-{name}"),
            node: "node-1".into(),
            zone: None,
            for_zones: Vec::new(),
        }
    }

    /// One whose pod is being deleted and still serves.
    pub fn terminating(address: impl Into<IpAddr>) -> Self {
        Self { ready: false, terminating: true, ..Self::ready(address) }
    }

    fn object(&self, namespace: &str) -> Value {
        let mut object = json!({
            "addresses": [self.address],
            "conditions": {
                "ready": self.ready,
                "serving": self.serving,
                "terminating": self.terminating,
            },
            "nodeName": self.node,
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": self.pod},
        });
        if let Some(zone) = &self.zone {
            object["zone"] = zone.as_str().into();
        }
        if !self.for_zones.is_empty() {
            let zones: Vec<Value> = self.for_zones.iter().map(|z| json!({"name": z})).collect();
            object["hints"] = json!({"forZones": zones});
        }
        object
    }
}
