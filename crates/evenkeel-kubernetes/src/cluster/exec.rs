//! Credential plugins (`client.authentication.k8s.io`): a program that prints a token, as those of
//! the clouds do.

use std::{path::Path, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{process::Command, time::timeout};

/// A plugin that takes longer is ended.
const RUN_MAX: Duration = Duration::from_secs(30);
/// How much of what a plugin says when it fails is shown, in bytes.
const STDERR_SHOWN_MAX: usize = 400;

/// `user.exec` of a kubeconfig.
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Exec {
    pub(super) command: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<Variable>>,
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    provide_cluster_info: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
struct Variable {
    name: String,
    value: String,
}

/// What a plugin printed.
pub(super) struct Printed {
    pub(super) token: String,
    /// Seconds since 1970.
    pub(super) expires_s: Option<u64>,
}

#[derive(Deserialize)]
struct Credential {
    status: Option<CredentialStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CredentialStatus {
    token: Option<String>,
    expiration_timestamp: Option<String>,
    client_certificate_data: Option<String>,
}

impl Exec {
    /// With its path made whole.
    pub(super) fn checked(mut self, folder: &Path) -> Result<Self, String> {
        if self.provide_cluster_info {
            return Err("exec with provideClusterInfo is not supported; expected false".into());
        }
        // As with kubectl: a path is relative to the file, a bare name is looked up in PATH.
        if self.command.contains('/') {
            self.command = folder.join(&self.command).display().to_string();
        }
        Ok(self)
    }

    pub(super) async fn run(&self) -> Result<Printed, String> {
        let fail = |reason: String| format!("the credential plugin {}: {reason}", self.command);
        let version = self.api_version.as_deref().unwrap_or("client.authentication.k8s.io/v1");
        let info = serde_json::json!({
            "apiVersion": version,
            "kind": "ExecCredential",
            "spec": { "interactive": false },
        });
        let mut command = Command::new(&self.command);
        command
            .args(self.args.iter().flatten())
            .envs(self.env.iter().flatten().map(|v| (&v.name, &v.value)))
            .env("KUBERNETES_EXEC_INFO", info.to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(RUN_MAX, command.output())
            .await
            .map_err(|_| fail(format!("it printed nothing within {RUN_MAX:?}")))?
            .map_err(|e| fail(e.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said: String = said.trim().chars().take(STDERR_SHOWN_MAX).collect();
            return Err(fail(format!("{}: {said}", output.status)));
        }
        read(&output.stdout).map_err(fail)
    }
}

fn read(stdout: &[u8]) -> Result<Printed, String> {
    let credential: Credential = serde_json::from_slice(stdout)
        .map_err(|e| format!("expected an ExecCredential in JSON: {e}"))?;
    let status = credential.status.unwrap_or_default();
    let token = status.token.filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| {
        let certificate = status.client_certificate_data.is_some();
        let got = if certificate { "a client certificate, which is not supported" } else { "none" };
        format!("expected status.token, got {got}")
    })?;
    let expires_s = match status.expiration_timestamp {
        Some(text) => Some(seconds(&text).ok_or_else(|| {
            format!("expirationTimestamp is {text:?}; expected e.g. 2026-01-31T12:00:00Z")
        })?),
        None => None,
    };
    Ok(Printed { token, expires_s })
}

/// Seconds since 1970 of an RFC 3339 time in UTC, as Go writes it; fractions are cut.
fn seconds(text: &str) -> Option<u64> {
    let rest = text.strip_suffix(['Z', 'z'])?;
    let (date, time) = rest.split_once(['T', 't'])?;
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let numbers = |text: &str, by: char| -> Option<[u64; 3]> {
        let parts: Vec<u64> = text.split(by).map(str::parse).collect::<Result<_, _>>().ok()?;
        parts.try_into().ok()
    };
    let ([year, month, day], [hour, minute, second]) = (numbers(date, '-')?, numbers(time, ':')?);
    let sane = (1970..=9999).contains(&year) && (1..=12).contains(&month);
    if !sane || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970 in the calendar whose years begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T12:34:56Z"), Some(951_827_696));
        assert_eq!(seconds("2026-11-29T21:00:00.123456Z"), Some(1_795_986_000));
        for bad in ["", "2026-11-29", "2026-13-01T00:00:00Z", "2026-11-29T25:00:00Z", "x-y-zT::Z"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn reads_what_a_plugin_prints() {
        let text = br#"{"kind":"ExecCredential","status":{"token":"t",
            "expirationTimestamp":"1970-01-01T00:01:00Z"}}"#;
        let printed = read(text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((printed.token.as_str(), printed.expires_s), ("t", Some(60)));
        for (text, want) in [
            ("", "expected an ExecCredential in JSON"),
            ("{}", "expected status.token, got none"),
            (r#"{"status":{"clientCertificateData":"x"}}"#, "which is not supported"),
            (r#"{"status":{"token":"t","expirationTimestamp":"soon"}}"#, "expected e.g. 2026"),
        ] {
            let error = read(text.as_bytes()).err().unwrap_or_default();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
