//! The account of request bytes that calls keep for a repeat. It has parts, so that calls on
//! different threads don't fight for one counter at their beginning and end.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Request bytes that one call may keep for a repeat.
pub(crate) const REPLAY_BYTES_PER_CALL_MAX: usize = 256 * 1024;
/// Request bytes that all calls of a channel may keep.
pub(crate) const REPLAY_BYTES_PER_CHANNEL_MAX: usize = 16 * 1024 * 1024;
/// Parts of the account.
const PARTS: usize = 16;
const REPLAY_BYTES_PER_PART_MAX: usize = REPLAY_BYTES_PER_CHANNEL_MAX / PARTS;

/// Threads so far that had a call.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PART: usize = THREADS.fetch_add(1, Ordering::Relaxed) % PARTS;
}

/// What all calls of a channel keep.
#[derive(Default)]
pub(crate) struct ReplayAccount {
    parts: [Arc<Part>; PARTS],
}

/// Bytes in one part, and room that keeps it away from the next in memory.
#[derive(Default)]
struct Part {
    bytes: AtomicUsize,
    _room: [usize; 14],
}

impl ReplayAccount {
    /// A claim to nothing yet: on this thread's part, or on the emptiest when that could not take a
    /// call's most.
    pub(crate) fn claim(&self) -> Claim {
        let bytes = |part: &Arc<Part>| part.bytes.load(Ordering::Relaxed);
        let own = &self.parts[PART.with(|part| *part)];
        let has_room = bytes(own) <= REPLAY_BYTES_PER_PART_MAX - REPLAY_BYTES_PER_CALL_MAX;
        let emptiest = || self.parts.iter().min_by_key(|part| bytes(part)).unwrap_or(own);
        let part = if has_room { own } else { emptiest() };
        Claim { part: part.clone(), bytes: 0 }
    }

    /// All that is kept now.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes.load(Ordering::Relaxed)).sum()
    }
}

/// What one call keeps; given back when it is dropped.
pub(crate) struct Claim {
    part: Arc<Part>,
    bytes: usize,
}

impl Claim {
    /// Claims so many bytes more. False when a limit is passed; they are claimed all the same,
    /// until [`Claim::release`].
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let all = self.part.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        self.bytes <= REPLAY_BYTES_PER_CALL_MAX && all + bytes <= REPLAY_BYTES_PER_PART_MAX
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            self.part.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: usize = REPLAY_BYTES_PER_CALL_MAX;

    #[test]
    fn one_thread_can_use_nearly_all_of_the_account_and_never_more() {
        let account = ReplayAccount::default();
        let mut claims: Vec<Claim> = Vec::new();
        let kept = loop {
            let mut claim = account.claim();
            if !claim.grow(CALL) {
                break claims.len();
            }
            claims.push(claim);
        };
        assert_eq!(kept * CALL, REPLAY_BYTES_PER_CHANNEL_MAX);
        assert_eq!(account.bytes(), REPLAY_BYTES_PER_CHANNEL_MAX);
        claims.pop();
        assert!(account.claim().grow(CALL), "what was given back can be claimed");
        drop(claims);
        assert_eq!(account.bytes(), 0);
    }

    #[test]
    fn a_call_keeps_no_more_than_its_limit() {
        let account = ReplayAccount::default();
        let mut claim = account.claim();
        assert!(claim.grow(CALL));
        assert!(!claim.grow(1));
        claim.release();
        assert_eq!(account.bytes(), 0);
    }
}
