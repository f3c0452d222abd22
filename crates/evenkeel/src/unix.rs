//! Targets `unix:path` and `unix-abstract:name`
//! (<https://github.com/grpc/grpc/blob/master/doc/naming.md>): a sidecar on the same machine.

use std::{path::PathBuf, sync::Arc};

use evenkeel_core::{
    Address, Endpoint, ResolverFactory, ResolverSink, ResolverTask, ResolverUpdate, Target,
    TargetError,
};

/// The longest path or name that a Unix socket's address holds (unix(7)), in bytes.
const PATH_LEN_MAX: usize = 107;

pub(crate) struct UnixResolverFactory;

fn address(target: &Target) -> Result<Address, TargetError> {
    let bad = |reason: String| Err(TargetError::new(&target.to_string(), reason));
    if !target.authority().is_empty() {
        let example = format!("{}:///run/greeter.sock", target.scheme());
        return bad(format!("expected no authority; did you mean {example}?"));
    }
    // `unix:///run/x` is absolute: the slash after the empty authority belongs to the path.
    let has_authority = target.to_string().starts_with(&format!("{}://", target.scheme()));
    let root = if has_authority && target.scheme() == "unix" { "/" } else { "" };
    let path = format!("{root}{}", target.path());
    if path.len() > PATH_LEN_MAX {
        return bad(format!("expected at most {PATH_LEN_MAX} bytes of path, got {}", path.len()));
    }
    Ok(match target.scheme() {
        "unix-abstract" => Address::UnixAbstract(path),
        _ => Address::Unix(PathBuf::from(path)),
    })
}

impl ResolverFactory for UnixResolverFactory {
    fn schemes(&self) -> &[&str] {
        &["unix", "unix-abstract"]
    }

    /// A path is no authority; gRPC's clients say `localhost`.
    fn default_authority(&self, target: &Target) -> Result<String, TargetError> {
        address(target).map(|_| "localhost".to_owned())
    }

    fn start(
        &self,
        target: &Target,
        sink: Arc<dyn ResolverSink>,
    ) -> Result<ResolverTask, TargetError> {
        let endpoint = Endpoint::new(address(target)?);
        Ok(Box::pin(async move { sink.update(ResolverUpdate::new(vec![endpoint])) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let target = Target::parse(text, UnixResolverFactory.schemes()).unwrap();
        address(&target).map(|a| a.to_string()).map_err(|e| e.reason)
    }

    #[test]
    fn reads_paths_and_abstract_names() {
        let cases = [
            ("unix:/run/greeter.sock", "unix:/run/greeter.sock"),
            ("unix:///run/greeter.sock", "unix:/run/greeter.sock"),
            ("unix:greeter.sock", "unix:greeter.sock"),
            ("unix-abstract:greeter", "unix-abstract:greeter"),
            ("unix-abstract:///greeter", "unix-abstract:greeter"),
        ];
        for (text, want) in cases {
            assert_eq!(read(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_authorities_and_overlong_paths() {
        let error = read("unix://host/run/x").unwrap_err();
        assert!(error.contains("did you mean unix:///run/greeter.sock?"), "{error}");
        let error = read(&format!("unix:/{}", "x".repeat(107))).unwrap_err();
        assert_eq!(error, "expected at most 107 bytes of path, got 108");
    }
}
