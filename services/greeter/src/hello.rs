//! The service: an answer that names the backend, after a delay, or a failure at the asked rate.

use std::{net::IpAddr, sync::Arc, time::Duration};

use helloworld::{HelloReply, HelloRequest, greeter_server::Greeter};
use tonic::{Request, Response, Status};

use crate::{args::Args, load::Load};

/// The answers' settings.
pub(crate) struct Hello {
    pod_ip: Option<IpAddr>,
    delay: Duration,
    error_rate: f64,
    load: Arc<Load>,
}

impl Hello {
    pub(crate) fn new(args: &Args, load: &Arc<Load>) -> Self {
        let Args { pod_ip, error_rate, ref delay, .. } = *args;
        Self { pod_ip, delay: delay.value, error_rate, load: Arc::clone(load) }
    }

    /// Where the pod's address is not known, the address that the client reached says it; an IPv4
    /// client of an IPv6 listener reached an IPv4 address.
    fn backend_ip(&self, request: &Request<HelloRequest>) -> Result<IpAddr, Status> {
        let local = || request.local_addr().map(|address| address.ip().to_canonical());
        self.pod_ip.or_else(local).ok_or_else(|| {
            Status::internal("the connection has no local address; set --pod-ip or MY_POD_IP")
        })
    }
}

#[tonic::async_trait]
impl Greeter for Hello {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let work = self.load.begin().await?;
        if !self.delay.is_zero() {
            // The work that this plays; the call's deadline or its client ends it.
            tokio::time::sleep(self.delay).await;
        }
        if fastrand::f64() < self.error_rate {
            return Err(Status::unavailable("failed on purpose: GREETER_ERROR_RATE is set"));
        }
        let ip = self.backend_ip(&request)?;
        let name = request.into_inner().name;
        work.done();
        Ok(Response::new(HelloReply { message: format!("Hello {name} (Backend IP: {ip})") }))
    }
}
