//! What is counted for each method of a channel's target or of a server. A method's number is found
//! once for each call; from then on there are indices and atomic additions. Methods and statuses
//! beyond their limits are counted as the method `other`, as gRFC A66 has it for unknown ones.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use evenkeel::core::Code;

use super::{
    cells::{Distribution, Histograms, Striped},
    instruments::{LATENCY, RETRIES, SIZE, TRANSPARENT},
};

/// Methods of one target or server that have numbers of their own.
pub(super) const METHODS_MAX: usize = 100;
/// Pairs of a method and a status that a process has numbers for, over all targets.
pub(super) const STATUS_SETS_MAX: usize = 2_000;
/// Bytes of a method's name.
const NAME_BYTES_MAX: usize = 256;
/// The name of all others (gRFC A66).
pub(super) const OTHER: &str = "other";
/// Its number.
pub(super) const OTHER_METHOD: u32 = 0;
const STATUSES: usize = Code::ALL.len();

/// Pairs that may still get numbers of their own.
pub(super) struct Room(AtomicUsize);

impl Room {
    pub(super) fn new(sets: usize) -> Self {
        Self(AtomicUsize::new(sets))
    }

    fn take(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// The methods of one target or server.
pub(super) struct Methods {
    /// A tree, as each call asks: a hash that strangers can't plan for costs more than a few
    /// comparisons.
    numbers: ArcSwap<BTreeMap<Box<str>, u32>>,
    /// By number; the first is [`OTHER`].
    slots: Box<[OnceLock<Box<Method>>]>,
    growing: Mutex<()>,
    room: Arc<Room>,
}

/// The numbers of one method.
pub(super) struct Method {
    pub(super) name: Box<str>,
    started: Striped,
    /// By status: attempts of a client, calls of a server.
    ends: [OnceLock<Box<Ends>>; STATUSES],
    /// By status: calls of a client.
    calls: [OnceLock<Histograms<1>>; STATUSES],
    pub(super) retries: OnceLock<Box<Retries>>,
}

/// How attempts or calls with one status ended: time, bytes sent, bytes received.
pub(super) struct Ends(Histograms<3>);

/// The repeats of a method's calls.
pub(super) struct Retries {
    pub(super) by_policy: Histograms<1>,
    pub(super) transparent: Histograms<1>,
    pub(super) delay: Histograms<1>,
}

impl Ends {
    fn new() -> Self {
        Self(Histograms::new([&LATENCY, &SIZE, &SIZE]))
    }

    pub(super) fn record(&self, took: Duration, sent: u64, received: u64) {
        self.0.record([ns(took), sent, received]);
    }

    pub(super) fn duration(&self) -> Distribution {
        self.0.read(0)
    }

    pub(super) fn sent(&self) -> Distribution {
        self.0.read(1)
    }

    pub(super) fn received(&self) -> Distribution {
        self.0.read(2)
    }
}

pub(super) fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Method {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            started: Striped::new(1),
            ends: std::array::from_fn(|_| OnceLock::new()),
            calls: std::array::from_fn(|_| OnceLock::new()),
            retries: OnceLock::new(),
        }
    }

    pub(super) fn start(&self) {
        self.started.add(0, 1);
    }

    pub(super) fn started(&self) -> u64 {
        self.started.sum(0)
    }

    /// Those that ended, by the status's name.
    pub(super) fn ends(&self) -> impl Iterator<Item = (&'static str, &Ends)> {
        named(&self.ends).map(|(name, ends)| (name, &**ends))
    }

    /// A client's calls that ended, by the status's name.
    pub(super) fn calls(&self) -> impl Iterator<Item = (&'static str, &Histograms<1>)> {
        named(&self.calls)
    }

    pub(super) fn retries(&self) -> &Retries {
        self.retries.get_or_init(|| {
            Box::new(Retries {
                by_policy: Histograms::new([&RETRIES]),
                transparent: Histograms::new([&TRANSPARENT]),
                delay: Histograms::new([&LATENCY]),
            })
        })
    }
}

fn named<T>(by_status: &[OnceLock<T>; STATUSES]) -> impl Iterator<Item = (&'static str, &T)> {
    let all = Code::ALL.iter().zip(by_status);
    all.filter_map(|(code, slot)| Some((code.name(), slot.get()?)))
}

impl Methods {
    pub(super) fn new(room: Arc<Room>) -> Self {
        let slots: Box<[OnceLock<_>]> = (0..=METHODS_MAX).map(|_| OnceLock::new()).collect();
        slots[0].get_or_init(|| Box::new(Method::new(OTHER)));
        Self { numbers: ArcSwap::default(), slots, growing: Mutex::default(), room }
    }

    /// The number of a method that was seen before. `path` is `/service/method`.
    pub(super) fn find(&self, path: &str) -> Option<u32> {
        self.numbers.load().get(name_of(path)).copied()
    }

    /// The number of a method, which gets one now if it had none and there is room.
    pub(super) fn number(&self, path: &str) -> u32 {
        self.find(path).unwrap_or_else(|| self.grow(name_of(path)))
    }

    fn grow(&self, name: &str) -> u32 {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return OTHER_METHOD;
        }
        // It guards no data of its own.
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = self.numbers.load();
        if let Some(number) = numbers.get(name) {
            return *number;
        }
        let number = numbers.len() + 1;
        let Some(slot) = self.slots.get(number) else { return OTHER_METHOD };
        slot.get_or_init(|| Box::new(Method::new(name)));
        let number = number as u32;
        let mut more = BTreeMap::clone(&numbers);
        more.insert(name.into(), number);
        self.numbers.store(Arc::new(more));
        number
    }

    /// The method of a number.
    pub(super) fn get(&self, number: u32) -> &Method {
        let slot = self.slots.get(number as usize).and_then(OnceLock::get);
        slot.or_else(|| self.slots[0].get()).expect("the first is there from the beginning")
    }

    /// All that have a number.
    pub(super) fn all(&self) -> impl Iterator<Item = &Method> {
        self.slots.iter().filter_map(OnceLock::get).map(|method| &**method)
    }

    /// Where attempts or calls of a method with this status are counted.
    pub(super) fn ends(&self, number: u32, status: u8) -> &Ends {
        self.slot(number, status, |method| &method.ends, || Box::new(Ends::new()))
    }

    /// Where a client's calls of a method with this status are counted.
    pub(super) fn calls(&self, number: u32, status: u8) -> &Histograms<1> {
        self.slot(number, status, |method| &method.calls, || Histograms::new([&LATENCY]))
    }

    fn slot<T>(
        &self,
        number: u32,
        status: u8,
        of: impl Fn(&Method) -> &[OnceLock<T>; STATUSES],
        make: impl Fn() -> T,
    ) -> &T {
        // A server may send numbers that gRPC does not know.
        let status = usize::from(status);
        let status = if status < STATUSES { status } else { Code::Unknown as usize };
        let slot = &of(self.get(number))[status];
        if let Some(there) = slot.get() {
            return there;
        }
        // `other` has a few for each target, whatever room there is.
        let has_room = number == OTHER_METHOD || self.room.take();
        let slot = if has_room { slot } else { &of(self.get(OTHER_METHOD))[status] };
        slot.get_or_init(make)
    }
}

fn name_of(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn methods(sets: usize) -> Methods {
        Methods::new(Arc::new(Room::new(sets)))
    }

    #[test]
    fn a_path_keeps_its_number_and_the_slash_goes() {
        let methods = methods(9);
        assert_eq!(methods.find("/a.B/C"), None);
        let number = methods.number("/a.B/C");
        assert_ne!(number, OTHER_METHOD);
        assert_eq!((methods.number("/a.B/C"), methods.find("/a.B/C")), (number, Some(number)));
        assert_eq!(&*methods.get(number).name, "a.B/C");
    }

    #[test]
    fn methods_beyond_the_limit_are_other() {
        let methods = methods(9);
        let numbers: Vec<u32> = (0..150).map(|k| methods.number(&format!("/s/m{k}"))).collect();
        let own = numbers.iter().filter(|number| **number != OTHER_METHOD).count();
        assert_eq!((own, methods.all().count()), (METHODS_MAX, METHODS_MAX + 1));
        assert_eq!(methods.number("/s/m0"), numbers[0]);
        for path in ["", "/", &"/m".repeat(200)] {
            assert_eq!(methods.number(path), OTHER_METHOD, "{path:.9}");
        }
    }

    #[test]
    fn pairs_beyond_the_limit_are_counted_as_other_with_their_status() {
        let methods = methods(1);
        let number = methods.number("/s/m");
        for status in [0, 14, 14, 99] {
            methods.ends(number, status).record(Duration::ZERO, 1, 2);
        }
        let counts = |number| -> Vec<_> {
            let ends = methods.get(number).ends();
            ends.map(|(name, ends)| (name, ends.duration().count())).collect()
        };
        assert_eq!(counts(number), [("OK", 1)]);
        assert_eq!(counts(OTHER_METHOD), [("UNKNOWN", 1), ("UNAVAILABLE", 2)]);
    }

    #[test]
    fn threads_that_meet_at_a_new_method_agree_on_its_number() {
        let methods = methods(9);
        let numbers: Vec<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| methods.number("/s/m"))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(numbers.iter().all(|number| *number == numbers[0] && *number != OTHER_METHOD));
    }
}
