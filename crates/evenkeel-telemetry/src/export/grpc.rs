//! OTLP over gRPC, by our own channel: tonic's is banned here, and ours balances over a collector's
//! replicas. It has none of this crate's layers, so what is sent for tracing is not traced.

use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use evenkeel::{Backoff, Channel};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::{
    Code, Request, Status, client,
    codec::{Codec, EncodeBuf, Encoder},
    metadata::MetadataMap,
};
use tonic_prost::{ProstCodec, ProstDecoder};

use super::{ExportError, Signal, tls};
use crate::settings::Place;

/// The longest wait between attempts to connect; a collector that is back should be found soon.
const BACKOFF_MAX: Duration = Duration::from_secs(15);

pub(super) struct Grpc {
    client: client::Grpc<Channel>,
    metadata: MetadataMap,
    timeout: Duration,
}

impl Grpc {
    pub(super) fn new(place: &Place) -> Result<Self, String> {
        let mut builder = Channel::builder(&place.authority)
            .user_agent(concat!("evenkeel-telemetry/", env!("CARGO_PKG_VERSION")))
            .backoff(Backoff { max: BACKOFF_MAX, ..Backoff::default() });
        if let Some(tls) = &place.tls {
            builder = builder.tls(tls::channel(tls)?);
        }
        let channel = builder.build().map_err(|error| format!("OTLP over gRPC: {error}"))?;
        let metadata = MetadataMap::from_headers(place.headers.iter().cloned().collect());
        Ok(Self { client: client::Grpc::new(channel), metadata, timeout: place.timeout })
    }

    pub(super) async fn send<S: Signal>(
        &mut self,
        message: Bytes,
    ) -> Result<S::Response, ExportError> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        request.set_timeout(self.timeout);
        let codec = Written::<S::Response>::default();
        // Generated clients ask as well; a channel of ours is always ready.
        let ready = self.client.ready().await;
        let path = PathAndQuery::from_static(S::METHOD);
        let sent = match ready {
            Ok(()) => self.client.unary(request, path, codec).await,
            Err(status) => Err(status),
        };
        match sent {
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

/// What an answer of OTLP has to be.
pub(super) trait Protobuf: Message + Default + 'static {}

impl<M: Message + Default + 'static> Protobuf for M {}

/// Requests that are bytes already, and answers of Protobuf.
struct Written<A>(ProstCodec<A, A>);

impl<A: Protobuf> Default for Written<A> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<A: Protobuf> Codec for Written<A> {
    type Encode = Bytes;
    type Decode = A;
    type Encoder = AsItIs;
    type Decoder = ProstDecoder<A>;

    fn encoder(&mut self) -> AsItIs {
        AsItIs
    }

    fn decoder(&mut self) -> ProstDecoder<A> {
        self.0.decoder()
    }
}

struct AsItIs;

impl Encoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}
