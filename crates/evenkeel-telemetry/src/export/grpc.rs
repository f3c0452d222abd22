//! OTLP over gRPC, by our own channel: tonic's is banned here, and ours balances over a collector's
//! replicas. It has none of this crate's layers, so what is sent for tracing is not traced.

use std::time::Duration;

use evenkeel::{Backoff, Channel};
use tonic::{Code, Request, metadata::MetadataMap};

use super::ExportError;
use crate::{
    otlp::{ExportTraceServiceRequest, ExportTraceServiceResponse, TraceServiceClient},
    settings::Settings,
};

/// The longest wait between attempts to connect; a collector that is back should be found soon.
const BACKOFF_MAX: Duration = Duration::from_secs(15);

pub(super) struct Grpc {
    client: TraceServiceClient<Channel>,
    metadata: MetadataMap,
    timeout: Duration,
}

impl Grpc {
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let channel = Channel::builder(&settings.authority)
            .user_agent(concat!("evenkeel-telemetry/", env!("CARGO_PKG_VERSION")))
            .backoff(Backoff { max: BACKOFF_MAX, ..Backoff::default() })
            .build()
            .map_err(|error| format!("OTLP over gRPC: {error}"))?;
        let metadata = MetadataMap::from_headers(settings.headers.iter().cloned().collect());
        let timeout = settings.timeout;
        Ok(Self { client: TraceServiceClient::new(channel), metadata, timeout })
    }

    pub(super) async fn send(
        &mut self,
        message: ExportTraceServiceRequest,
    ) -> Result<ExportTraceServiceResponse, ExportError> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        request.set_timeout(self.timeout);
        match self.client.export(request).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => {
                let why = format!("{:?}: {}", status.code(), status.message());
                Err(ExportError { why, is_passing: is_passing(status.code()) })
            }
        }
    }
}

/// The specification's list (OTLP, "Failures"). RESOURCE_EXHAUSTED is on it only where the server
/// says when to come back; without that word it is as good as UNAVAILABLE for us, who back off.
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    )
}
