//! Targets: the text that names what a channel connects to
//! (<https://github.com/grpc/grpc/blob/master/doc/naming.md>).

use std::fmt;

use thiserror::Error;

/// The longest target that is read, in bytes.
pub const TARGET_LEN_MAX: usize = 4096;

/// The scheme of a bare `host:port`.
const SCHEME_DEFAULT: &str = "dns";

/// A target split at its seams: `scheme://authority/path`, `scheme:path`, or a bare `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    text: String,
    scheme: String,
    authority: String,
    path: String,
}

/// Why a text is not a target, or why a resolver refuses it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("target {target:?}: {reason}")]
pub struct TargetError {
    /// The text as given (cut when too long).
    pub target: String,
    /// What was expected, what came, what to do.
    pub reason: String,
}

impl TargetError {
    /// An error about `target`.
    pub fn new(target: &str, reason: impl Into<String>) -> Self {
        let shown: String = target.chars().take(200).collect();
        Self { target: shown, reason: reason.into() }
    }
}

impl Target {
    /// Reads a target. A text whose part before the first colon is not in `schemes` is a bare
    /// `host:port` and gets the scheme `dns`, as gRPC does.
    ///
    /// # Errors
    ///
    /// An empty or overlong text, control characters or blanks, `scheme://` of a scheme that is not
    /// in `schemes`, an authority without a path, or a slash in a bare `host:port`.
    pub fn parse(text: &str, schemes: &[&str]) -> Result<Self, TargetError> {
        let bad = |reason: String| Err(TargetError::new(text, reason));
        if text.is_empty() {
            return bad("it is empty; expected e.g. dns:///greeter.default:8000".into());
        }
        if text.len() > TARGET_LEN_MAX {
            return bad(format!("it has {} bytes; at most {TARGET_LEN_MAX}", text.len()));
        }
        if let Some(c) = text.chars().find(|c| c.is_control() || c.is_whitespace()) {
            return bad(format!("it contains {c:?}; expected no blanks or control characters"));
        }
        let (scheme, rest) = match text.split_once(':') {
            Some((s, rest)) if schemes.contains(&s) => (s, rest),
            Some((s, rest)) if rest.starts_with("//") => {
                let known = schemes.join(", ");
                return bad(format!("no resolver for the scheme {s:?}; known are: {known}"));
            }
            _ if text.contains('/') => {
                return bad("expected host:port without a slash, or e.g. dns:///host:port".into());
            }
            _ => (SCHEME_DEFAULT, text),
        };
        let (authority, path) = match rest.strip_prefix("//").map(|r| (r, r.split_once('/'))) {
            None => ("", rest),
            Some((_, Some(split))) => split,
            Some(("", None)) => ("", ""),
            Some((r, None)) => {
                let hint = format!("{scheme}:///{r}");
                return bad(format!("expected a path after {scheme}://{r}; did you mean {hint}?"));
            }
        };
        if path.is_empty() {
            return bad(format!("nothing to resolve after {scheme}:; expected host:port"));
        }
        Ok(Self {
            text: text.into(),
            scheme: scheme.into(),
            authority: authority.into(),
            path: path.into(),
        })
    }

    /// The scheme, e.g. `dns`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// What stands between `//` and the next `/`, e.g. the DNS server; often empty.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What is to be resolved, e.g. `greeter.default:8000`; never empty.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: [&str; 3] = ["dns", "ipv4", "unix"];

    #[test]
    fn splits_a_target_into_scheme_authority_and_path() {
        let cases = [
            ("dns:///greeter.default:8000", "dns", "", "greeter.default:8000"),
            ("dns:greeter:8000", "dns", "", "greeter:8000"),
            ("dns://1.1.1.1:53/greeter:8000", "dns", "1.1.1.1:53", "greeter:8000"),
            ("dns://[2001:db8::1]:53/greeter", "dns", "[2001:db8::1]:53", "greeter"),
            ("greeter:8000", "dns", "", "greeter:8000"),
            ("greeter", "dns", "", "greeter"),
            ("foo:80", "dns", "", "foo:80"),
            ("[::1]:80", "dns", "", "[::1]:80"),
            ("::1", "dns", "", "::1"),
            ("ipv4:10.0.0.1:80,10.0.0.2:80", "ipv4", "", "10.0.0.1:80,10.0.0.2:80"),
            ("ipv4:///10.0.0.1:80", "ipv4", "", "10.0.0.1:80"),
            ("unix:/run/greeter.sock", "unix", "", "/run/greeter.sock"),
            ("unix:///run/greeter.sock", "unix", "", "run/greeter.sock"),
        ];
        for (text, scheme, authority, path) in cases {
            let target = Target::parse(text, &SCHEMES).unwrap();
            let got = (target.scheme(), target.authority(), target.path());
            assert_eq!(got, (scheme, authority, path), "{text}");
            assert_eq!(target.to_string(), text);
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_bad_target() {
        let slash = "expected host:port without a slash, or e.g. dns:///host:port";
        let cases = [
            ("", "it is empty; expected e.g. dns:///greeter.default:8000"),
            (" ", "it contains ' '; expected no blanks or control characters"),
            ("a b:80", "it contains ' '; expected no blanks or control characters"),
            ("a:80\n", "it contains '\\n'; expected no blanks or control characters"),
            ("a\0:80", "it contains '\\0'; expected no blanks or control characters"),
            ("foo://x/y", "no resolver for the scheme \"foo\"; known are: dns, ipv4, unix"),
            ("DNS:///x:80", "no resolver for the scheme \"DNS\"; known are: dns, ipv4, unix"),
            ("://x", "no resolver for the scheme \"\"; known are: dns, ipv4, unix"),
            ("//x", slash),
            ("//x:80", slash),
            ("/x", slash),
            ("x/y:80", slash),
            ("foo:/x", slash),
            (
                "dns://greeter:8000",
                "expected a path after dns://greeter:8000; did you mean dns:///greeter:8000?",
            ),
            ("dns:", "nothing to resolve after dns:; expected host:port"),
            ("dns://", "nothing to resolve after dns:; expected host:port"),
            ("dns:///", "nothing to resolve after dns:; expected host:port"),
            ("dns://1.1.1.1/", "nothing to resolve after dns:; expected host:port"),
        ];
        for (text, want) in cases {
            let error = Target::parse(text, &SCHEMES).unwrap_err();
            assert_eq!(error.reason, want, "{text:?}");
            assert_eq!(error.to_string(), format!("target {text:?}: {want}"));
        }
    }

    #[test]
    fn an_overlong_target_is_refused_and_shown_cut() {
        let error = Target::parse(&"x".repeat(5_000), &SCHEMES).unwrap_err();
        assert_eq!(error.reason, "it has 5000 bytes; at most 4096");
        assert_eq!(error.target.len(), 200);
        assert!(Target::parse(&"x".repeat(TARGET_LEN_MAX), &SCHEMES).is_ok());
    }
}
