//! `--admin-listen`: what the balancer has and does, as JSON for people and the lab and as metrics
//! for Prometheus. HTTP/1.1 on a port of its own, because Prometheus scrapes with nothing else
//! without TLS, and because addresses are not for every client's eyes.

use std::{io, net::SocketAddr};

use evenkeel_control::{
    Control,
    grpclb::Grpclb,
    metrics::{Kind, Page},
    status::{self, Status},
    xds::Xds,
};
use evenkeel_server::ServerStats;
use evenkeel_telemetry::{
    Telemetry,
    metrics::{CONTENT_TYPE, Family, Kind as FamilyKind, Value},
    page::{self, Answer},
};
use tokio::net::TcpListener;

/// What is shown.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) control: Control,
    pub(crate) grpclb: Grpclb,
    pub(crate) xds: Option<Xds>,
    pub(crate) server: ServerStats,
    /// What is counted of the server's calls.
    pub(crate) telemetry: Telemetry,
}

/// Listens; the error says which flag to change.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let text = format!(
            "could not listen on {address}: {error}; free it or choose another with \
             --admin-listen or GRPCLB_ADMIN_LISTEN"
        );
        io::Error::new(error.kind(), text)
    })
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, shown: Shown) {
    page::serve(listener, "the admin port", move |path| shown.answer(path)).await;
}

impl Shown {
    fn answer(&self, path: &str) -> Answer {
        match path {
            "/status" => {
                let mut status = Status::of(&self.control, &self.grpclb);
                if let Some(xds) = &self.xds {
                    status = status.with_xds(xds);
                }
                match serde_json::to_string_pretty(&status) {
                    Ok(json) => Answer::page("application/json", json + "\n"),
                    Err(error) => Answer::failed(error.to_string()),
                }
            }
            "/metrics" => Answer::page(CONTENT_TYPE, self.metrics()),
            other => Answer::not_found(format!("expected /status or /metrics, got {other:?}\n")),
        }
    }

    fn metrics(&self) -> String {
        self.own_metrics().into_text() + &self.telemetry.prometheus()
    }

    /// What the balancer itself counts.
    pub(crate) fn own_metrics(&self) -> Page {
        let mut page = Page::default();
        status::write_metrics(&mut page, &self.control, &self.grpclb);
        if let Some(xds) = &self.xds {
            xds.write_metrics(&mut page);
        }
        let counters = self.server.counters();
        let events = counters.map(|(name, count)| ([("event", name)], count as f64));
        let help = "Events of the gRPC server, limits that were hit among them.";
        page.metric(Kind::Counter, "evenkeel_balancer_server_events_total", help, events);
        page
    }
}

/// The balancer's metrics in the form in which they are sent.
pub(crate) fn families(page: Page) -> impl Iterator<Item = Family> {
    page.into_metrics().into_iter().map(|metric| {
        let kind = match metric.kind {
            Kind::Counter => FamilyKind::Counter,
            Kind::Gauge => FamilyKind::Gauge,
        };
        let mut family = Family::new(metric.name, kind, "", metric.help);
        for (labels, value) in metric.samples {
            family.add(labels, Value::Number(value));
        }
        family
    })
}
