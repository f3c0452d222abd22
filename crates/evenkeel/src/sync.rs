//! What the files that `loom/` proves take from std: that crate compiles them a second time, with
//! loom's own under this name.

pub(crate) use std::sync::{Mutex, MutexGuard, atomic};
