//! Which of the service configs that a name publishes is a client's (gRFC A2): the first choice
//! whose language, percentage and host name fit.

use std::sync::Arc;

use evenkeel_core::{PolicyRegistry, ServiceConfig};
use serde_json::Value;

/// Choices of one text that are looked at.
const CHOICES_MAX: usize = 64;
/// By what name a choice can mean us.
const LANGUAGE: &str = "rust";

/// Who chooses: drawn once for a resolver, so that a client does not change sides at each look-up.
pub(super) struct Chooser {
    pub(super) registry: PolicyRegistry,
    /// 0 to 99.
    pub(super) percent: u8,
    /// This machine's name, as the system tells it.
    pub(super) host: String,
}

impl Chooser {
    /// The config in a text; `None` when no choice is meant for this client.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, or with the config that was chosen.
    pub(super) fn choose(&self, text: &str) -> Result<Option<Arc<ServiceConfig>>, String> {
        let list: Value = serde_json::from_str(text).map_err(|e| format!("expected JSON ({e})"))?;
        let expected = "expected a list of objects with a serviceConfig";
        let choices = list.as_array().ok_or(expected)?;
        for choice in choices.iter().take(CHOICES_MAX) {
            let choice = choice.as_object().ok_or(expected)?;
            let config = choice.get("serviceConfig").ok_or(expected)?;
            let among = |field: &str, ours: &str| match choice.get(field) {
                None => true,
                Some(list) => list.as_array().is_none_or(|names| {
                    let is_ours =
                        |n: &Value| n.as_str().is_some_and(|n| n.eq_ignore_ascii_case(ours));
                    names.is_empty() || names.iter().any(is_ours)
                }),
            };
            let percentage = choice.get("percentage").map_or(100, |v| v.as_u64().unwrap_or(0));
            let fits = among("clientLanguage", LANGUAGE)
                && among("clientHostname", &self.host)
                && u64::from(self.percent) < percentage;
            if fits {
                let parsed = ServiceConfig::parse(&config.to_string(), &self.registry);
                return parsed.map(|config| Some(Arc::new(config))).map_err(|e| e.to_string());
            }
        }
        Ok(None)
    }
}

/// This machine's name; empty when the system does not tell.
pub(super) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(text: &str) -> Result<Option<String>, String> {
        let registry = PolicyRegistry::built_in();
        let chooser = Chooser { registry, percent: 30, host: "pod-1".into() };
        let chosen = chooser.choose(text)?;
        Ok(chosen.map(|config| config.policy.as_ref().map_or("none", |p| p.name()).to_owned()))
    }

    #[test]
    fn the_first_choice_that_fits_is_taken() {
        let rr = r#""serviceConfig":{"loadBalancingConfig":[{"round_robin":{}}]}"#;
        let pf = r#""serviceConfig":{"loadBalancingConfig":[{"pick_first":{}}]}"#;
        for (text, want) in [
            ("[]".to_owned(), None),
            (format!("[{{{rr}}},{{{pf}}}]"), Some("round_robin")),
            (format!("[{{\"clientLanguage\":[\"go\"],{rr}}},{{{pf}}}]"), Some("pick_first")),
            (format!("[{{\"clientLanguage\":[\"go\",\"Rust\"],{rr}}}]"), Some("round_robin")),
            (format!("[{{\"clientLanguage\":[],{rr}}}]"), Some("round_robin")),
            (format!("[{{\"percentage\":30,{rr}}},{{{pf}}}]"), Some("pick_first")),
            (format!("[{{\"percentage\":31,{rr}}},{{{pf}}}]"), Some("round_robin")),
            (format!("[{{\"percentage\":0,{rr}}}]"), None),
            (format!("[{{\"clientHostname\":[\"pod-2\"],{rr}}},{{{pf}}}]"), Some("pick_first")),
            (format!("[{{\"clientHostname\":[\"pod-1\"],{rr}}}]"), Some("round_robin")),
            ("[{\"serviceConfig\":{}}]".to_owned(), Some("none")),
        ] {
            assert_eq!(choose(&text), Ok(want.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn a_bad_text_says_what_was_expected() {
        for (text, says) in [
            ("", "expected JSON"),
            ("{}", "expected a list of objects"),
            ("[7]", "expected a list of objects"),
            ("[{}]", "with a serviceConfig"),
            (r#"[{"serviceConfig":7}]"#, "expected a JSON object, got 7"),
            (r#"[{"serviceConfig":{"loadBalancingConfig":[{"p2c":{}}]}}]"#, "a policy among"),
        ] {
            let error = choose(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
