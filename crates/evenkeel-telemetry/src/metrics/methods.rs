//! What is counted for each method of a channel's target or of a server. A method's number is found
//! once for each call; from then on there are indices and atomic additions. Methods and statuses
//! beyond their limits are counted as the method `other`, as gRFC A66 has it for unknown ones.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use evenkeel::core::Code;

use super::{
    cells::{Distribution, Histograms, Striped},
    instruments::{LATENCY, RETRIES, SIZE, TRANSPARENT},
};

/// Methods of one target or server that have numbers of their own.
pub(super) const METHODS_MAX: usize = 100;
/// Places for them; more, so that each is near where it is looked for. A power of two.
const PLACES: usize = 256;
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

/// The methods of one target or server: a table that only grows, as each call looks for its method
/// and none ever goes.
pub(super) struct Methods {
    other: Method,
    /// A method is at its [`home`], or behind it with no gap in between. Its number is its place's,
    /// counted from 1.
    places: Box<[OnceLock<Box<Method>>]>,
    /// How many there are.
    growing: Mutex<usize>,
    room: Arc<Room>,
}

/// The numbers of one method.
pub(super) struct Method {
    pub(super) name: Box<str>,
    started: Striped,
    /// By status: a client's calls that were one attempt, and so those attempts; a server's calls.
    ends: [OnceLock<Box<Ends>>; STATUSES],
    /// By status: a client's other attempts.
    attempts: [OnceLock<Box<Ends>>; STATUSES],
    /// By status: a client's other calls.
    calls: [OnceLock<Histograms<1>>; STATUSES],
    pub(super) retries: OnceLock<Box<Retries>>,
}

/// How attempts or calls with one status ended: time, bytes sent, bytes received.
pub(super) struct Ends(Histograms<3>);

/// What [`Ends`] have seen so far.
pub(super) struct Ended {
    pub(super) duration: Distribution,
    pub(super) sent: Distribution,
    pub(super) received: Distribution,
}

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
            attempts: std::array::from_fn(|_| OnceLock::new()),
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

    /// A client's attempts or a server's calls, by the status's name.
    pub(super) fn ended(&self) -> impl Iterator<Item = (&'static str, Ended)> {
        by_status(|status| {
            let all = || [&self.ends, &self.attempts].into_iter().filter_map(|of| of[status].get());
            let sum = |which| all().map(|ends| ends.0.read(which)).reduce(Distribution::plus);
            Some(Ended { duration: sum(0)?, sent: sum(1)?, received: sum(2)? })
        })
    }

    /// The times of a client's calls, by the status's name.
    pub(super) fn calls(&self) -> impl Iterator<Item = (&'static str, Distribution)> {
        by_status(|status| {
            let whole = self.ends[status].get().map(|ends| ends.0.read(0));
            let others = self.calls[status].get().map(|calls| calls.read(0));
            whole.into_iter().chain(others).reduce(Distribution::plus)
        })
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

fn by_status<T>(of: impl Fn(usize) -> Option<T>) -> impl Iterator<Item = (&'static str, T)> {
    let all = Code::ALL.iter().enumerate();
    all.filter_map(move |(status, code)| Some((code.name(), of(status)?)))
}

impl Methods {
    pub(super) fn new(room: Arc<Room>) -> Self {
        let places = (0..PLACES).map(|_| OnceLock::new()).collect();
        Self { other: Method::new(OTHER), places, growing: Mutex::default(), room }
    }

    /// The number of a method that was seen before. `path` is `/service/method`.
    pub(super) fn find(&self, path: &str) -> Option<u32> {
        self.seek(name_of(path)).ok()
    }

    /// The number of a method, which gets one now if it had none and there is room.
    pub(super) fn number(&self, path: &str) -> u32 {
        self.find(path).unwrap_or_else(|| self.grow(name_of(path)))
    }

    /// The number of the method, or the place where it would be. There are more places than
    /// methods, so it comes to an end.
    fn seek(&self, name: &str) -> Result<u32, usize> {
        let mut place = home(name.as_bytes());
        while let Some(method) = self.places[place].get() {
            if *method.name == *name {
                return Ok(place as u32 + 1);
            }
            place = (place + 1) % PLACES;
        }
        Err(place)
    }

    fn grow(&self, name: &str) -> u32 {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return OTHER_METHOD;
        }
        // A number is whole after every step.
        let mut count = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.seek(name) {
            Ok(number) => number,
            Err(_) if *count == METHODS_MAX => OTHER_METHOD,
            Err(place) => {
                self.places[place].get_or_init(|| Box::new(Method::new(name)));
                *count += 1;
                place as u32 + 1
            }
        }
    }

    /// The method of a number.
    pub(super) fn get(&self, number: u32) -> &Method {
        let place = (number as usize).checked_sub(1).and_then(|place| self.places.get(place));
        place.and_then(OnceLock::get).map_or(&self.other, |method| method)
    }

    /// All that have a number.
    pub(super) fn all(&self) -> impl Iterator<Item = &Method> {
        let methods = self.places.iter().filter_map(OnceLock::get).map(|method| &**method);
        std::iter::once(&self.other).chain(methods)
    }

    /// Where a client's calls of a method that ended with this status at their first attempt, or a
    /// server's, are counted.
    pub(super) fn ends(&self, number: u32, status: u8) -> &Ends {
        self.slot(number, status, |method| &method.ends, || Box::new(Ends::new()))
    }

    /// Where a client's other attempts are counted.
    pub(super) fn attempts(&self, number: u32, status: u8) -> &Ends {
        self.slot(number, status, |method| &method.attempts, || Box::new(Ends::new()))
    }

    /// Where a client's other calls are counted.
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

/// Where a method is looked for first. No stranger can plan for it: methods are the program's.
fn home(name: &[u8]) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 over the golden ratio: Knuth's multiplier
    let mix = |hash: u64, eight: &[u8; 8]| (hash ^ u64::from_le_bytes(*eight)).wrapping_mul(ODD);
    let (eights, _) = name.as_chunks();
    // The last eight, which lie over those before them if there is a rest.
    let hash = eights.iter().chain(name.last_chunk()).fold(name.len() as u64, mix);
    (hash >> (u64::BITS - PLACES.trailing_zeros())) as usize
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
    fn methods_that_are_looked_for_in_one_place_stay_apart() {
        let last = PLACES - 1;
        let at_last = |name: &String| home(name.as_bytes()) == last;
        let names: Vec<String> =
            (0..).map(|k| format!("a.Service/Method{k}")).filter(at_last).take(3).collect();
        let methods = methods(9);
        let numbers: Vec<u32> = names.iter().map(|name| methods.number(name)).collect();
        // Behind the last place is the first.
        assert_eq!(numbers, [PLACES as u32, 1, 2]);
        for (name, number) in names.iter().zip(numbers) {
            assert_eq!((methods.find(name), &*methods.get(number).name), (Some(number), &**name));
        }
    }

    #[test]
    fn methods_of_one_service_seldom_meet() {
        let names = (0..METHODS_MAX).map(|k| format!("helloworld.Greeter/SayHelloTo{k}"));
        let homes: std::collections::BTreeSet<_> =
            names.map(|name| home(name.as_bytes())).collect();
        assert!(homes.len() > METHODS_MAX / 2, "{}", homes.len());
    }

    #[test]
    fn a_call_that_was_one_attempt_counts_as_both() {
        let methods = methods(9);
        let number = methods.number("/s/m");
        methods.ends(number, 0).record(Duration::from_nanos(7), 1, 2);
        methods.attempts(number, 0).record(Duration::from_nanos(1), 10, 20);
        methods.attempts(number, 14).record(Duration::from_nanos(2), 0, 0);
        methods.calls(number, 0).record([100]);
        let method = methods.get(number);
        let ended: Vec<_> = method
            .ended()
            .map(|(name, all)| (name, all.duration.count(), all.sent.sum, all.received.sum))
            .collect();
        assert_eq!(ended, [("OK", 2, 11.0, 22.0), ("UNAVAILABLE", 1, 0.0, 0.0)]);
        let calls: Vec<_> = method.calls().map(|(name, times)| (name, times.count())).collect();
        assert_eq!(calls, [("OK", 2)]);
    }

    #[test]
    fn pairs_beyond_the_limit_are_counted_as_other_with_their_status() {
        let methods = methods(1);
        let number = methods.number("/s/m");
        for status in [0, 14, 14, 99] {
            methods.ends(number, status).record(Duration::ZERO, 1, 2);
        }
        let counts = |number| -> Vec<_> {
            let ended = methods.get(number).ended();
            ended.map(|(name, ended)| (name, ended.duration.count())).collect()
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
