//! loom's atomics and mutex in the shape of std's.
//!
//! loom takes SEQ_CST for ACQ_REL and so finds orders that can't be. It does know fences, and with
//! one on either side of each SEQ_CST access all of them have the one total order that std
//! promises. The models need it: a call joins the line and then looks for a stream, another frees
//! a stream and then looks at the line.

use std::sync::LockResult;

pub(crate) use loom::sync::MutexGuard;

/// See std's.
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self(loom::sync::Mutex::new(T::default()))
    }
}

impl<T> Mutex<T> {
    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.0.lock()
    }
}

/// See std's module.
#[allow(dead_code, reason = "a method more or less, as the files under proof change")]
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::Ordering;

    /// Does one access.
    fn ordered<T>(order: Ordering, access: impl FnOnce() -> T) -> T {
        let fence = || {
            if order == Ordering::SeqCst {
                loom::sync::atomic::fence(Ordering::SeqCst);
            }
        };
        fence();
        let result = access();
        fence();
        result
    }

    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            /// See std's.
            #[derive(Default)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    ordered(order, || self.0.load(order))
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    ordered(order, || self.0.store(value, order));
                }

                pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                    ordered(order, || self.0.swap(value, order))
                }

                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    update: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    ordered(set, || self.0.fetch_update(set, fetch, update))
                }
            }
        };
    }

    macro_rules! arithmetic {
        ($name:ident, $value:ty) => {
            atomic!($name, $value);

            impl $name {
                pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    ordered(order, || self.0.fetch_add(value, order))
                }

                pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    ordered(order, || self.0.fetch_sub(value, order))
                }

                pub(crate) fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                    ordered(order, || self.0.fetch_max(value, order))
                }
            }
        };
    }

    atomic!(AtomicBool, bool);
    arithmetic!(AtomicU32, u32);
    arithmetic!(AtomicU64, u64);
    arithmetic!(AtomicUsize, usize);
}
