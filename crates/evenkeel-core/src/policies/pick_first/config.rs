//! Settings of `pick_first` (gRFC A62).

use std::{any::Any, sync::Arc};

use serde_json::Value;

use super::PickFirst;
use crate::{ConfigError, LbPolicy, PolicyFactory, PolicyRegistry};

/// Settings of `pick_first`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Try the endpoints in random order, so that clients of one list don't all take its first.
    pub shuffle_address_list: bool,
    /// Is READY only while the connected address is healthy too (gRFC A17, A61). No service config
    /// sets it: it is for the parents that have other children to turn to.
    pub health_check: bool,
}

impl Settings {
    /// The settings of a child of `round_robin` and its relatives.
    pub fn of_a_child() -> Self {
        Self { health_check: true, ..Self::default() }
    }
}

/// Makes [`PickFirst`] policies.
pub struct Factory;

impl PolicyFactory for Factory {
    fn name(&self) -> &str {
        "pick_first"
    }

    fn parse_config(
        &self,
        json: &Value,
        _registry: &PolicyRegistry,
    ) -> Result<Arc<dyn Any + Send + Sync>, ConfigError> {
        let object = json.as_object().ok_or_else(|| ConfigError::new("", "an object", json))?;
        let shuffle_address_list = match object.get("shuffleAddressList") {
            None => false,
            Some(v) => v
                .as_bool()
                .ok_or_else(|| ConfigError::new("shuffleAddressList", "true or false", v))?,
        };
        Ok(Arc::new(Settings { shuffle_address_list, ..Settings::default() }))
    }

    fn build(&self) -> Box<dyn LbPolicy> {
        Box::new(PickFirst::default())
    }
}
