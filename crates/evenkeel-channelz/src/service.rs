//! The service: finds what is asked for and cuts lists into pages.

use evenkeel::{ChannelView, view};
use evenkeel_proto::grpc::channelz::v1::{
    self as pb, channelz_server::Channelz as Protocol, channelz_server::ChannelzServer,
};
use evenkeel_server::ServerView;
use tonic::{Request, Response, Status};

use crate::convert::{self, SERVER_IDS};

/// Results on a page when the request names no number.
pub const PAGE_DEFAULT: usize = 100;
/// The most results on a page.
pub const PAGE_MAX: usize = view::PAGE_MAX;

/// Channels and servers to be shown. Both are held weakly: what ends vanishes.
#[derive(Clone, Debug)]
pub struct Channelz {
    channels: ChannelView,
    servers: Vec<ServerView>,
}

/// The service for tonic's `Routes`.
pub type ChannelzService = ChannelzServer<Channelz>;

impl Channelz {
    /// Shows these channels and servers.
    pub fn new(channels: ChannelView, servers: impl IntoIterator<Item = ServerView>) -> Self {
        Self { channels, servers: servers.into_iter().collect() }
    }

    /// Shows these servers, for a process without channels.
    pub fn of_servers(servers: impl IntoIterator<Item = ServerView>) -> Self {
        Self::new(ChannelView::default(), servers)
    }

    /// As a service to be mounted. It tells addresses and errors: mount it where operators come.
    pub fn into_service(self) -> ChannelzService {
        ChannelzServer::new(self)
    }

    /// The servers that serve now, by id.
    fn serving(&self) -> Vec<(&ServerView, evenkeel_server::ServerSnapshot)> {
        let serving = self.servers.iter().filter_map(|view| Some((view, view.snapshot()?)));
        let mut serving: Vec<_> = serving.collect();
        serving.sort_by_key(|(_, snapshot)| snapshot.id);
        serving.dedup_by_key(|(_, snapshot)| snapshot.id);
        serving
    }

    fn server(&self, id: i64) -> Result<(&ServerView, evenkeel_server::ServerSnapshot), Status> {
        let mut serving = self.serving().into_iter();
        serving.find(|(_, s)| convert::server_id(s.id) == id).ok_or_else(|| missing("server", id))
    }

    /// A socket of a server, listening or accepted.
    fn server_socket(&self, id: u64) -> Option<pb::Socket> {
        self.serving().into_iter().find_map(|(view, server)| {
            let listener = server.listeners.iter().find(|listener| listener.id == id);
            let listener = listener.map(convert::listener);
            listener.or_else(|| view.connection(id).map(|c| convert::accepted(&c)))
        })
    }
}

#[tonic::async_trait]
impl Protocol for Channelz {
    async fn get_top_channels(
        &self,
        request: Request<pb::GetTopChannelsRequest>,
    ) -> Result<Response<pb::GetTopChannelsResponse>, Status> {
        let pb::GetTopChannelsRequest { start_channel_id, max_results } = request.into_inner();
        let page = self.channels.page(start(start_channel_id)?, max(max_results)?);
        let channel = page.channels.iter().map(convert::channel).collect();
        Ok(Response::new(pb::GetTopChannelsResponse { channel, end: page.end }))
    }

    async fn get_servers(
        &self,
        request: Request<pb::GetServersRequest>,
    ) -> Result<Response<pb::GetServersResponse>, Status> {
        let pb::GetServersRequest { start_server_id, max_results } = request.into_inner();
        let (start, max) = (start(start_server_id)?, max(max_results)?);
        let serving = self.serving();
        let rest = serving.iter().filter(|(_, s)| SERVER_IDS + s.id >= start);
        let mut server: Vec<_> = rest.map(|(_, s)| convert::server(s)).collect();
        let end = server.len() <= max;
        server.truncate(max);
        Ok(Response::new(pb::GetServersResponse { server, end }))
    }

    async fn get_server(
        &self,
        request: Request<pb::GetServerRequest>,
    ) -> Result<Response<pb::GetServerResponse>, Status> {
        let (_, snapshot) = self.server(request.into_inner().server_id)?;
        let server = Some(convert::server(&snapshot));
        Ok(Response::new(pb::GetServerResponse { server }))
    }

    async fn get_server_sockets(
        &self,
        request: Request<pb::GetServerSocketsRequest>,
    ) -> Result<Response<pb::GetServerSocketsResponse>, Status> {
        let asked = request.into_inner();
        let (view, _) = self.server(asked.server_id)?;
        let start = start(asked.start_socket_id)?.saturating_sub(SERVER_IDS);
        let (connections, end) = view.connections(start, max(asked.max_results)?);
        let socket_ref = connections.iter().map(convert::accepted_ref).collect();
        Ok(Response::new(pb::GetServerSocketsResponse { socket_ref, end }))
    }

    async fn get_channel(
        &self,
        request: Request<pb::GetChannelRequest>,
    ) -> Result<Response<pb::GetChannelResponse>, Status> {
        let id = request.into_inner().channel_id;
        let found = u64::try_from(id).ok().and_then(|id| self.channels.get(id));
        let found = found.ok_or_else(|| missing("channel", id))?;
        Ok(Response::new(pb::GetChannelResponse { channel: Some(convert::channel(&found)) }))
    }

    async fn get_subchannel(
        &self,
        request: Request<pb::GetSubchannelRequest>,
    ) -> Result<Response<pb::GetSubchannelResponse>, Status> {
        let id = request.into_inner().subchannel_id;
        let found = u64::try_from(id).ok().and_then(|id| self.channels.subchannel(id));
        let found = found.ok_or_else(|| missing("subchannel", id))?;
        let subchannel = Some(convert::subchannel(&found));
        Ok(Response::new(pb::GetSubchannelResponse { subchannel }))
    }

    async fn get_socket(
        &self,
        request: Request<pb::GetSocketRequest>,
    ) -> Result<Response<pb::GetSocketResponse>, Status> {
        let id = request.into_inner().socket_id;
        let found = u64::try_from(id).ok().and_then(|id| match id.checked_sub(SERVER_IDS) {
            Some(id) => self.server_socket(id),
            None => self.channels.connection(id).map(|c| convert::connection(&c)),
        });
        let socket = Some(found.ok_or_else(|| missing("socket", id))?);
        Ok(Response::new(pb::GetSocketResponse { socket }))
    }
}

fn start(id: i64) -> Result<u64, Status> {
    u64::try_from(id).map_err(|_| {
        Status::invalid_argument(format!("the start id: expected 0 or an id, got {id}"))
    })
}

/// Zero leaves the number to us.
fn max(results: i64) -> Result<usize, Status> {
    match usize::try_from(results) {
        Ok(0) => Ok(PAGE_DEFAULT),
        Ok(max) => Ok(max.min(PAGE_MAX)),
        Err(_) => Err(Status::invalid_argument(format!(
            "max_results: expected 0 or a number of results, got {results}"
        ))),
    }
}

fn missing(what: &str, id: i64) -> Status {
    Status::not_found(format!("no {what} {id} here; it may be gone, list them again"))
}
