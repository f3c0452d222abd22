//! `grpc.testing.TestService` as the descriptions have it. Methods that no case of ours needs are
//! left to the generated stubs, which answer UNIMPLEMENTED.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use evenkeel_server::orca::{CallMetrics, ServerMetrics};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tonic::{Code, Request, Response, Status, Streaming};

use super::proto::{
    BoolValue, EchoStatus, Empty, Payload, PayloadType, ResponseParameters, SimpleRequest,
    SimpleResponse, StreamingInputCallRequest, StreamingInputCallResponse,
    StreamingOutputCallRequest, StreamingOutputCallResponse, TestOrcaReport,
    test_service_server::TestService,
};

/// The largest payload that a request may ask for.
const RESPONSE_BYTES_MAX: usize = 16 << 20;
/// Responses that a half duplex call may ask for before the first of them is sent.
const RESPONSES_MAX: usize = 1_000;

/// The test server.
#[derive(Clone, Debug)]
pub struct TestServer {
    id: String,
    load: Load,
}

/// The values that clients of the case `orca_oob` set, one of them at a time.
#[derive(Clone, Debug, Default)]
struct Load {
    metrics: ServerMetrics,
    turn: Arc<Mutex<()>>,
}

impl TestServer {
    /// A server that answers `id` to those who ask who it is.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), load: Load::default() }
    }

    /// The values that clients have set, for [`evenkeel_server::Builder::orca`].
    #[must_use]
    pub fn metrics(&self) -> &ServerMetrics {
        &self.load.metrics
    }
}

type Replies = BoxStream<'static, Result<StreamingOutputCallResponse, Status>>;

#[tonic::async_trait]
impl TestService for TestServer {
    async fn empty_call(&self, _request: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let metrics = request.extensions().get::<CallMetrics>().cloned();
        let request = request.into_inner();
        refuse_compression(request.expect_compressed)?;
        if let (Some(metrics), Some(report)) = (metrics, request.orca_per_query_report) {
            record(&metrics, &report);
        }
        refuse(request.response_status)?;
        Ok(Response::new(SimpleResponse {
            payload: Some(payload(request.response_type, request.response_size)?),
            server_id: if request.fill_server_id { self.id.clone() } else { String::new() },
            ..SimpleResponse::default()
        }))
    }

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Replies>, Status> {
        let mut answers = Answers { load: self.load.clone(), ..Answers::default() };
        answers.ask(request.into_inner()).await?;
        Ok(answers.response())
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let mut requests = request.into_inner();
        let mut bytes = 0_usize;
        while let Some(request) = requests.message().await? {
            refuse_compression(request.expect_compressed)?;
            bytes += request.payload.map_or(0, |payload| payload.body.len());
        }
        let aggregated_payload_size = i32::try_from(bytes)
            .map_err(|_| Status::out_of_range(format!("expected less than 2 GiB, got {bytes}")))?;
        Ok(Response::new(StreamingInputCallResponse { aggregated_payload_size }))
    }

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let requests = Some(request.into_inner());
        let load = self.load.clone();
        Ok(Answers { requests, load, ..Answers::default() }.response())
    }

    async fn half_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let mut answers = Answers { load: self.load.clone(), ..Answers::default() };
        let mut requests = request.into_inner();
        while let Some(request) = requests.message().await? {
            answers.ask(request).await?;
            if answers.wanted.len() > RESPONSES_MAX {
                let text = format!("expected at most {RESPONSES_MAX} responses asked for at once");
                return Err(Status::resource_exhausted(text));
            }
        }
        Ok(answers.response())
    }
}

/// The responses of one call, made as they are sent.
#[derive(Default)]
struct Answers {
    /// Read whenever nothing is wanted.
    requests: Option<Streaming<StreamingOutputCallRequest>>,
    wanted: VecDeque<(i32, ResponseParameters)>,
    load: Load,
    /// Held from the first report that the call sets to its end, as the descriptions ask for.
    turn: Option<OwnedMutexGuard<()>>,
}

impl Answers {
    /// Takes one request up; its status may end the call.
    async fn ask(&mut self, request: StreamingOutputCallRequest) -> Result<(), Status> {
        refuse(request.response_status)?;
        if let Some(report) = request.orca_oob_report {
            if self.turn.is_none() {
                self.turn = Some(Arc::clone(&self.load.turn).lock_owned().await);
            }
            self.load.set(&report);
        }
        let kind = request.response_type;
        self.wanted.extend(request.response_parameters.into_iter().map(|wanted| (kind, wanted)));
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<StreamingOutputCallResponse>, Status> {
        loop {
            if let Some((kind, wanted)) = self.wanted.pop_front() {
                let pause = Duration::from_micros(u64::try_from(wanted.interval_us).unwrap_or(0));
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                let payload = payload(kind, wanted.size)?;
                return Ok(Some(StreamingOutputCallResponse { payload: Some(payload) }));
            }
            let request = match &mut self.requests {
                Some(requests) => requests.message().await?,
                None => None,
            };
            let Some(request) = request else { return Ok(None) };
            self.ask(request).await?;
        }
    }

    fn response(self) -> Response<Replies> {
        let replies = stream::try_unfold(self, |mut answers| async move {
            Ok(answers.next().await?.map(|reply| (reply, answers)))
        });
        Response::new(replies.boxed())
    }
}

impl Load {
    /// Sets what the report has, and forgets the rest.
    fn set(&self, report: &TestOrcaReport) {
        self.metrics.set_cpu_utilization(report.cpu_utilization);
        self.metrics.set_memory_utilization(report.memory_utilization);
        self.metrics.forget_utilizations();
        for (name, value) in &report.utilization {
            self.metrics.set_utilization(name, *value);
        }
    }
}

fn record(metrics: &CallMetrics, report: &TestOrcaReport) {
    metrics.set_cpu_utilization(report.cpu_utilization);
    metrics.set_memory_utilization(report.memory_utilization);
    for (name, value) in &report.utilization {
        metrics.set_utilization(name, *value);
    }
    for (name, value) in &report.request_cost {
        metrics.set_request_cost(name, *value);
    }
}

/// The status that the request asks for, if any.
fn refuse(wanted: Option<EchoStatus>) -> Result<(), Status> {
    match wanted {
        Some(status) if status.code != 0 => {
            Err(Status::new(Code::from_i32(status.code), status.message))
        }
        _ => Ok(()),
    }
}

/// A compressed request does not get as far as this: the server accepts no compression.
fn refuse_compression(expected: Option<BoolValue>) -> Result<(), Status> {
    if expected.is_some_and(|expected| expected.value) {
        return Err(Status::invalid_argument("expected a compressed request, got a plain one"));
    }
    Ok(())
}

fn payload(kind: i32, bytes: i32) -> Result<Payload, Status> {
    if PayloadType::try_from(kind) != Ok(PayloadType::Compressable) {
        return Err(Status::invalid_argument(format!("expected payload type 0, got {kind}")));
    }
    match usize::try_from(bytes) {
        Ok(size) if size <= RESPONSE_BYTES_MAX => Ok(Payload { r#type: kind, body: vec![0; size] }),
        _ => Err(Status::invalid_argument(format!(
            "expected a response of 0 to {RESPONSE_BYTES_MAX} bytes, got {bytes}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_payloads_that_it_cannot_make() {
        assert_eq!(payload(0, 3).unwrap().body, [0; 3]);
        for (kind, bytes) in [(0, -1), (0, i32::MAX), (1, 3)] {
            assert_eq!(payload(kind, bytes).unwrap_err().code(), Code::InvalidArgument);
        }
    }

    #[test]
    fn answers_the_status_that_is_asked_for() {
        let asked = |code| refuse(Some(EchoStatus { code, message: "why".into() }));
        assert!(refuse(None).is_ok() && asked(0).is_ok());
        let status = asked(5).unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "why"));
    }

    #[test]
    fn a_plain_request_that_should_be_compressed_is_refused() {
        assert!(refuse_compression(None).is_ok());
        assert!(refuse_compression(Some(BoolValue { value: false })).is_ok());
        let refused = refuse_compression(Some(BoolValue { value: true })).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}
