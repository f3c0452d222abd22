//! `--admin-listen` of the real program: one port, JSON for curl and channelz for grpcurl.

use std::{process::Stdio, time::Duration};

use evenkeel::Channel;
use evenkeel_proto::grpc::channelz::v1::{
    GetServersRequest, GetTopChannelsRequest, channelz_client::ChannelzClient,
};
use evenkeel_server::Server;
use helloworld::{
    HelloReply, HelloRequest,
    greeter_server::{Greeter, GreeterServer},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
    time::timeout,
};
use tonic::{Request, Response, Status, service::Routes};

const LIMIT: Duration = Duration::from_secs(10);

struct Hello;

#[tonic::async_trait]
impl Greeter for Hello {
    async fn say_hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: "Hello".into() }))
    }
}

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what}: not within {LIMIT:?}"))
}

/// GET over HTTP/2 without TLS, as `curl --http2-prior-knowledge` does it.
async fn get(address: &str, path: &str) -> Value {
    let socket = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(socket).await.unwrap();
    let ask = async {
        let request = http::Request::get(format!("http://{address}{path}")).body(()).unwrap();
        let (response, _) = send.ready().await.unwrap().send_request(request, true).unwrap();
        let (head, mut body) = response.await.unwrap().into_parts();
        assert_eq!(head.status, 200);
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            text.extend_from_slice(&data.unwrap());
        }
        serde_json::from_slice(&text).unwrap()
    };
    tokio::select! {
        biased;
        json = ask => json,
        _ = connection => panic!("the connection ended before the response"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_channel_is_shown_while_the_run_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap();
    let routes = Routes::new(GreeterServer::new(Hello));
    let server = Server::builder().drain_delay(Duration::ZERO).build(routes).unwrap();
    let handle = server.shutdown_handle();
    tokio::spawn(server.serve([listener]));

    let target = format!("ipv4:{backend}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_client"))
        .args(["--target", &target, "--count", "0", "--rate", "200", "--output", "json"])
        .args(["--admin-listen", "127.0.0.1:0"])
        .env_remove("GREETER_SERVICE_CONFIG")
        .env_remove("GREETER_LB_POLICY_NAME")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = within("its address", said.next_line()).await.unwrap().unwrap();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();

    let channel = within("a call that succeeded", async {
        loop {
            let list = get(&address, "/channels").await;
            if list["channels"][0]["calls"]["succeeded"].as_u64() > Some(0) {
                break list["channels"][0].clone();
            }
        }
    })
    .await;
    assert_eq!((&channel["target"], &channel["state"]), (&target.clone().into(), &"READY".into()));
    let one = within("it alone", get(&address, &format!("/channels/{}", channel["id"]))).await;
    assert_eq!(one["subchannels"][0]["id"], channel["subchannels"][0]["id"]);

    let reader = Channel::builder(format!("ipv4:{address}")).build().unwrap();
    let mut channelz = ChannelzClient::new(reader);
    let top = within("channels", channelz.get_top_channels(GetTopChannelsRequest::default()));
    let top = top.await.unwrap().into_inner();
    let data = top.channel[0].data.as_ref().unwrap();
    assert_eq!((top.channel.len(), data.target.as_str()), (1, target.as_str()));
    let servers = within("servers", channelz.get_servers(GetServersRequest::default())).await;
    assert_eq!(servers.unwrap().into_inner().server.len(), 1, "its own");
    drop(channelz);

    let pid = Pid::from_raw(child.id().expect("still running") as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let ended = within("its end", child.wait_with_output()).await.unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(report["fail"], 0, "{report}");
    handle.drain();
}

#[tokio::test]
async fn an_address_in_use_is_a_failure_to_start() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let child = Command::new(env!("CARGO_BIN_EXE_client"))
        .args(["--target", "ipv4:127.0.0.1:1", "--admin-listen", &address])
        .stdin(Stdio::null())
        .output();
    let ended = within("its end", child).await.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains(&format!("--admin-listen {address}")), "{said}");
}
