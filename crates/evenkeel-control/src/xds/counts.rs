//! What happened on all streams, by variant and kind. Counts live here and not with the clients,
//! whose counts end with them.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    Kind,
    machine::{Heard, Variant},
};
use crate::metrics::{Kind as Metric, Page};

const VARIANTS: [(Variant, &str); 2] =
    [(Variant::StateOfTheWorld, "state_of_the_world"), (Variant::Delta, "delta")];

/// See the module's head.
#[derive(Debug)]
pub(super) struct Counts([[Cell; Kind::ALL.len()]; VARIANTS.len()]);

#[derive(Debug, Default)]
struct Cell {
    responses: AtomicU64,
    bytes: AtomicU64,
    acks: AtomicU64,
    nacks: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Self(array::from_fn(|_| array::from_fn(|_| Cell::default())))
    }
}

impl Counts {
    fn cell(&self, variant: Variant, kind: Kind) -> &Cell {
        &self.0[variant as usize][kind as usize]
    }

    pub(super) fn sent(&self, variant: Variant, kind: Kind, bytes: usize) {
        let cell = self.cell(variant, kind);
        cell.responses.fetch_add(1, Ordering::Relaxed);
        cell.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn heard(&self, variant: Variant, heard: Heard) {
        if let Some(kind) = heard.acked {
            self.cell(variant, kind).acks.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(kind) = heard.nacked {
            self.cell(variant, kind).nacks.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn write(&self, page: &mut Page) {
        let mut each = |name, help, value: &dyn Fn(&Cell) -> &AtomicU64| {
            let samples = VARIANTS.iter().flat_map(|(variant, text)| {
                Kind::ALL.map(|kind| {
                    let count = value(self.cell(*variant, kind)).load(Ordering::Relaxed);
                    ([("type", kind.name()), ("variant", text)], count as f64)
                })
            });
            page.metric(Metric::Counter, name, help, samples);
        };
        let help = "Responses begun to be sent over xDS.";
        each("evenkeel_balancer_xds_responses_total", help, &|cell| &cell.responses);
        let help = "Bytes of those responses.";
        each("evenkeel_balancer_xds_response_bytes_total", help, &|cell| &cell.bytes);
        let help = "Responses that clients took (ACK).";
        each("evenkeel_balancer_xds_acks_total", help, &|cell| &cell.acks);
        let help = "Responses that clients refused (NACK).";
        each("evenkeel_balancer_xds_nacks_total", help, &|cell| &cell.nacks);
    }
}
