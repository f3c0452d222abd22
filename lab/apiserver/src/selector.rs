//! Label selectors, as far as they test equality and presence.

use serde_json::Value;

use crate::answer::Refused;

/// All of its requirements must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq)]
enum Requirement {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

impl Selector {
    pub(crate) fn parse(text: &str) -> Result<Self, Refused> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(Requirement::parse).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn selects(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn parse(text: &str) -> Result<Self, Refused> {
        let requirement = if let Some((key, value)) = text.split_once("!=") {
            Self::IsNot(key.trim().into(), value.trim().into())
        } else if let Some((key, value)) = text.split_once('=') {
            Self::Is(key.trim().into(), value.strip_prefix('=').unwrap_or(value).trim().into())
        } else if let Some(key) = text.strip_prefix('!') {
            Self::HasNot(key.trim().into())
        } else {
            Self::Has(text.into())
        };
        let (Self::Is(key, _) | Self::IsNot(key, _) | Self::Has(key) | Self::HasNot(key)) =
            &requirement;
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if key.is_empty() || !key.chars().all(fits) {
            let message = format!("unable to parse requirement: {text:?}");
            return Err(Refused::new(400, "BadRequest", message));
        }
        Ok(requirement)
    }

    fn holds(&self, labels: &Value) -> bool {
        let get = |key: &str| labels.get(key).and_then(Value::as_str);
        match self {
            Self::Is(key, value) => get(key) == Some(value),
            Self::IsNot(key, value) => get(key) != Some(value),
            Self::Has(key) => get(key).is_some(),
            Self::HasNot(key) => get(key).is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requirements_hold_together() {
        let object = json!({"metadata": {"labels": {"a/b": "x", "c": "y"}}});
        for (text, want) in [
            ("", true),
            ("a/b=x", true),
            ("a/b==x,c", true),
            ("a/b = x, !d", true),
            ("a/b=y", false),
            ("c!=y", false),
            ("d!=y", true),
            ("d", false),
            ("!c", false),
        ] {
            assert_eq!(Selector::parse(text).unwrap().selects(&object), want, "{text}");
        }
        assert!(!Selector::parse("a/b=x").unwrap().selects(&json!({})));
        for bad in ["=x", "a b=x", "a in (b)"] {
            assert_eq!(Selector::parse(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
