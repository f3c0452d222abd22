//! The resolver in a channel, over real greeters: calls follow the file, and a broken file costs
//! none.

use std::{
    collections::BTreeSet,
    fs,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use evenkeel::{BuildError, Channel};
use greeters::RunningGreeter;
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use own_resolver::FileResolver;
use tokio::time::timeout;
use tonic::{Code, Status};

const PATIENCE: Duration = Duration::from_secs(10);

async fn soon<F: Future>(what: &str, f: F) -> F::Output {
    timeout(PATIENCE, f).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// A folder of this test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("own-resolver-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for temporary files");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("endpoints")
    }

    /// A new file under the old name.
    fn write(&self, text: &str) {
        let new = self.0.join("new");
        fs::write(&new, text).expect("writable");
        fs::rename(&new, self.file()).expect("in the same folder");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn build(file: &Path) -> Result<Channel, BuildError> {
    let resolver = FileResolver { interval: Duration::from_millis(20), ..Default::default() };
    let target = format!("file:{}", file.display());
    Channel::builder(target).register_resolver(Arc::new(resolver)).build()
}

async fn call(client: &mut GreeterClient<Channel>) -> Result<String, Status> {
    let request = HelloRequest { name: "you".to_owned() };
    soon("an answer", client.say_hello(request)).await.map(|r| r.into_inner().message)
}

/// Calls until a round of nine was answered by exactly these.
async fn served_by(client: &mut GreeterClient<Channel>, names: &[&str]) {
    let wanted: BTreeSet<String> = names.iter().map(|n| (*n).to_owned()).collect();
    soon("the file's greeters", async {
        let mut seen = BTreeSet::new();
        while seen != wanted {
            seen.clear();
            for _ in 0..9 {
                seen.insert(call(client).await.expect("no call fails meanwhile"));
            }
        }
    })
    .await;
}

async fn stop(backends: Vec<RunningGreeter>) {
    for backend in backends {
        soon("a greeter's end", backend.stop()).await.expect("it served");
    }
}

#[tokio::test]
async fn calls_follow_the_file_and_none_fails() {
    let folder = Folder::new("follows");
    let backends = greeters::start(3).await.expect("free ports");
    let line = |n: usize| format!("{}\n", backends[n].address);
    folder.write(&line(0));
    let mut client = GreeterClient::new(build(&folder.file()).expect("a valid target"));
    served_by(&mut client, &["1"]).await;
    folder.write(&[line(0), line(1), line(2)].concat());
    served_by(&mut client, &["1", "2", "3"]).await;
    folder.write(&line(2));
    served_by(&mut client, &["3"]).await;
    stop(backends).await;
}

#[tokio::test]
async fn a_broken_file_keeps_the_last_good_list() {
    let folder = Folder::new("broken");
    let backends = greeters::start(2).await.expect("free ports");
    let line = |n: usize| format!("{}\n", backends[n].address);
    folder.write(&line(0));
    let mut client = GreeterClient::new(build(&folder.file()).expect("a valid target"));
    served_by(&mut client, &["1"]).await;
    folder.write("greeter:http\n");
    fs::remove_file(folder.file()).expect("it is there");
    for _ in 0..20 {
        assert_eq!(call(&mut client).await.expect("the old list serves"), "1");
    }
    folder.write(&line(1));
    served_by(&mut client, &["2"]).await;
    stop(backends).await;
}

#[tokio::test]
async fn without_a_good_list_calls_fail_and_say_why() {
    let folder = Folder::new("bad");
    let mut client = GreeterClient::new(build(&folder.file()).expect("a valid target"));
    let error = call(&mut client).await.expect_err("there is no file");
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("endpoints: cannot be read"), "{}", error.message());

    folder.write("127.0.0.1\n");
    let mut client = GreeterClient::new(build(&folder.file()).expect("a valid target"));
    let error = call(&mut client).await.expect_err("line 1 has no port");
    assert!(error.message().contains("endpoints:1: expected address:port"), "{}", error.message());

    folder.write("# nobody\n");
    let mut client = GreeterClient::new(build(&folder.file()).expect("a valid target"));
    assert_eq!(call(&mut client).await.expect_err("nobody is named").code(), Code::Unavailable);
}

#[tokio::test]
async fn a_target_that_names_no_absolute_path_is_refused() {
    for (target, wanted) in [("file:endpoints", "an absolute path"), ("file://host/x", "no host")] {
        let builder = Channel::builder(target);
        let built = builder.register_resolver(Arc::new(FileResolver::default())).build();
        let error = built.expect_err("a bad target");
        assert!(error.to_string().contains(wanted), "{error}");
    }
    let absolute = Channel::builder("file:///etc/endpoints");
    let built = absolute.register_resolver(Arc::new(FileResolver::default())).build();
    assert_eq!(built.expect("valid").state(), evenkeel::ConnectivityState::Idle);
}
