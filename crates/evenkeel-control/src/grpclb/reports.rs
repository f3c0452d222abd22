//! What clients report, added up for each service. Reports are counts since the last one, so the
//! sums are exact as long as no stream breaks with a report outstanding. They have no count for a
//! backend, which is why they can't make weights.

use std::collections::BTreeMap;

use evenkeel_proto::grpc::lb::v1::ClientStats;
use serde::Serialize;

use crate::{
    config::DROPS_MAX,
    observe::{Warning, Warnings},
};

/// The most calls that one report may count; more is taken for an error of the client's.
pub const CALLS_PER_REPORT_MAX: i64 = 1_000_000_000_000;
/// The most tokens of drops that are read in one report.
pub const DROP_TOKENS_MAX: usize = 100;
/// The most tokens that are remembered for a service whose drops keep changing.
const KNOWN_TOKENS_MAX: usize = 10 * DROPS_MAX;
/// Under which drops with other tokens are counted.
const OTHER_TOKEN: &str = "other";

/// Sums of all reports of a service's clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientTotals {
    /// Reports that came.
    pub reports: u64,
    /// Calls that started.
    pub started: u64,
    /// Calls that finished.
    pub finished: u64,
    /// Calls that finished without reaching a server, drops apart.
    pub failed_to_send: u64,
    /// Calls that finished and are known to have reached a server.
    pub known_received: u64,
    /// Calls that were dropped, by token.
    pub dropped: BTreeMap<String, u64>,
}

impl ClientTotals {
    /// From now on drops with this token are counted under it.
    pub(crate) fn know(&mut self, token: String) {
        if self.dropped.len() < KNOWN_TOKENS_MAX {
            self.dropped.entry(token).or_default();
        }
    }

    /// Adds a report. Counts that can't be are left out.
    pub(super) fn add(&mut self, report: &ClientStats, warnings: &Warnings) {
        let count = |value: i64| match value {
            0..=CALLS_PER_REPORT_MAX => value.unsigned_abs(),
            _ => {
                let negative = value < 0;
                let kind = if negative { Warning::StatsNegative } else { Warning::StatsTooLarge };
                warnings.add(kind);
                0
            }
        };
        self.reports += 1;
        self.started += count(report.num_calls_started);
        self.finished += count(report.num_calls_finished);
        self.failed_to_send += count(report.num_calls_finished_with_client_failed_to_send);
        self.known_received += count(report.num_calls_finished_known_received);
        if report.calls_finished_with_drop.len() > DROP_TOKENS_MAX {
            warnings.add(Warning::TooManyDropTokens);
        }
        for drop in report.calls_finished_with_drop.iter().take(DROP_TOKENS_MAX) {
            let calls = count(drop.num_calls);
            match self.dropped.get_mut(&drop.load_balance_token) {
                Some(known) => *known += calls,
                None => {
                    warnings.add(Warning::UnknownDropToken);
                    *self.dropped.entry(OTHER_TOKEN.to_owned()).or_default() += calls;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_proto::grpc::lb::v1::ClientStatsPerToken;

    use super::*;

    fn dropped(token: &str, num_calls: i64) -> ClientStatsPerToken {
        ClientStatsPerToken { load_balance_token: token.into(), num_calls }
    }

    #[test]
    fn reports_add_up() {
        let (mut totals, warnings) = (ClientTotals::default(), Warnings::default());
        totals.know("drop-a".into());
        let report = ClientStats {
            num_calls_started: 10,
            num_calls_finished: 9,
            num_calls_finished_with_client_failed_to_send: 1,
            num_calls_finished_known_received: 5,
            calls_finished_with_drop: vec![dropped("drop-a", 2), dropped("drop-a", 1)],
            ..ClientStats::default()
        };
        totals.add(&report, &warnings);
        totals.add(&report, &warnings);
        let expected = ClientTotals {
            reports: 2,
            started: 20,
            finished: 18,
            failed_to_send: 2,
            known_received: 10,
            dropped: [("drop-a".to_owned(), 6)].into(),
        };
        assert_eq!(totals, expected);
        assert!(Warning::ALL.iter().all(|kind| warnings.of(*kind) == 0));
    }

    #[test]
    fn what_can_not_be_is_left_out_and_counted() {
        let (mut totals, warnings) = (ClientTotals::default(), Warnings::default());
        let report = ClientStats {
            num_calls_started: -1,
            num_calls_finished: i64::MAX,
            num_calls_finished_known_received: i64::MIN,
            calls_finished_with_drop: (0..500).map(|n| dropped(&format!("x{n}"), 1)).collect(),
            ..ClientStats::default()
        };
        totals.add(&report, &warnings);
        assert_eq!((totals.started, totals.finished, totals.known_received), (0, 0, 0));
        assert_eq!(totals.dropped, [("other".to_owned(), DROP_TOKENS_MAX as u64)].into());
        for (kind, count) in [
            (Warning::StatsNegative, 2),
            (Warning::StatsTooLarge, 1),
            (Warning::TooManyDropTokens, 1),
            (Warning::UnknownDropToken, DROP_TOKENS_MAX as u64),
        ] {
            assert_eq!(warnings.of(kind), count, "{kind:?}");
        }
    }
}
