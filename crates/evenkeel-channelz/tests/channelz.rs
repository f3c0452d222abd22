//! channelz as a client of it sees it, over sockets, and from one list to the next by its ids.

use std::{future::Future, net::SocketAddr, time::Duration};

use evenkeel::{Channel, ChannelView};
use evenkeel_channelz::{Channelz, PAGE_MAX};
use evenkeel_proto::grpc::channelz::v1::{
    self as pb, address::Address as Kind, channel_connectivity_state::State,
    channelz_client::ChannelzClient,
};
use evenkeel_server::{Server, ServerView, ShutdownHandle};
use helloworld::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tonic::{Code, Request, Response, Status, service::Routes};

const PATIENCE: Duration = Duration::from_secs(10);

async fn soon<F: Future>(what: &str, f: F) -> F::Output {
    timeout(PATIENCE, f).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

struct Hello;

#[tonic::async_trait]
impl Greeter for Hello {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        match request.into_inner().name.as_str() {
            "nobody" => Err(Status::not_found("nobody")),
            name => Ok(Response::new(HelloReply { message: name.to_owned() })),
        }
    }
}

/// A greeter that shows channels and servers.
struct Stage {
    address: SocketAddr,
    channels: ChannelView,
    handle: ShutdownHandle,
    task: JoinHandle<()>,
}

impl Stage {
    /// Shows itself and `others`.
    async fn start(others: &[ServerView]) -> Self {
        let (channels, view) = (ChannelView::default(), ServerView::new());
        let servers = std::iter::once(view.clone()).chain(others.iter().cloned());
        let channelz = Channelz::new(channels.clone(), servers);
        let routes = Routes::new(GreeterServer::new(Hello)).add_service(channelz.into_service());
        let (address, handle, task) = serve(routes, &view).await;
        Self { address, channels, handle, task }
    }

    fn channel(&self) -> Channel {
        Channel::builder(format!("ipv4:{}", self.address)).build().unwrap()
    }

    fn client(&self) -> ChannelzClient<Channel> {
        ChannelzClient::new(self.channel())
    }

    async fn stop(self) {
        self.handle.drain();
        soon("the server's end", self.task).await.unwrap();
    }
}

async fn serve(routes: Routes, view: &ServerView) -> (SocketAddr, ShutdownHandle, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().drain_delay(Duration::ZERO).view(view).build(routes).unwrap();
    let handle = server.shutdown_handle();
    let task = tokio::spawn(async move {
        server.serve([listener]).await.unwrap();
    });
    (address, handle, task)
}

async fn call(channel: &Channel, name: &str) -> Result<(), Status> {
    let request = HelloRequest { name: name.into() };
    let mut client = GreeterClient::new(channel.clone());
    soon("an answer", client.say_hello(request)).await.map(drop)
}

fn tcp(address: Option<pb::Address>) -> SocketAddr {
    let Some(Kind::TcpipAddress(tcp)) = address.and_then(|a| a.address) else { panic!("no TCP") };
    let ip: [u8; 4] = tcp.ip_address.try_into().unwrap();
    (ip, u16::try_from(tcp.port).unwrap()).into()
}

fn numbers(data: &pb::ChannelData) -> [i64; 3] {
    [data.calls_started, data.calls_succeeded, data.calls_failed]
}

async fn socket(client: &mut ChannelzClient<Channel>, socket_id: i64) -> pb::Socket {
    let request = pb::GetSocketRequest { socket_id, summary: false };
    soon("a socket", client.get_socket(request)).await.unwrap().into_inner().socket.unwrap()
}

async fn servers(client: &mut ChannelzClient<Channel>) -> Vec<pb::Server> {
    let request = pb::GetServersRequest::default();
    let response = soon("servers", client.get_servers(request)).await.unwrap().into_inner();
    assert!(response.end);
    response.server
}

#[tokio::test]
async fn leads_from_a_channel_to_its_subchannel_and_socket() {
    let stage = Stage::start(&[]).await;
    let watched = stage.channel();
    stage.channels.add(&watched);
    for name in ["a", "b", "nobody"] {
        assert_eq!(call(&watched, name).await.is_ok(), name != "nobody");
    }
    let mut client = stage.client();
    let request = pb::GetTopChannelsRequest::default();
    let top = soon("channels", client.get_top_channels(request)).await.unwrap().into_inner();
    assert!(top.end);
    let [channel] = &top.channel[..] else { panic!("{top:?}") };
    let data = channel.data.as_ref().unwrap();
    assert_eq!(
        (data.target.as_str(), numbers(data)),
        (&*format!("ipv4:{}", stage.address), [3, 2, 1])
    );
    assert_eq!(data.state.unwrap().state, State::Ready as i32);

    let channel_id = channel.r#ref.as_ref().unwrap().channel_id;
    let request = pb::GetChannelRequest { channel_id };
    let again = soon("a channel", client.get_channel(request)).await.unwrap().into_inner();
    assert_eq!(again.channel.as_ref(), Some(channel));

    let subchannel_id = channel.subchannel_ref[0].subchannel_id;
    let request = pb::GetSubchannelRequest { subchannel_id };
    let found = soon("a subchannel", client.get_subchannel(request)).await.unwrap().into_inner();
    let subchannel = found.subchannel.unwrap();
    let data = subchannel.data.as_ref().unwrap();
    assert_eq!((data.target.as_str(), numbers(data)), (&*stage.address.to_string(), [3, 2, 1]));

    let socket = socket(&mut client, subchannel.socket_ref[0].socket_id).await;
    let data = socket.data.as_ref().unwrap();
    assert_eq!([data.streams_started, data.streams_succeeded, data.streams_failed], [3, 2, 1]);
    assert_eq!(
        (socket.r#ref.as_ref(), tcp(socket.remote)),
        (Some(&subchannel.socket_ref[0]), stage.address)
    );
    drop((watched, client));
    stage.stop().await;
}

#[tokio::test]
async fn leads_from_a_server_to_its_sockets() {
    let stage = Stage::start(&[]).await;
    let channel = stage.channel();
    for name in ["a", "b", "nobody"] {
        let _ = call(&channel, name).await;
    }
    let mut client = stage.client();
    let list = servers(&mut client).await;
    let [server] = &list[..] else { panic!("{list:?}") };
    let data = server.data.as_ref().unwrap();
    // With the call that asks; a server does not look at statuses.
    assert_eq!((data.calls_started, data.calls_succeeded, data.calls_failed), (4, 3, 0));
    let listens = socket(&mut client, server.listen_socket[0].socket_id).await;
    assert_eq!(tcp(listens.local), stage.address);

    let server_id = server.r#ref.as_ref().unwrap().server_id;
    let one = pb::GetServerRequest { server_id };
    let one = soon("a server", client.get_server(one)).await.unwrap().into_inner().server.unwrap();
    assert_eq!(one.r#ref, server.r#ref);

    let (mut ids, mut start_socket_id) = (Vec::new(), 0);
    loop {
        let page = pb::GetServerSocketsRequest { server_id, start_socket_id, max_results: 1 };
        let page = soon("sockets", client.get_server_sockets(page)).await.unwrap().into_inner();
        ids.extend(page.socket_ref.iter().map(|socket| socket.socket_id));
        if page.end {
            break;
        }
        start_socket_id = ids.last().unwrap() + 1;
    }
    assert_eq!(ids.len(), 2, "the greeter's channel and channelz's own");
    let accepted = socket(&mut client, ids[0]).await;
    let data = accepted.data.unwrap();
    assert_eq!([data.streams_started, data.streams_succeeded, data.streams_failed], [3, 3, 0]);
    assert_eq!(tcp(accepted.local), stage.address);
    assert_eq!(accepted.r#ref.unwrap().name, tcp(accepted.remote).to_string());
    drop((channel, client));
    stage.stop().await;
}

#[tokio::test]
async fn what_ended_is_not_found() {
    let view = ServerView::new();
    let stage = Stage::start(std::slice::from_ref(&view)).await;
    let mut client = stage.client();
    assert_eq!(servers(&mut client).await.len(), 1, "the other does not serve yet");
    let (_, other, task) = serve(Routes::new(GreeterServer::new(Hello)), &view).await;
    let snapshot = async {
        while view.snapshot().is_none() {
            tokio::task::yield_now().await;
        }
    };
    soon("the other server", snapshot).await;
    assert_eq!(servers(&mut client).await.len(), 2);
    other.drain();
    soon("its end", task).await.unwrap();
    assert_eq!(servers(&mut client).await.len(), 1);

    let watched = stage.channel();
    stage.channels.add(&watched);
    call(&watched, "a").await.unwrap();
    let shown = watched.snapshot();
    drop(watched);
    let channel_id = i64::try_from(shown.id).unwrap();
    let gone = client.get_channel(pb::GetChannelRequest { channel_id }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert!(gone.message().contains(&format!("no channel {channel_id}")), "{gone}");
    let subchannel_id = i64::try_from(shown.subchannels[0].id).unwrap();
    let gone = client.get_subchannel(pb::GetSubchannelRequest { subchannel_id }).await;
    assert_eq!(gone.unwrap_err().code(), Code::NotFound);
    for id in [shown.subchannels[0].connections[0].id.try_into().unwrap(), 0, -1, 1 << 50] {
        let gone = client.get_socket(pb::GetSocketRequest { socket_id: id, summary: true }).await;
        assert_eq!(gone.unwrap_err().code(), Code::NotFound, "socket {id}");
        let gone = client.get_server(pb::GetServerRequest { server_id: id }).await;
        assert_eq!(gone.unwrap_err().code(), Code::NotFound, "server {id}");
    }
    drop(client);
    stage.stop().await;
}

#[tokio::test]
async fn a_thousand_channels_come_in_pages() {
    let stage = Stage::start(&[]).await;
    let channels: Vec<_> = (0..1_000).map(|_| stage.channel()).collect();
    channels.iter().for_each(|channel| stage.channels.add(channel));
    let mut client = stage.client();
    for (max_results, pages) in [(0, 10), (99, 11), (1_000_000, 1_000_usize.div_ceil(PAGE_MAX))] {
        let (mut ids, mut asked, mut start_channel_id) = (Vec::new(), 0, 0);
        loop {
            let page = pb::GetTopChannelsRequest { start_channel_id, max_results };
            let page = soon("a page", client.get_top_channels(page)).await.unwrap().into_inner();
            ids.extend(page.channel.iter().map(|c| c.r#ref.as_ref().unwrap().channel_id));
            asked += 1;
            if page.end {
                break;
            }
            start_channel_id = ids.last().unwrap() + 1;
        }
        assert_eq!((ids.len(), asked), (1_000, pages), "max_results {max_results}");
        assert!(ids.is_sorted());
    }
    for page in [
        pb::GetTopChannelsRequest { start_channel_id: -1, max_results: 0 },
        pb::GetTopChannelsRequest { start_channel_id: 0, max_results: -1 },
    ] {
        let refused = client.get_top_channels(page).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    drop((channels, client));
    stage.stop().await;
}
