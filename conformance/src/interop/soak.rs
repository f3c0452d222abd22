//! The soak cases: many large calls, each within its time, on one channel or on a new one each.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{
    case::Case,
    proto::test_service_client::TestServiceClient,
    run::{Client, Done, Failure},
    target::Target,
    unary::{LARGE_REQUEST, LARGE_RESPONSE, large},
};

/// How much of it, and what may go wrong. The defaults are the descriptions'.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Soak {
    /// Calls over all workers.
    pub iterations: u32,
    /// Calls that may fail or be late.
    pub max_failures: u32,
    /// A call that takes longer is late.
    pub latency_max: Duration,
    /// Least time from one call's start to the next one's, per worker.
    pub interval: Duration,
    /// The case fails if it takes longer.
    pub overall: Duration,
    /// Workers.
    pub threads: u32,
    /// Bytes of a request's payload.
    pub request_bytes: usize,
    /// Bytes of a response's payload.
    pub response_bytes: i32,
}

impl Default for Soak {
    fn default() -> Self {
        Self {
            iterations: 10,
            max_failures: 0,
            latency_max: Duration::from_secs(1),
            interval: Duration::ZERO,
            overall: Duration::from_secs(10),
            threads: 1,
            request_bytes: LARGE_REQUEST,
            response_bytes: LARGE_RESPONSE,
        }
    }
}

impl Soak {
    /// Runs `case`, which is one of the two.
    pub(super) async fn run(self, case: Case, target: &Target, client: &Client) -> Done {
        let mut workers = JoinSet::new();
        for number in 0..self.threads {
            // What does not divide evenly goes to the first ones.
            let more = u32::from(number < self.iterations % self.threads);
            let calls = self.iterations / self.threads + more;
            let (target, client) = (target.clone(), client.clone());
            workers.spawn(async move { self.work(case, &target, client, calls).await });
        }
        let mut failures = Vec::new();
        let all = async {
            while let Some(done) = workers.join_next().await {
                failures.extend(done.map_err(|e| Failure::expected("a worker's end", e))?);
            }
            Ok(())
        };
        let done: Result<Done, _> = tokio::time::timeout(self.overall, all).await;
        match done {
            Ok(done) => done?,
            Err(_) => {
                let wanted = format!("{} calls within {:?}", self.iterations, self.overall);
                return Err(Failure::expected(wanted, "no end"));
            }
        }
        self.judge(&failures)
    }

    async fn work(self, case: Case, target: &Target, client: Client, calls: u32) -> Vec<Failure> {
        let mut failures = Vec::new();
        for _ in 0..calls {
            let next = tokio::time::Instant::now() + self.interval;
            if let Err(failure) = self.one(case, target, client.clone()).await {
                failures.push(failure);
            }
            tokio::time::sleep_until(next).await;
        }
        failures
    }

    async fn one(self, case: Case, target: &Target, mut client: Client) -> Done {
        // A new channel's first connection counts.
        let began = Instant::now();
        if case == Case::ChannelSoak {
            client = TestServiceClient::new(target.channel(case)?);
        }
        large(&mut client, self.request_bytes, self.response_bytes).await?;
        let took = began.elapsed();
        if took <= self.latency_max {
            return Ok(());
        }
        Err(Failure::expected(format!("a call within {:?}", self.latency_max), format!("{took:?}")))
    }

    fn judge(self, failures: &[Failure]) -> Done {
        match failures.first() {
            Some(first) if failures.len() as u64 > u64::from(self.max_failures) => {
                let wanted = format!("at most {} failures", self.max_failures);
                let came = format!("{} of {}, the first: {first}", failures.len(), self.iterations);
                Err(Failure::expected(wanted, came))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_failures_than_allowed_fail() {
        let soak = Soak { max_failures: 1, ..Soak::default() };
        let failed = |count| vec![Failure::expected("a", "b"); count];
        assert!(soak.judge(&failed(0)).is_ok());
        assert!(soak.judge(&failed(1)).is_ok());
        assert!(soak.judge(&failed(2)).is_err());
    }
}
