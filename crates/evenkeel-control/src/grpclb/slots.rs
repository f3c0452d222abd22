//! Small numbers for clients: the lowest that is free, so that they are consecutive and rotation
//! and subsets come out even; and the same again for a client that comes back, as long as nobody
//! else has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// How many numbers of clients that went are remembered.
const REMEMBERED_MAX: usize = 10_000;
/// The golden ratio's fraction: its multiples fill the circle evenly, however many there are.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    free: BTreeSet<u32>,
    next: u32,
    remembered: BTreeMap<IpAddr, Vec<u32>>,
    remembered_count: usize,
}

impl Slots {
    /// A number for a client at this address.
    pub(super) fn take(&mut self, ip: IpAddr) -> u32 {
        while let Some(slot) = self.recall(ip) {
            if self.free.remove(&slot) {
                return slot;
            }
        }
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// The client went.
    pub(super) fn give_back(&mut self, slot: u32, ip: IpAddr) {
        self.free.insert(slot);
        if self.remembered_count == REMEMBERED_MAX {
            self.remembered.clear();
            self.remembered_count = 0;
        }
        self.remembered.entry(ip).or_default().push(slot);
        self.remembered_count += 1;
    }

    fn recall(&mut self, ip: IpAddr) -> Option<u32> {
        let slots = self.remembered.get_mut(&ip)?;
        let slot = slots.pop();
        if slots.is_empty() {
            self.remembered.remove(&ip);
        }
        self.remembered_count -= usize::from(slot.is_some());
        slot
    }
}

/// At which of `len` entries a client with this number begins. The golden ratio's multiples spread
/// any number of clients over the list; the nearest step without a common divisor takes each entry
/// once before it takes one twice. `phase`, from 0 to 1, differs between the replicas, so that
/// their first clients do not begin alike.
pub(super) fn rotation(slot: u32, len: usize, phase: f64) -> usize {
    if len < 2 {
        return 0;
    }
    let wanted = (len as f64 * GOLDEN).round() as usize;
    let near = (0..len).flat_map(|off| [wanted.checked_sub(off), wanted.checked_add(off)]);
    let step = near.flatten().find(|step| *step > 0 && gcd(*step, len) == 1).unwrap_or(1);
    let first = (phase * len as f64) as u128;
    ((first + u128::from(slot) * step as u128) % len as u128) as usize
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn numbers_are_consecutive_and_come_back_to_their_client() {
        let mut slots = Slots::default();
        assert_eq!((slots.take(A), slots.take(B), slots.take(A)), (0, 1, 2));
        slots.give_back(1, B);
        slots.give_back(0, A);
        assert_eq!(slots.take(B), 1);
        assert_eq!(slots.take(B), 0, "the lowest that is free");
        assert_eq!(slots.take(A), 3, "its own is taken");
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let mut slots = Slots::default();
        for n in 0..=REMEMBERED_MAX as u32 {
            let ip = IpAddr::from(n.to_be_bytes());
            let slot = slots.take(ip);
            slots.give_back(slot, ip);
        }
        assert!(slots.remembered.len() <= REMEMBERED_MAX);
        assert!(slots.next <= 1);
    }

    #[test]
    fn any_number_of_clients_is_spread_over_the_list() {
        for (clients, len) in [(2, 10), (3, 1000), (10, 10_000), (500, 10_000), (500, 9_973)] {
            let mut at: Vec<usize> = (0..clients).map(|slot| rotation(slot, len, 0.25)).collect();
            at.sort_unstable();
            let wrap = at[0] + len - at[at.len() - 1];
            let gap = at.windows(2).map(|pair| pair[1] - pair[0]).fold(wrap, usize::max);
            assert!(gap <= 2 * len / clients as usize, "{clients} in {len}: {gap}");
        }
    }

    #[test]
    fn each_entry_is_somebodys_first_before_one_is_twice() {
        for len in [1, 2, 3, 4, 6, 7, 12, 30, 1000] {
            let mut at: Vec<usize> = (0..len as u32).map(|slot| rotation(slot, len, 0.7)).collect();
            at.sort_unstable();
            assert_eq!(at, (0..len).collect::<Vec<_>>());
        }
        assert_eq!(rotation(5, 0, 0.5), 0);
    }
}
