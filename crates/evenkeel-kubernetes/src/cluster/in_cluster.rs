//! What a pod is given: the API server's address in its environment, and the files of its
//! ServiceAccount.

use std::path::Path;

use super::{Cluster, ClusterError, Data, Server, Settings, Token, read_file};

/// Where the kubelet mounts them.
pub(super) const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const SOURCE: &str = "the pod's ServiceAccount";

pub(super) fn read(
    var: impl Fn(&str) -> Option<String>,
    folder: &Path,
) -> Result<Cluster, ClusterError> {
    let bad = |reason: String| ClusterError::Config { source_name: SOURCE.into(), reason };
    let host = var("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty());
    let host = host.ok_or(ClusterError::NotConfigured)?;
    let port = var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".into());
    let port: u16 = port.parse().map_err(|_| {
        bad(format!("KUBERNETES_SERVICE_PORT is {port:?}; expected a number from 1 to 65535"))
    })?;
    let token = folder.join("token");
    if !token.is_file() {
        return Err(bad(format!(
            "{} is missing; automountServiceAccountToken must not be false for this pod",
            token.display()
        )));
    }
    let namespace = match read_file(&folder.join("namespace")) {
        Ok(text) => String::from_utf8_lossy(&text).trim().to_owned(),
        Err(_) => "default".to_owned(),
    };
    let settings = Settings {
        server: Server { https: true, host, port, prefix: String::new() },
        tls_server_name: None,
        roots: Some(Data::File(folder.join("ca.crt"))),
        identity: None,
        token: Token::File(token),
    };
    Cluster::new(settings, &namespace, SOURCE)
}
