//! What the API server sends, as far as it is read: `discovery.k8s.io/v1` EndpointSlices, watch
//! events, Status. Own structs instead of `k8s-openapi`'s: of its hundreds of types these are
//! needed, and what an API server leaves out, or writes as `null`, must not cost the rest.

use serde::{Deserialize, Deserializer};

/// Lists and events of this type.
pub(crate) const PATH_PREFIX: &str = "/apis/discovery.k8s.io/v1/namespaces/";

/// One line of a watch.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", content = "object")]
pub(crate) enum Event {
    #[serde(rename = "ADDED")]
    Added(EndpointSlice),
    #[serde(rename = "MODIFIED")]
    Modified(EndpointSlice),
    #[serde(rename = "DELETED")]
    Deleted(EndpointSlice),
    #[serde(rename = "BOOKMARK")]
    Bookmark(Bookmark),
    #[serde(rename = "ERROR")]
    Error(Status),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) resource_version: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) annotations: Annotations,
}

/// The one that matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Annotations {
    #[serde(rename = "k8s.io/initial-events-end")]
    initial_events_end: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Bookmark {
    pub(crate) metadata: Metadata,
}

impl Bookmark {
    /// The state up to here is complete.
    pub(crate) fn ends_initial_events(&self) -> bool {
        self.metadata.annotations.initial_events_end.as_deref() == Some("true")
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct List {
    pub(crate) metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) items: Vec<EndpointSlice>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointSlice {
    pub(crate) metadata: Metadata,
    #[serde(default)]
    pub(crate) address_type: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) endpoints: Vec<Endpoint>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ports: Vec<Port>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Endpoint {
    #[serde(deserialize_with = "or_default")]
    pub(crate) addresses: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) conditions: Conditions,
    pub(crate) zone: Option<String>,
    pub(crate) node_name: Option<String>,
    pub(crate) target_ref: Option<TargetRef>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) hints: Hints,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Conditions {
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TargetRef {
    pub(crate) kind: String,
    pub(crate) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Hints {
    #[serde(deserialize_with = "or_default")]
    pub(crate) for_zones: Vec<ForZone>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ForZone {
    pub(crate) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Port {
    pub(crate) name: Option<String>,
    pub(crate) port: Option<i64>,
    pub(crate) protocol: Option<String>,
}

/// `meta/v1` Status: why a request failed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) message: String,
    pub(crate) reason: String,
    pub(crate) code: u16,
}

/// Go writes an empty list or map as `null` when it was never made.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_or_null_is_empty() {
        let text = r#"{"metadata":{"name":"a","resourceVersion":"7","annotations":null},
            "addressType":"IPv4","endpoints":null,"ports":null}"#;
        let slice: EndpointSlice = serde_json::from_str(text).unwrap();
        assert_eq!((slice.endpoints.len(), slice.ports.len()), (0, 0));
        let text = r#"{"metadata":{},"endpoints":[{"addresses":["10.0.0.1"],"hints":null}]}"#;
        let slice: EndpointSlice = serde_json::from_str(text).unwrap();
        assert_eq!(slice.endpoints[0].conditions.ready, None);
        let list: List = serde_json::from_str(r#"{"metadata":{"resourceVersion":"1"}}"#).unwrap();
        assert!(list.items.is_empty());
    }

    #[test]
    fn the_bookmark_that_ends_the_initial_events_is_told_from_others() {
        let ends = |annotations: &str| {
            let text = format!(
                r#"{{"type":"BOOKMARK","object":{{"kind":"EndpointSlice","metadata":
                {{"resourceVersion":"12"{annotations}}},"endpoints":null,"ports":null}}}}"#
            );
            match serde_json::from_str(&text).unwrap() {
                Event::Bookmark(bookmark) => bookmark.ends_initial_events(),
                other => panic!("{other:?}"),
            }
        };
        assert!(ends(r#","annotations":{"k8s.io/initial-events-end":"true","x":"y"}"#));
        assert!(!ends(r#","annotations":{"x":"y"}"#));
        assert!(!ends(""));
    }
}
