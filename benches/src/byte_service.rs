//! A streaming service of plain bytes, so that what is measured is the transport and not the
//! encoding of messages: `Down` answers with messages of the size that was asked for, `Up` counts
//! what it gets.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes};
use futures_util::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client::GrpcService,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::NamedService,
};

const DOWN: &str = "/bench.Bytes/Down";
const UP: &str = "/bench.Bytes/Up";
/// What one `Down` sends at most, in bytes; it ends earlier when the client drops it.
const DOWN_BYTES_MAX: usize = 64 << 30;
/// The largest message that may be asked for, in bytes: below tonic's limit of 4 MiB.
const MESSAGE_BYTES_MAX: usize = 2 << 20;

/// Messages that are bytes.
#[derive(Clone, Copy, Debug)]
pub struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// The server's side.
#[derive(Clone, Debug)]
pub struct ByteService;

impl NamedService for ByteService {
    const NAME: &'static str = "bench.Bytes";
}

impl tower_service::Service<http::Request<Body>> for ByteService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(BytesCodec);
            Ok(match request.uri().path() {
                DOWN => grpc.server_streaming(tower::service_fn(down), request).await,
                UP => grpc.client_streaming(tower::service_fn(up), request).await,
                path => Status::unimplemented(path.to_owned()).into_http(),
            })
        })
    }
}

type Messages = stream::Iter<std::iter::RepeatN<Result<Bytes, Status>>>;

async fn down(request: Request<Bytes>) -> Result<Response<Messages>, Status> {
    let size = number(&request.into_inner())
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| (1..=MESSAGE_BYTES_MAX).contains(size))
        .ok_or_else(|| Status::invalid_argument("expected a size of 1 byte to 2 MiB"))?;
    let message = Bytes::from(vec![0; size]);
    Ok(Response::new(stream::iter(std::iter::repeat_n(Ok(message), DOWN_BYTES_MAX / size))))
}

async fn up(request: Request<Streaming<Bytes>>) -> Result<Response<Bytes>, Status> {
    let mut messages = request.into_inner();
    let mut count: u64 = 0;
    while messages.message().await?.is_some() {
        count += 1;
    }
    Ok(Response::new(Bytes::copy_from_slice(&count.to_be_bytes())))
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// Reads messages of `size` bytes from one stream for `length` and returns their number.
///
/// # Errors
///
/// The stream broke, or a message was of another size.
pub async fn read_for<T>(service: T, size: usize, length: Duration) -> Result<u64, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut grpc = ready_client(service).await?;
    let request = Request::new(Bytes::copy_from_slice(&(size as u64).to_be_bytes()));
    let path = PathAndQuery::from_static(DOWN);
    let mut messages = grpc.server_streaming(request, path, BytesCodec).await?.into_inner();
    let (end, mut count) = (Instant::now() + length, 0);
    while Instant::now() < end {
        let message = messages.message().await?;
        if message.is_none_or(|message| message.len() != size) {
            return Err(Status::data_loss("a message is missing or has another size"));
        }
        count += 1;
    }
    Ok(count)
}

/// Writes messages of `size` bytes to one stream for `length` and returns how many the server got.
///
/// # Errors
///
/// The stream broke.
pub async fn write_for<T>(service: T, size: usize, length: Duration) -> Result<u64, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut grpc = ready_client(service).await?;
    let end = Instant::now() + length;
    let messages = stream::repeat(Bytes::from(vec![0; size]));
    let messages = messages.take_while(move |_| ready(Instant::now() < end));
    let path = PathAndQuery::from_static(UP);
    let reply = grpc.client_streaming(Request::new(messages), path, BytesCodec).await?;
    number(&reply.into_inner()).ok_or_else(|| Status::data_loss("expected a count"))
}

async fn ready_client<T: GrpcService<Body>>(service: T) -> Result<tonic::client::Grpc<T>, Status> {
    let mut grpc = tonic::client::Grpc::new(service);
    grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
    Ok(grpc)
}
