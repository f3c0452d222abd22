//! The order of a list: weights become repeated entries, drops become entries between them. A
//! client walks the list from front to back and round again, so what matters is that equal things
//! are equally far apart: ten entries of one endpoint in a row are ten calls in a row.
//!
//! Entries that have the same count form a class, and a class's entries are evenly spaced; the
//! classes are merged by position. That is n log(classes), where the usual smooth weighted
//! round-robin needs n steps for each of n entries.

use std::{cmp::Reverse, collections::BTreeMap, collections::BinaryHeap};

/// The most entries of a list. At the longest an entry has 63 bytes, so that the whole stays below
/// the 4 MiB that gRPC's clients accept in a message.
pub const LIST_ENTRIES_MAX: usize = 50_000;
/// More entries than this, or than 20 for each endpoint, no list gets for the sake of exact weights
/// or drops.
pub const LIST_ENTRIES_SOFT_MAX: usize = 2_000;
const SOFT_PER_ENDPOINT: usize = 20;
/// Drops are as exact as this, as a fraction of all calls, before a longer list is tried.
const DROP_ERROR: f64 = 1e-4;

/// An entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The endpoint with this index.
    Endpoint(usize),
    /// The drop with this index.
    Drop(usize),
}

/// The entries of a list: endpoints by their weights, and for each drop its share of all entries,
/// in per cent.
pub(crate) fn entries(weights: &[u32], percents: &[f64]) -> Vec<Entry> {
    if weights.is_empty() {
        return Vec::new();
    }
    let dropped: f64 = percents.iter().sum();
    let endpoints = interleave(&counts(weights));
    if dropped <= 0.0 {
        return endpoints.into_iter().map(Entry::Endpoint).collect();
    }
    let plan = plan(endpoints.len(), percents);
    let categories = interleave(&plan.drops);
    let mut drops = categories.iter().copied().map(Entry::Drop);
    let kept = plan.endpoints;
    // More than fit are seen only where nearly all is dropped; then every so-many-th has to do.
    let step = (endpoints.len() as f64 / kept.max(1) as f64).max(1.0);
    let mut turn = (0..kept).map(|n| {
        let at = (n as f64 * step) as usize % endpoints.len();
        Entry::Endpoint(endpoints[at])
    });
    let order = interleave(&[kept, categories.len()]);
    let next = |kind| if kind == 0 { turn.next() } else { drops.next() };
    order.into_iter().filter_map(next).collect()
}

/// How many entries there are of each.
struct Plan {
    endpoints: usize,
    drops: Vec<usize>,
}

/// Repeats the endpoints' entries as often as it takes for the drops to have their shares.
fn plan(endpoints: usize, percents: &[f64]) -> Plan {
    let shares: Vec<f64> = percents.iter().map(|percent| percent / 100.0).collect();
    let kept = 1.0 - shares.iter().sum::<f64>();
    let once = (endpoints as f64 / kept).ceil();
    let longest = LIST_ENTRIES_SOFT_MAX.max(2 * endpoints).max(once as usize).min(LIST_ENTRIES_MAX);
    let at = |length: f64, endpoints: usize| {
        let drops: Vec<usize> = shares.iter().map(|s| (s * length).round() as usize).collect();
        let total = (endpoints + drops.iter().sum::<usize>()).max(1) as f64;
        let errors = shares.iter().zip(&drops).map(|(s, n)| (*n as f64 / total - s).abs());
        (errors.fold(0.0, f64::max), Plan { endpoints, drops })
    };
    let fits = |repeats: &usize| (endpoints * repeats) as f64 / kept <= longest as f64;
    let mut best: Option<(f64, Plan)> = None;
    for repeats in (1..=longest).take_while(fits) {
        let tried = at((endpoints * repeats) as f64 / kept, endpoints * repeats);
        if best.as_ref().is_none_or(|(error, _)| tried.0 < *error) {
            best = Some(tried);
        }
        if best.as_ref().is_some_and(|(error, _)| *error <= DROP_ERROR) {
            break;
        }
    }
    let (_, plan) = best.unwrap_or_else(|| {
        // Not even one round of the endpoints fits, or none is wanted.
        let length = LIST_ENTRIES_MAX.min(longest) as f64;
        at(length, (kept * length).round() as usize)
    });
    plan
}

/// How many entries each endpoint gets: its weight, without the common divisor, and scaled down
/// when that would be too many; never none.
fn counts(weights: &[u32]) -> Vec<usize> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
    let reduced: Vec<u64> = weights.iter().map(|weight| u64::from(weight / divisor)).collect();
    let total: u64 = reduced.iter().sum();
    let soft = LIST_ENTRIES_SOFT_MAX.max(weights.len() * SOFT_PER_ENDPOINT);
    // Rounding up to one adds at most one for each.
    let max = soft.min(LIST_ENTRIES_MAX.saturating_sub(weights.len())).max(1) as u64;
    if total <= max {
        return reduced.into_iter().map(|weight| weight.max(1) as usize).collect();
    }
    let mut counts: Vec<u64> = reduced.iter().map(|weight| weight * max / total).collect();
    let mut left = max - counts.iter().sum::<u64>();
    let mut by_rest: Vec<usize> = (0..counts.len()).collect();
    by_rest.sort_by_key(|&index| Reverse(reduced[index] * max % total));
    for index in by_rest {
        if left == 0 {
            break;
        }
        counts[index] += 1;
        left -= 1;
    }
    counts.into_iter().map(|count| count.max(1) as usize).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Puts `counts[i]` times `i` for each `i` into an order in which each is evenly spread.
fn interleave(counts: &[usize]) -> Vec<usize> {
    let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        classes.entry(count).or_default().push(index);
    }
    let mut order = Vec::with_capacity(counts.iter().sum());
    // The n-th of a class's m entries lies at (2n + 1) / 2m of the list; more entries first.
    let mut next: BinaryHeap<Reverse<(Position, Reverse<usize>, usize)>> = classes
        .iter()
        .map(|(&count, members)| {
            Reverse((Position { odd: 1, entries: count * members.len() }, Reverse(count), 0))
        })
        .collect();
    while let Some(Reverse((position, Reverse(count), taken))) = next.pop() {
        let members = &classes[&count];
        order.push(members[taken % members.len()]);
        if taken + 1 < position.entries {
            let after = Position { odd: position.odd + 2, entries: position.entries };
            next.push(Reverse((after, Reverse(count), taken + 1)));
        }
    }
    order
}

/// `odd / (2 × entries)` of the way through the list, compared without rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    odd: u64,
    entries: usize,
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.odd * other.entries as u64).cmp(&(other.odd * self.entries as u64))
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count_of(list: &[Entry], entry: Entry) -> usize {
        list.iter().filter(|one| **one == entry).count()
    }

    /// The greatest distance from one such entry to the next, round the end.
    fn gap_max(list: &[Entry], entry: Entry) -> usize {
        let at: Vec<usize> =
            (0..list.len() * 2).filter(|n| list[n % list.len()] == entry).collect();
        at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }

    #[test]
    fn equal_weights_are_one_entry_each_in_order() {
        let list = entries(&[5, 5, 5], &[]);
        assert_eq!(list, [0, 1, 2].map(Entry::Endpoint));
        assert_eq!(entries(&[], &[30.0]), []);
    }

    #[test]
    fn weights_are_repeated_and_evenly_spread() {
        let list = entries(&[1, 2, 3], &[]);
        assert_eq!(list.len(), 6);
        for (endpoint, gap) in [(0, 6), (1, 4), (2, 3)] {
            let entry = Entry::Endpoint(endpoint);
            assert_eq!(count_of(&list, entry), endpoint + 1);
            assert!(gap_max(&list, entry) <= gap, "{endpoint}: {list:?}");
        }
    }

    #[test]
    fn many_endpoints_with_one_heavy_among_them_stay_spread() {
        let weights: Vec<u32> = std::iter::once(100).chain([1; 300]).collect();
        let list = entries(&weights, &[]);
        assert_eq!(list.len(), 400);
        assert!(gap_max(&list, Entry::Endpoint(0)) <= 5);
    }

    #[test]
    fn too_many_entries_are_scaled_and_the_ratios_stay() {
        let weights: Vec<u32> = (1..=1000).collect();
        let list = entries(&weights, &[]);
        assert!(list.len() <= LIST_ENTRIES_MAX, "{}", list.len());
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        for (index, weight) in weights.iter().enumerate() {
            let share = count_of(&list, Entry::Endpoint(index)) as f64 / list.len() as f64;
            let off = (share - f64::from(*weight) / total).abs() * 100.0;
            assert!(off <= 0.01, "{index}: {off} per cent");
        }
        // Two endpoints need no thousands of entries.
        assert!(entries(&[999, 1000], &[]).len() <= LIST_ENTRIES_SOFT_MAX + 2);
        // None is lost beside a thousand times heavier ones.
        let few: Vec<u32> = std::iter::once(1).chain([1000; 20]).collect();
        assert_eq!(count_of(&entries(&few, &[]), Entry::Endpoint(0)), 1);
    }

    #[test]
    fn drops_have_their_share_whatever_the_endpoints_are() {
        let twenty = vec![1; 20];
        let many = vec![1; 10_000];
        let uneven = (1..=7).collect::<Vec<u32>>();
        for weights in [&[1][..], &[1, 1, 1], &twenty, &many, &uneven] {
            for percents in [&[30.0][..], &[0.1], &[33.3], &[50.0], &[12.5, 7.5], &[90.0, 9.0]] {
                let list = entries(weights, percents);
                assert!(list.len() <= LIST_ENTRIES_MAX);
                for (index, percent) in percents.iter().enumerate() {
                    let share = count_of(&list, Entry::Drop(index)) as f64 / list.len() as f64;
                    let off = (share * 100.0 - percent).abs();
                    assert!(off <= 0.05, "{} {percents:?}: {share}", weights.len());
                }
                let total: u32 = weights.iter().sum();
                let kept = list.iter().filter(|e| matches!(e, Entry::Endpoint(_))).count() as f64;
                for (index, weight) in weights.iter().enumerate().take(20) {
                    let share = count_of(&list, Entry::Endpoint(index)) as f64 / kept;
                    let off = (share - f64::from(*weight) / f64::from(total)).abs();
                    assert!(off <= 0.005, "{index} of {}: {share}", weights.len());
                }
            }
        }
    }

    #[test]
    fn thirty_per_cent_of_three_is_exact_in_a_short_list_and_spread() {
        let list = entries(&[1, 1, 1], &[30.0]);
        assert_eq!((list.len(), count_of(&list, Entry::Drop(0))), (30, 9));
        assert!(gap_max(&list, Entry::Drop(0)) <= 4, "{list:?}");
    }

    #[test]
    fn everything_can_be_dropped() {
        let list = entries(&[1, 1], &[75.0, 25.0]);
        assert!(list.iter().all(|entry| matches!(entry, Entry::Drop(_))), "{list:?}");
        let share = count_of(&list, Entry::Drop(0)) as f64 / list.len() as f64;
        assert!((share - 0.75).abs() < 0.001, "{share}");
    }

    #[test]
    fn a_list_stays_within_its_limit_where_nearly_all_is_dropped() {
        let list = entries(&vec![1; 10_000], &[99.0]);
        assert!(list.len() <= LIST_ENTRIES_MAX, "{}", list.len());
        let share = count_of(&list, Entry::Drop(0)) as f64 / list.len() as f64;
        assert!((share - 0.99).abs() < 0.001, "{share}");
    }
}
