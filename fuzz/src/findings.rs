//! Hears of panics, wherever they happen: tokio catches those of its tasks, so that an input which
//! kills the channel's driver would look like a call without an answer.

use std::{
    cell::RefCell,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io, panic,
    path::PathBuf,
    sync::{Mutex, Once, PoisonError},
    thread,
};

/// Threads whose name begins so work for a target that runs on another one.
pub(crate) const SERVER_THREAD: &str = "fuzzed server";

thread_local! {
    static HERE: RefCell<Option<String>> = const { RefCell::new(None) };
}
static IN_SERVER: Mutex<Option<String>> = Mutex::new(None);

/// An input that must not have done what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The input.
    pub input: Vec<u8>,
    /// The first panic's message, or that it takes for ever.
    pub why: String,
}

impl Finding {
    /// Writes the input to a file below the current folder.
    ///
    /// # Errors
    ///
    /// It can't be written.
    pub fn save(&self, target: &str) -> io::Result<PathBuf> {
        let mut hasher = DefaultHasher::new();
        self.input.hash(&mut hasher);
        let folder = PathBuf::from("fuzz/findings");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{target}-{:016x}", hasher.finish()));
        std::fs::write(&path, &self.input)?;
        Ok(path)
    }
}

/// From now on panics are noted, and still printed.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let why = info.to_string();
            if thread::current().name().is_some_and(|name| name.starts_with(SERVER_THREAD)) {
                IN_SERVER.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
            } else {
                HERE.with_borrow_mut(|here| {
                    here.get_or_insert(why);
                });
            }
            print(info);
        }));
    });
}

/// The first panic since the last question, on this thread or in a server.
pub(crate) fn heard() -> Option<String> {
    let in_server = || IN_SERVER.lock().unwrap_or_else(PoisonError::into_inner).take();
    HERE.take().or_else(in_server)
}
