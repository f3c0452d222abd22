//! Which API server, and how to speak with it: from the pod's ServiceAccount or from a kubeconfig.

mod base64;
mod credentials;
mod exec;
mod in_cluster;
mod kubeconfig;
mod tls;

use std::{
    env, fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(crate) use self::credentials::Token;
use self::{credentials::Credentials, tls::Tls};
use crate::{ServiceKey, Watch};

/// The largest kubeconfig, token, certificate or key that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A Kubernetes cluster as a client of its API server sees it. Cheap to clone. Clusters with the
/// same server and credentials share their watches, however they were made.
#[derive(Clone)]
pub struct Cluster {
    settings: Arc<Settings>,
    namespace: Arc<str>,
    source: Arc<str>,
    tls: Option<Arc<Tls>>,
    credentials: Arc<Credentials>,
}

/// Why a cluster can't be reached as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// There is neither a kubeconfig nor a ServiceAccount.
    #[error(
        "no Kubernetes cluster is configured: expected KUBECONFIG or ~/.kube/config, or a pod's \
         KUBERNETES_SERVICE_HOST with a mounted ServiceAccount token"
    )]
    NotConfigured,
    /// A file can't be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A kubeconfig, or the pod's environment, does not say what it should.
    #[error("{source_name}: {reason}")]
    Config {
        /// Which one.
        source_name: String,
        /// What was expected, what came, what to do.
        reason: String,
    },
    /// Certificates, keys or the crypto provider can't be used.
    #[error("TLS to the API server: {0}")]
    Tls(String),
}

/// What two clusters have in common when they are the same.
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Settings {
    pub(crate) server: Server,
    /// For the certificate; `None`: the host of `server`.
    pub(crate) tls_server_name: Option<String>,
    pub(crate) roots: Option<Data>,
    /// The client's certificate and key.
    pub(crate) identity: Option<(Data, Data)>,
    pub(crate) token: Token,
}

/// `https://host:port/prefix`, in its parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    pub(crate) https: bool,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Empty, or `/…` without a slash at the end.
    pub(crate) prefix: String,
}

/// What stands in a file, or in the configuration itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Data {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Cluster {
    /// As `kubectl` would find it: the files that `KUBECONFIG` names, else `~/.kube/config`, else
    /// the pod's ServiceAccount. Reads files, some of them anew when they change.
    ///
    /// # Errors
    ///
    /// See [`ClusterError`].
    pub fn infer() -> Result<Self, ClusterError> {
        if let Some(paths) = env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty()) {
            let paths: Vec<PathBuf> =
                env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()).collect();
            return kubeconfig::read(&paths);
        }
        if let Some(home) = env::var_os("HOME") {
            let path = Path::new(&home).join(".kube/config");
            if path.is_file() {
                return kubeconfig::read(&[path]);
            }
        }
        Self::in_cluster()
    }

    /// The cluster that this pod runs in, by its ServiceAccount. The token is read anew for each
    /// request, because it rotates.
    ///
    /// # Errors
    ///
    /// See [`ClusterError`].
    pub fn in_cluster() -> Result<Self, ClusterError> {
        in_cluster::read(|name| env::var(name).ok(), Path::new(in_cluster::FOLDER))
    }

    /// The current context of this kubeconfig.
    ///
    /// # Errors
    ///
    /// See [`ClusterError`].
    pub fn kubeconfig(path: impl Into<PathBuf>) -> Result<Self, ClusterError> {
        kubeconfig::read(&[path.into()])
    }

    /// The namespace of the ServiceAccount or of the context; `default` when it says none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The API server's URL.
    pub fn server(&self) -> String {
        self.settings.server.to_string()
    }

    /// Watches a Service. Nothing happens until [`Watch::changed`] is awaited; all watches of the
    /// process on this Service share one request.
    pub fn watch(&self, key: ServiceKey) -> Watch {
        Watch::join(self.clone(), key)
    }

    pub(crate) fn new(
        settings: Settings,
        namespace: &str,
        source: &str,
    ) -> Result<Self, ClusterError> {
        let tls = if settings.server.https {
            Some(Arc::new(Tls::new(&settings).map_err(|e| ClusterError::Tls(e.to_string()))?))
        } else {
            None
        };
        Ok(Self {
            settings: Arc::new(settings),
            namespace: namespace.into(),
            source: source.into(),
            tls,
            credentials: Arc::default(),
        })
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_deref()
    }

    /// What goes into `Authorization`.
    pub(crate) async fn authorization(&self) -> Result<Option<http::HeaderValue>, String> {
        self.credentials.authorization(&self.settings.token).await
    }

    /// The server did not accept what it was sent last.
    pub(crate) fn forget_credentials(&self) {
        self.credentials.forget();
    }
}

/// Without tokens, keys and the like.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("server", &self.server())
            .field("namespace", &self.namespace)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Server {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("the server is {text:?}; expected a URL, e.g. https://10.96.0.1:443");
        let uri: http::Uri = text.parse().map_err(|_| bad())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let host = uri.host().ok_or_else(bad)?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || uri.query().is_some() {
            return Err(bad());
        }
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { https, host: host.to_owned(), port, prefix })
    }

    /// For `Host`.
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

impl Data {
    fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

/// All of a file that is not too large.
fn read_file(path: &Path) -> Result<Vec<u8>, ClusterError> {
    use std::io::Read as _;

    let fail = |reason: String| ClusterError::File { path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(|e| fail(e.to_string()))?;
    let mut content = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content);
    read.map_err(|e| fail(e.to_string()))?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(fail(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(content)
}

#[cfg(test)]
#[path = "../tests/cluster.rs"]
mod tests;
