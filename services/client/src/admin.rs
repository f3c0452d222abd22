//! `--admin-listen`: the client's channel, shown while it runs, as JSON and by channelz. One port
//! for both, over HTTP/2 without TLS, because that is what evenkeel-server speaks.

use std::{io, net::SocketAddr, time::Duration};

use evenkeel::{Channel, ChannelView, view::JsonService};
use evenkeel_channelz::{Channelz, FILE_DESCRIPTOR_SET};
use evenkeel_server::{Server, ServerView, ShutdownHandle};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::service::Routes;

/// How long a reader may take to go when the run is over.
const END_WAIT: Duration = Duration::from_secs(1);

/// A port at which the channel can be looked at.
pub(crate) struct Admin {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    handle: ShutdownHandle,
    task: JoinHandle<()>,
}

impl Admin {
    /// Shows `channel` on `address`, of which port 0 takes a free port.
    pub(crate) async fn start(address: SocketAddr, channel: &Channel) -> io::Result<Self> {
        let why = |error: io::Error| {
            let text = format!("--admin-listen {address}: {error}; free it or choose another");
            io::Error::new(error.kind(), text)
        };
        let listener = TcpListener::bind(address).await.map_err(why)?;
        let address = listener.local_addr()?;
        let (channels, view) = (ChannelView::new([channel]), ServerView::new());
        let channelz = Channelz::new(channels.clone(), [view.clone()]);
        let mut routes = Routes::new(channelz.into_service());
        let json = JsonService::new(channels);
        let router = std::mem::take(routes.axum_router_mut())
            .route_service("/channels", json.clone())
            .route_service("/channels/{id}", json);
        *routes.axum_router_mut() = router;
        let server = Server::builder()
            .view(&view)
            .drain_delay(Duration::ZERO)
            .drain_grace(END_WAIT)
            .reflection([FILE_DESCRIPTOR_SET])
            .build(routes)
            .map_err(io::Error::other)?;
        let handle = server.shutdown_handle();
        let task = tokio::spawn(async move {
            if let Err(error) = server.serve([listener]).await {
                tracing::warn!(%error, "the channel is not shown any more");
            }
        });
        Ok(Self { address, handle, task })
    }

    /// Ends the port and lets running readers finish.
    pub(crate) async fn stop(self) {
        self.handle.drain();
        // A panic in it is logged by evenkeel-server, and the run's report is out already.
        let _ = self.task.await;
    }
}
