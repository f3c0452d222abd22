//! Kubeconfig files (`kubectl config view`): the current context's cluster and user. What is not
//! understood and would change whom one talks to, or as whom, is refused and not passed over.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Cluster, ClusterError, Data, Server, Settings, Token, base64, exec::Exec, read_file};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    current_context: Option<String>,
    contexts: Option<Vec<NamedContext>>,
    clusters: Option<Vec<NamedCluster>>,
    users: Option<Vec<NamedUser>>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: Option<String>,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: ClusterEntry,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    tls_server_name: Option<String>,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: Option<User>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    #[serde(rename = "client-certificate")]
    certificate: Option<PathBuf>,
    #[serde(rename = "client-certificate-data")]
    certificate_data: Option<String>,
    #[serde(rename = "client-key")]
    key: Option<PathBuf>,
    #[serde(rename = "client-key-data")]
    key_data: Option<String>,
    exec: Option<Exec>,
    username: Option<String>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
    #[serde(rename = "auth-provider")]
    auth_provider: Option<serde_json::Value>,
}

/// The merged files: of entries with one name the first counts, as with `kubectl`.
#[derive(Default)]
struct Merged {
    /// With the folder that relative paths in it start from.
    contexts: Vec<NamedContext>,
    clusters: Vec<(PathBuf, NamedCluster)>,
    users: Vec<(PathBuf, NamedUser)>,
    current: Option<String>,
}

/// The current context of these files together.
pub(super) fn read(paths: &[PathBuf]) -> Result<Cluster, ClusterError> {
    let name = paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(":");
    let bad = |reason: String| ClusterError::Config { source_name: name.clone(), reason };
    let merged = merge(paths)?;
    let current = merged.current.filter(|name| !name.is_empty());
    let current = current.ok_or_else(|| {
        bad("it has no current-context; set one with kubectl config use-context".into())
    })?;
    let missing = |what: &str, name: &str| bad(format!("expected {what} {name:?}, found none"));
    let context = merged.contexts.into_iter().find(|c| c.name == current);
    let context = context.ok_or_else(|| missing("a context", &current))?.context;
    let cluster = merged.clusters.into_iter().find(|(_, c)| c.name == context.cluster);
    let (folder, cluster) = cluster.ok_or_else(|| missing("a cluster", &context.cluster))?;
    let mut settings = cluster_settings(&folder, cluster.cluster)
        .map_err(|reason| bad(format!("cluster {:?}: {reason}", context.cluster)))?;
    if let Some(wanted) = context.user.filter(|user| !user.is_empty()) {
        let user = merged.users.into_iter().find(|(_, u)| u.name == wanted);
        let (folder, user) = user.ok_or_else(|| missing("a user", &wanted))?;
        add_user(&mut settings, &folder, user.user.unwrap_or_default())
            .map_err(|reason| bad(format!("user {wanted:?}: {reason}")))?;
    }
    let namespace = context.namespace.filter(|namespace| !namespace.is_empty());
    Cluster::new(settings, namespace.as_deref().unwrap_or("default"), &name)
}

fn merge(paths: &[PathBuf]) -> Result<Merged, ClusterError> {
    let mut merged = Merged::default();
    // As with kubectl: of several files some may be missing.
    let several = paths.len() > 1;
    for path in paths.iter().filter(|path| !several || path.exists()) {
        let bad = |reason: String| ClusterError::Config {
            source_name: path.display().to_string(),
            reason,
        };
        let text = String::from_utf8(read_file(path)?)
            .map_err(|_| bad("expected a kubeconfig in YAML, and it is not UTF-8".into()))?;
        let file: File = serde_saphyr::from_str(&text)
            .map_err(|e| bad(format!("expected a kubeconfig in YAML: {e}")))?;
        let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        merged.current = merged.current.or(file.current_context);
        merged.contexts.extend(file.contexts.unwrap_or_default());
        let clusters = file.clusters.unwrap_or_default().into_iter();
        merged.clusters.extend(clusters.map(|cluster| (folder.clone(), cluster)));
        let users = file.users.unwrap_or_default().into_iter();
        merged.users.extend(users.map(|user| (folder.clone(), user)));
    }
    Ok(merged)
}

fn cluster_settings(folder: &Path, cluster: ClusterEntry) -> Result<Settings, String> {
    if cluster.insecure_skip_tls_verify {
        return Err("insecure-skip-tls-verify is set, and whoever answered could name any \
                    endpoints; give certificate-authority instead (and tls-server-name)"
            .into());
    }
    if cluster.proxy_url.is_some_and(|url| !url.is_empty()) {
        return Err("proxy-url is not supported; expected a server that can be reached".into());
    }
    let server = Server::parse(&cluster.server)?;
    let roots = data(
        folder,
        "certificate-authority-data",
        cluster.certificate_authority_data,
        cluster.certificate_authority,
    )?;
    if server.https && roots.is_none() {
        return Err("expected certificate-authority or certificate-authority-data; the system's \
                    roots are not used"
            .into());
    }
    Ok(Settings {
        server,
        tls_server_name: cluster.tls_server_name.filter(|name| !name.is_empty()),
        roots,
        identity: None,
        token: Token::None,
    })
}

fn add_user(settings: &mut Settings, folder: &Path, user: User) -> Result<(), String> {
    if user.impersonate.is_some() {
        return Err("impersonation (as) is not supported; expected the account itself".into());
    }
    if user.auth_provider.is_some() {
        return Err("auth-provider is gone from Kubernetes; expected exec with its plugin".into());
    }
    if user.username.is_some() {
        return Err("username and password are gone from Kubernetes; expected a token, a client \
                    certificate or exec"
            .into());
    }
    let certificate =
        data(folder, "client-certificate-data", user.certificate_data, user.certificate)?;
    let key = data(folder, "client-key-data", user.key_data, user.key)?;
    settings.identity = match (certificate, key) {
        (Some(certificate), Some(key)) if certificate.is_file() == key.is_file() => {
            Some((certificate, key))
        }
        (Some(_), Some(_)) => {
            return Err("expected client certificate and key both as files or both as data".into());
        }
        (None, None) => None,
        _ => return Err("expected client-certificate and client-key, got one of them".into()),
    };
    let fixed = user.token.filter(|token| !token.is_empty());
    // In kubectl's order.
    settings.token = match (user.token_file, fixed, user.exec) {
        (Some(path), _, _) => Token::File(folder.join(path)),
        (None, Some(token), _) => Token::Fixed(token),
        (None, None, Some(exec)) => Token::Exec(exec.checked(folder)?),
        (None, None, None) => Token::None,
    };
    Ok(())
}

/// Data goes before a file, as with `kubectl`.
fn data(
    folder: &Path,
    name: &str,
    inline: Option<String>,
    path: Option<PathBuf>,
) -> Result<Option<Data>, String> {
    if let Some(inline) = inline.filter(|text| !text.is_empty()) {
        let bytes = base64::decode(&inline).map_err(|e| format!("{name}: {e}"))?;
        return Ok(Some(Data::Bytes(bytes)));
    }
    let path = path.filter(|path| !path.as_os_str().is_empty());
    Ok(path.map(|path| Data::File(folder.join(path))))
}
