//! A name's addresses and its balancers, told to the channel together though they are looked up
//! apart: neither waits for the other.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use evenkeel_core::{
    Balancer, Balancers, Endpoint, ResolverError, ResolverSink, ResolverUpdate, Status,
};
use futures_util::{StreamExt as _, stream};

use super::{
    endpoints,
    lookup::{SrvLookup, srv::FoundBalancer},
    schedule::{LookUp, Report},
    shared::User,
};

/// Reports to one channel until it drops this.
pub(super) async fn run(
    addresses: User,
    balancers: User<SrvLookup>,
    port: u16,
    sink: Arc<dyn ResolverSink>,
) {
    let requests = Arc::new(Requests { sink: sink.clone(), wanted: Mutex::default() });
    // Streams, whose half-done look-ups survive what the other one reports.
    let mut addresses = reports(addresses, Half { requests: requests.clone(), number: 0 });
    let mut balancers = reports(balancers, Half { requests, number: 1 });
    let mut known = Known::default();
    loop {
        let news = tokio::select! {
            Some(report) = addresses.next() => known.addresses(&report, port),
            Some(report) = balancers.next() => known.balancers(&report),
            else => return,
        };
        match news {
            Some(Ok(update)) => sink.update(update),
            Some(Err(error)) => sink.error(error),
            None => {}
        }
    }
}

fn reports<L: LookUp>(
    user: User<L>,
    half: Half,
) -> stream::BoxStream<'static, Arc<Report<L::Found>>> {
    stream::unfold((user, half), |(mut user, half)| async move {
        let report = user.report(&half).await;
        Some((report, (user, half)))
    })
    .boxed()
}

/// What was found last.
struct Known {
    endpoints: Option<Vec<Endpoint>>,
    /// The addresses' look-up fails.
    failed: bool,
    balancers: Balancers,
}

impl Default for Known {
    fn default() -> Self {
        Self { endpoints: None, failed: false, balancers: Balancers::Pending }
    }
}

type News = Option<Result<ResolverUpdate, ResolverError>>;

impl Known {
    fn addresses(&mut self, report: &Report, port: u16) -> News {
        match report {
            Report::Nothing => None,
            Report::Update(addresses) => {
                self.endpoints = Some(endpoints(addresses, port));
                self.failed = false;
                self.update()
            }
            Report::Error { message, expired } => {
                self.failed = true;
                let found = matches!(self.balancers, Balancers::Found(_));
                if self.endpoints.is_none() && found {
                    return self.update();
                }
                let status = Status::unavailable(message.clone());
                Some(Err(ResolverError { status, expired: *expired }))
            }
        }
    }

    fn balancers(&mut self, report: &Report<FoundBalancer>) -> News {
        self.balancers = match report {
            Report::Nothing => return None,
            Report::Update(found) => {
                let balancer = |found: &FoundBalancer| Balancer {
                    address: found.address.into(),
                    name: Some(found.name.clone()),
                };
                Balancers::Found(found.iter().map(balancer).collect())
            }
            // Those that are known may still be there; a stream tells.
            Report::Error { .. } if matches!(self.balancers, Balancers::Found(_)) => return None,
            Report::Error { .. } => Balancers::None,
        };
        match (&self.endpoints, &self.balancers) {
            // The update would make a list that has expired a good one.
            (Some(_), _) if self.failed => None,
            (Some(_), _) => self.update(),
            // A name without addresses of its own lives by its balancers.
            (None, Balancers::Found(_)) if self.failed => self.update(),
            (None, _) => None,
        }
    }

    fn update(&self) -> News {
        let mut update = ResolverUpdate::new(self.endpoints.clone().unwrap_or_default());
        update.balancers = self.balancers.clone();
        Some(Ok(update))
    }
}

/// The channel's wish to look again, for both.
struct Requests {
    sink: Arc<dyn ResolverSink>,
    wanted: Mutex<[bool; 2]>,
}

/// What one of the two look-ups sees of the channel: its wishes.
struct Half {
    requests: Arc<Requests>,
    number: usize,
}

impl ResolverSink for Half {
    fn update(&self, update: ResolverUpdate) {
        self.requests.sink.update(update);
    }

    fn error(&self, error: ResolverError) {
        self.requests.sink.error(error);
    }

    fn poll_requested(&self, cx: &mut Context<'_>) -> Poll<()> {
        let asked = self.requests.sink.poll_requested(cx).is_ready();
        // No code that holds the lock can panic; should it ever, the flags are whole all the same.
        let mut wanted = self.requests.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if asked {
            *wanted = [true; 2];
            // Both are polled by one task, and the other one may have had its turn.
            cx.waker().wake_by_ref();
        }
        if std::mem::take(&mut wanted[self.number]) { Poll::Ready(()) } else { Poll::Pending }
    }
}
