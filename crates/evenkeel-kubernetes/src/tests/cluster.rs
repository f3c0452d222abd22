//! Kubeconfigs and ServiceAccounts as files in a folder of the test's own.

use std::fs;

use super::*;

/// A folder that goes away.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("evenkeel-kubernetes-{}-{name}", process_id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn process_id() -> u32 {
    std::process::id()
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn certificate() -> String {
    rcgen::generate_simple_self_signed(["api".to_owned()]).unwrap().cert.pem()
}

fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
current-context: here
preferences: {{}}
contexts:
- name: here
  context:
    cluster: c
    user: u
    namespace: shop
clusters:
- name: c
  cluster:
    {cluster}
users:
- name: u
  user: {user}
"
    )
}

async fn authorization(cluster: &Cluster) -> Result<Option<String>, String> {
    let value = cluster.authorization().await?;
    Ok(value.map(|value| value.to_str().unwrap().to_owned()))
}

#[tokio::test]
async fn a_kubeconfig_gives_server_namespace_and_token() {
    let folder = Folder::new("plain");
    let text = kubeconfig("server: http://127.0.0.1:8080/k8s/", "{token: secret}");
    let cluster = Cluster::kubeconfig(folder.write("config", &text)).unwrap();
    assert_eq!((cluster.namespace(), &*cluster.server()), ("shop", "http://127.0.0.1:8080/k8s"));
    assert_eq!(authorization(&cluster).await, Ok(Some("Bearer secret".into())));
    let shown = format!("{cluster:?}");
    assert!(shown.contains("127.0.0.1:8080") && !shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn files_are_relative_to_the_kubeconfig_and_tokens_are_read_each_time() {
    let folder = Folder::new("files");
    folder.write("ca.crt", &certificate());
    let token = folder.write("token", "one\n");
    let text = kubeconfig(
        "server: https://api:6443\n    certificate-authority: ca.crt",
        "{tokenFile: token}",
    );
    let cluster = Cluster::kubeconfig(folder.write("config", &text)).unwrap();
    assert_eq!(authorization(&cluster).await, Ok(Some("Bearer one".into())));
    fs::write(&token, "two").unwrap();
    assert_eq!(authorization(&cluster).await, Ok(Some("Bearer two".into())));
    fs::write(&token, "\n").unwrap();
    assert!(authorization(&cluster).await.unwrap_err().contains("token is empty or has bytes"));
    fs::remove_file(&token).unwrap();
    assert!(authorization(&cluster).await.unwrap_err().contains("No such file"));
}

#[tokio::test]
async fn a_plugins_token_is_kept_until_it_expires_or_is_refused() {
    let folder = Folder::new("exec");
    let script = "#!/bin/sh\nn=$(cat \"$1\" 2>/dev/null || echo 0); n=$((n + 1)); echo $n >\"$1\"\n\
                  echo \"$KUBERNETES_EXEC_INFO\" | grep -q '\"interactive\":false' || exit 1\n\
                  echo '{\"status\":{\"token\":\"'$PREFIX$n'\",\"expirationTimestamp\":\"'$2'\"}}'";
    folder.write("plugin", script);
    let count = folder.0.join("count").display().to_string();
    let user = |expiry: &str| {
        format!(
            "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, args: [\
             {0}/plugin, {count}, '{expiry}'], env: [{{name: PREFIX, value: t}}]}}}}",
            folder.0.display()
        )
    };
    let make = |expiry: &str| {
        let text = kubeconfig("server: http://127.0.0.1:1", &user(expiry));
        Cluster::kubeconfig(folder.write("config", &text)).unwrap()
    };
    let cluster = make("2999-01-01T00:00:00Z");
    for want in ["Bearer t1", "Bearer t1"] {
        assert_eq!(authorization(&cluster).await, Ok(Some(want.into())));
    }
    cluster.forget_credentials();
    assert_eq!(authorization(&cluster).await, Ok(Some("Bearer t2".into())));
    let cluster = make("2001-01-01T00:00:00Z");
    for want in ["Bearer t3", "Bearer t4"] {
        assert_eq!(authorization(&cluster).await, Ok(Some(want.into())));
    }
    let text = kubeconfig("server: http://127.0.0.1:1", "{exec: {command: ./none}}");
    let cluster = Cluster::kubeconfig(folder.write("config", &text)).unwrap();
    let error = authorization(&cluster).await.unwrap_err();
    assert!(error.contains("the credential plugin") && error.contains("No such file"), "{error}");
}

#[test]
fn kubeconfigs_that_cannot_be_used_are_refused_with_what_to_do() {
    let http = "server: http://127.0.0.1:1";
    let cases = [
        (kubeconfig("server: 127.0.0.1:1", "{}"), "expected a URL, e.g. https://10.96.0.1:443"),
        (kubeconfig("server: https://api", "{}"), "expected certificate-authority or"),
        (
            kubeconfig("server: https://api\n    insecure-skip-tls-verify: true", "{}"),
            "give certificate-authority instead",
        ),
        (kubeconfig(&format!("{http}\n    proxy-url: http://p"), "{}"), "proxy-url is not"),
        (
            kubeconfig("server: https://api\n    certificate-authority-data: '%'", "{}"),
            "certificate-authority-data: expected base64",
        ),
        (
            kubeconfig("server: https://api\n    certificate-authority-data: eA==", "{}"),
            "TLS to the API server: ",
        ),
        (kubeconfig(http, "{as: admin}"), "impersonation"),
        (kubeconfig(http, "{username: a, password: b}"), "expected a token"),
        (kubeconfig(http, "{auth-provider: {name: gcp}}"), "expected exec with its plugin"),
        (kubeconfig(http, "{client-certificate: a}"), "got one of them"),
        (kubeconfig(http, "{client-certificate: a, client-key-data: eA==}"), "both as files or"),
        (kubeconfig(http, "{exec: {command: a, provideClusterInfo: true}}"), "provideClusterInfo"),
        (kubeconfig(http, "{}").replace("current-context: here", ""), "no current-context"),
        (kubeconfig(http, "{}").replace("current-context: here", "current-context: x"), "\"x\""),
        (kubeconfig(http, "{}").replace("cluster: c\n", "cluster: d\n"), "a cluster \"d\""),
        (kubeconfig(http, "{}").replace("user: u\n", "user: v\n"), "expected a user \"v\""),
        ("current-context: [".to_owned(), "expected a kubeconfig in YAML"),
        ("contexts: 7".to_owned(), "expected a kubeconfig in YAML"),
    ];
    let folder = Folder::new("bad");
    for (text, want) in cases {
        let path = folder.write("config", &text);
        let error = Cluster::kubeconfig(&path).unwrap_err().to_string();
        assert!(error.contains(want), "{text}\n{error}");
    }
    let error = Cluster::kubeconfig(folder.0.join("none")).unwrap_err().to_string();
    assert!(error.ends_with("none: No such file or directory (os error 2)"), "{error}");
}

#[test]
fn of_several_kubeconfigs_the_first_entry_counts_and_missing_files_are_passed_over() {
    let folder = Folder::new("several");
    let only_current = folder.write("a", "current-context: here\nusers: null\n");
    let text = kubeconfig("server: http://127.0.0.1:2", "{token: b}");
    let whole = folder.write("b", &text);
    let later = folder.write("c", &text.replace(":2", ":3").replace("here", "there"));
    let none = folder.0.join("none");
    let cluster = kubeconfig::read(&[none, only_current, whole, later]).unwrap();
    assert_eq!(cluster.server(), "http://127.0.0.1:2");
}

#[test]
fn clusters_with_the_same_content_are_the_same() {
    let folder = Folder::new("same");
    let make = |user: &str| {
        let text = kubeconfig("server: http://127.0.0.1:1", user);
        Cluster::kubeconfig(folder.write("config", &text)).unwrap()
    };
    let (one, again, other) = (make("{token: a}"), make("{token: a}"), make("{token: b}"));
    assert!(one.settings() == again.settings());
    assert!(one.settings() != other.settings());
}

#[tokio::test]
async fn a_pods_service_account_is_found() {
    let folder = Folder::new("pod");
    let var = |name: &str| match name {
        "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
        "KUBERNETES_SERVICE_PORT" => Some("6443".to_owned()),
        _ => None,
    };
    let error = in_cluster::read(var, &folder.0).unwrap_err().to_string();
    assert!(error.contains("automountServiceAccountToken"), "{error}");
    folder.write("token", "t");
    let error = in_cluster::read(var, &folder.0).unwrap_err().to_string();
    assert!(error.contains("ca.crt"), "{error}");
    folder.write("ca.crt", &certificate());
    folder.write("namespace", "shop\n");
    let cluster = in_cluster::read(var, &folder.0).unwrap();
    assert_eq!((cluster.namespace(), &*cluster.server()), ("shop", "https://[fd00::1]:6443"));
    assert_eq!(authorization(&cluster).await, Ok(Some("Bearer t".into())));
    let error = in_cluster::read(|_| None, &folder.0).unwrap_err();
    assert_eq!(error, ClusterError::NotConfigured);
}
