//! The receiver: OTLP over gRPC on a free port of 127.0.0.1, served by our own server as anything
//! else in the lab. Not a collector in a process of its own: what it got would have to be read from
//! a file, and nobody could wait for the last span.

use std::{net::SocketAddr, sync::Arc};

use evenkeel_server::Server;
use evenkeel_telemetry::otlp::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse, TraceService,
    TraceServiceServer,
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{Request, Response, Status, service::Routes};

use super::Shared;
use crate::error::LabError;

/// A request; the exporters' largest batch of 512 spans has some 400 KiB.
const REQUEST_BYTES_MAX: usize = 8 << 20;

#[derive(Clone)]
struct Receiver(Arc<Shared>);

/// Serves until the set is dropped; returns it and where.
///
/// # Errors
///
/// When it can't listen.
pub(super) async fn start(shared: Arc<Shared>) -> Result<(JoinSet<()>, SocketAddr), LabError> {
    let what = "the receiver of spans on 127.0.0.1";
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(LabError::io(what))?;
    let address = listener.local_addr().map_err(LabError::io(what))?;
    let service = TraceServiceServer::new(Receiver(shared));
    let service = service.max_decoding_message_size(REQUEST_BYTES_MAX);
    let server = Server::builder().build(Routes::new(service));
    let server = server.map_err(|error| LabError::io(what)(std::io::Error::other(error)))?;
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        // An end that comes early shows in the checks: spans are missing.
        server.serve([listener]).await.ok();
    });
    Ok((serving, address))
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let refused = self.0.take(request.into_inner());
        let mut response = ExportTraceServiceResponse::default();
        if refused > 0 {
            response.partial_success = Some(ExportTracePartialSuccess {
                rejected_spans: i64::try_from(refused).unwrap_or(i64::MAX),
                error_message: "the lab keeps no more spans of one phase".to_owned(),
            });
        }
        Ok(Response::new(response))
    }
}
