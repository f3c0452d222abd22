//! A client's stream as the body of its response, whatever protocol it speaks: no task, no queue.
//! Reading requests, waiting for news and writing messages happen when the connection asks for the
//! next bytes, so a client that does not read is not served either, and finds the newest when it
//! does. A protocol says what a request means and what there is to say ([`Talk`]); the limit of
//! time, the end, the drain and the place among the streams are the same for all and are here.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::unfold;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::time::{Instant, sleep_until};
use tonic::{
    Status,
    body::Body,
    codec::{Codec as _, Streaming},
};
use tonic_prost::ProstCodec;
use tracing::debug;

use crate::{
    control::Control,
    drain::{Drain, Turn, drained},
    observe::Refusal,
    peer::Peer,
    room::{Permit, Room},
    wire,
};

/// How long a client may take for its first request.
pub const FIRST_REQUEST_WAIT: Duration = Duration::from_secs(10);

/// What ended a stream.
pub(crate) type End = Status;
/// Pieces of messages, in their order; those of a message follow each other.
pub(crate) type Outgoing = VecDeque<Bytes>;

/// What a protocol does on one stream, from the first request on. Dropped when the stream ends, so
/// that what a client had (its number, its place on the status page) is given back at once.
pub(crate) trait Talk: Sized + Send + 'static {
    /// What all streams have in common.
    type Shared: Send + Sync + 'static;
    /// Where a protocol has several forms of requests, one that all of them turn into.
    type Request: Send;
    /// What the first request is called.
    const FIRST_REQUEST: &'static str;
    /// The largest request.
    const REQUEST_BYTES_MAX: usize;

    /// Takes the first request.
    fn begin(
        shared: &Arc<Self::Shared>,
        peer: &Peer,
        request: Self::Request,
        outgoing: &mut Outgoing,
    ) -> Result<Self, End>;

    /// Takes a further request.
    fn hear(&mut self, request: Self::Request) -> Result<(), End>;

    /// Says what there is to say, if there is something, before anything is waited for. It may not
    /// always find something: requests are heard when it has not.
    fn speak(&mut self, outgoing: &mut Outgoing) -> Result<(), End>;

    /// Waits until there may be something to say without a request. Dropped and called again.
    fn news(&mut self) -> impl Future<Output = Result<(), End>> + Send;
}

/// The streams of one service: each service has a room of its own.
#[derive(Debug)]
pub(crate) struct Streams {
    control: Control,
    drain: Drain,
    room: Room,
}

impl Streams {
    pub(crate) fn new(control: Control) -> Self {
        Self { control, drain: Drain::default(), room: Room::default() }
    }

    /// Ends all of them, one after the other.
    pub(crate) fn end(&self) {
        self.drain.begin();
    }

    /// How many are open, also those that have not said anything yet.
    pub(crate) fn open(&self) -> usize {
        self.room.open()
    }

    /// Answers a request with a stream, if there is room for it.
    pub(crate) fn respond<M, T>(
        &self,
        request: Request<Body>,
        shared: &Arc<T::Shared>,
    ) -> Result<Response<Body>, Status>
    where
        M: prost::Message + Default + 'static,
        T: Talk,
        T::Request: From<M>,
    {
        if wire::is_compressed(&request) {
            let status = Status::unimplemented("expected messages that are not compressed");
            return Err(self.control.refuse(Refusal::Compressed, status));
        }
        let peer = Peer::of(&request);
        let permit = self.room.permit(&self.control, peer.ip())?;
        // The codec's other half encodes nothing here.
        let decoder = ProstCodec::<M, M>::default().decoder();
        let max = Some(T::REQUEST_BYTES_MAX);
        let stream: Stream<M, T> = Stream {
            control: self.control.clone(),
            shared: shared.clone(),
            inbound: Streaming::new_request(decoder, request.into_body(), None, max),
            peer,
            outgoing: Outgoing::new(),
            phase: Phase::Waiting { until: Instant::now() + FIRST_REQUEST_WAIT },
            turn: self.drain.turn(),
            permit: Some(permit),
        };
        let frames = unfold(stream, |mut stream| async move {
            let frame = stream.next().await?;
            Some((Ok::<_, Status>(frame), stream))
        });
        Ok(wire::response(Body::new(StreamBody::new(frames))))
    }
}

impl Control {
    /// Counts why a stream is refused or ended.
    pub(crate) fn refuse(&self, why: Refusal, status: Status) -> End {
        self.inner.refusals.add(why);
        status
    }
}

struct Stream<M, T: Talk> {
    control: Control,
    shared: Arc<T::Shared>,
    inbound: Streaming<M>,
    peer: Peer,
    /// The rest of what is being sent.
    outgoing: Outgoing,
    phase: Phase<T>,
    turn: Turn,
    /// Until the end; who does not read it may keep the rest for long.
    permit: Option<Permit>,
}

enum Phase<T> {
    /// For the first request.
    Waiting {
        until: Instant,
    },
    Talking(T),
    Ended,
}

impl<M, T> Stream<M, T>
where
    M: Send + 'static,
    T: Talk,
    T::Request: From<M>,
{
    async fn next(&mut self) -> Option<Frame<Bytes>> {
        loop {
            match self.outgoing.pop_front() {
                Some(empty) if empty.is_empty() => continue,
                Some(bytes) => return Some(Frame::data(bytes)),
                None if matches!(self.phase, Phase::Ended) => return None,
                None => {}
            }
            if let Err(end) = self.step().await {
                debug!(peer = ?self.peer.address, code = ?end.code(), why = end.message(), "ends");
                self.phase = Phase::Ended;
                self.permit = None;
                return Some(wire::trailers(&end));
            }
        }
    }

    /// Until there is something to send, or may be after one more step.
    async fn step(&mut self) -> Result<(), End> {
        if let Phase::Talking(talk) = &mut self.phase {
            talk.speak(&mut self.outgoing)?;
            if !self.outgoing.is_empty() {
                return Ok(());
            }
        }
        let request = tokio::select! {
            biased;
            // Before the drain: a client that ends says its last word when it ends.
            request = self.inbound.message() => request,
            () = self.turn.comes() => return Err(drained()),
            news = self.phase.news(&self.control) => return news,
        };
        let request = match request {
            Ok(Some(request)) => request.into(),
            // The client has said that nothing more comes: it is done with us.
            Ok(None) => return Err(Status::ok("")),
            Err(error) => return Err(self.control.refuse(Refusal::BadMessage, error)),
        };
        if let Phase::Talking(talk) = &mut self.phase {
            return talk.hear(request);
        }
        let talk = T::begin(&self.shared, &self.peer, request, &mut self.outgoing)?;
        self.phase = Phase::Talking(talk);
        Ok(())
    }
}

impl<T: Talk> Phase<T> {
    async fn news(&mut self, control: &Control) -> Result<(), End> {
        match self {
            Self::Waiting { until } => {
                sleep_until(*until).await;
                let (what, wait) = (T::FIRST_REQUEST, FIRST_REQUEST_WAIT);
                let text = format!("expected {what} within {wait:?}, got nothing");
                Err(control.refuse(Refusal::NoInitial, Status::deadline_exceeded(text)))
            }
            Self::Talking(talk) => talk.news().await,
            Self::Ended => Ok(()),
        }
    }
}
