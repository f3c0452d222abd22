//! `round_robin` has no settings; any object is accepted, as gRPC does.

use std::{any::Any, sync::Arc};

use serde_json::Value;

use super::RoundRobin;
use crate::{ConfigError, LbPolicy, PolicyFactory, PolicyRegistry};

/// Makes [`RoundRobin`] policies.
pub struct Factory;

impl PolicyFactory for Factory {
    fn name(&self) -> &str {
        "round_robin"
    }

    fn parse_config(
        &self,
        json: &Value,
        _registry: &PolicyRegistry,
    ) -> Result<Arc<dyn Any + Send + Sync>, ConfigError> {
        if json.is_object() {
            Ok(Arc::new(()))
        } else {
            Err(ConfigError::new("", "an object", json))
        }
    }

    fn build(&self) -> Box<dyn LbPolicy> {
        Box::new(RoundRobin::new())
    }
}
