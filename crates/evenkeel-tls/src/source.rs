//! One thing that is read from files, and read again when they change. By content and not by time
//! stamp: Kubernetes swaps a symlink to a whole folder, other writers keep the time stamp, and the
//! files are small. When somebody asks and not by a task: a watcher of the kernel's needs one per
//! folder and goes blind on the very swap, and who asks is about to shake hands, which costs more.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::TlsError;

/// How often watched files are looked at, at most, unless told otherwise.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// The largest file that is read, in bytes: all roots of a Linux distribution have about 200 KiB.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How often files are read until two readings agree.
const READINGS_MAX: usize = 4;

/// What became of the files so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatchStatus {
    /// How often new content was taken into use; the first content is not counted.
    pub reloads: u64,
    /// How often files had changed and could not be used, or not be read.
    pub failures: u64,
    /// What is wrong with the files now; the last good content is in use.
    pub last_error: Option<String>,
}

type Parse<T> = fn(&[Vec<u8>]) -> Result<T, String>;

/// See the module's head.
pub(crate) struct Source<T> {
    /// For messages: "certificate and key", say.
    what: &'static str,
    /// None when the content was given.
    files: Vec<PathBuf>,
    interval: Duration,
    parse: Parse<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    current: Arc<T>,
    /// How often new content came into use after the first.
    version: u64,
    /// What was read last, good or bad.
    contents: Vec<Vec<u8>>,
    next_look: Option<Instant>,
    failures: u64,
    /// The files can't be read at the moment.
    unreadable: Option<String>,
    /// The contents that were read last can't be used.
    unusable: Option<String>,
}

impl<T: Send + Sync + 'static> Source<T> {
    /// Content that never changes.
    pub(crate) fn given(
        what: &'static str,
        contents: &[&[u8]],
        parse: Parse<T>,
    ) -> Result<Arc<Self>, TlsError> {
        let contents: Vec<_> = contents.iter().map(|bytes| bytes.to_vec()).collect();
        let value = parse(&contents)
            .map_err(|reason| TlsError::Content { what: what.to_owned(), reason })?;
        Ok(Self::new(what, Vec::new(), Duration::MAX, parse, value, Vec::new()))
    }

    /// A value that never changes.
    pub(crate) fn fixed(what: &'static str, value: T) -> Arc<Self> {
        let never = |_: &[Vec<u8>]| Err("there is nothing to read".to_owned());
        Self::new(what, Vec::new(), Duration::MAX, never, value, Vec::new())
    }

    /// Reads the files now, and watches them from now on.
    pub(crate) fn watch(
        what: &'static str,
        files: Vec<PathBuf>,
        interval: Duration,
        parse: Parse<T>,
    ) -> Result<Arc<Self>, TlsError> {
        let contents = read_settled(&files, &[])?;
        let value = parse(&contents)
            .map_err(|reason| TlsError::Content { what: describe(what, &files), reason })?;
        Ok(Self::new(what, files, interval, parse, value, contents))
    }

    fn new(
        what: &'static str,
        files: Vec<PathBuf>,
        interval: Duration,
        parse: Parse<T>,
        value: T,
        contents: Vec<Vec<u8>>,
    ) -> Arc<Self> {
        let state = State {
            current: Arc::new(value),
            version: 0,
            contents,
            next_look: None,
            failures: 0,
            unreadable: None,
            unusable: None,
        };
        Arc::new(Self { what, files, interval, parse, state: Mutex::new(state) })
    }

    /// The content in use, with a number that tells it from others.
    pub(crate) fn current(&self) -> (u64, Arc<T>) {
        let state = self.lock();
        (state.version, state.current.clone())
    }

    pub(crate) fn version(&self) -> u64 {
        self.lock().version
    }

    pub(crate) fn status(&self) -> WatchStatus {
        let State { version, failures, unreadable, unusable, .. } = &*self.lock();
        let last_error = unreadable.as_ref().or(unusable.as_ref()).cloned();
        WatchStatus { reloads: *version, failures: *failures, last_error }
    }

    /// What it is and where it comes from.
    pub(crate) fn describe(&self) -> String {
        describe(self.what, &self.files)
    }

    /// Looks at the files when it is time to. One caller looks; others go on with what is there.
    pub(crate) async fn refresh(self: &Arc<Self>) {
        if self.files.is_empty() || !self.is_time() {
            return;
        }
        let source = Arc::clone(self);
        // A file system may hang, and the runtime's threads are not for waiting.
        let looked = tokio::task::spawn_blocking(move || source.look()).await;
        if let Err(error) = looked {
            tracing::warn!(what = self.describe(), %error, "could not look at the files");
        }
    }

    fn is_time(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let due = state.next_look.is_none_or(|at| at <= now);
        if due {
            state.next_look = now.checked_add(self.interval);
        }
        due
    }

    fn look(&self) {
        let before = self.lock().contents.clone();
        let contents = match read_settled(&self.files, &before) {
            Ok(contents) => contents,
            Err(error) => return self.unreadable(error.to_string()),
        };
        self.lock().unreadable = None;
        if contents == before {
            return;
        }
        let parsed = (self.parse)(&contents);
        let mut state = self.lock();
        state.contents = contents;
        match parsed {
            Ok(value) => {
                state.current = Arc::new(value);
                state.version += 1;
                state.unusable = None;
                drop(state);
                tracing::info!(what = self.describe(), "new content is in use");
            }
            Err(reason) => {
                drop(state);
                self.unusable(format!("{}: {reason}", self.describe()));
            }
        }
    }

    /// Once and not at each look.
    fn unreadable(&self, reason: String) {
        let mut state = self.lock();
        if state.unreadable.as_ref() != Some(&reason) {
            state.failures += 1;
            tracing::warn!(reason, "can't read it; the last good content stays in use");
            state.unreadable = Some(reason);
        }
    }

    /// The content that was read last can't be used. Several users may find the same.
    pub(crate) fn unusable(&self, reason: String) {
        let mut state = self.lock();
        if state.unusable.as_ref() != Some(&reason) {
            state.failures += 1;
            tracing::warn!(reason, "can't use it; the last good content stays in use");
            state.unusable = Some(reason);
        }
    }

    /// Whole at any time: nothing that holds this lock can panic half way.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Never the content: it may be a key.
impl<T> fmt::Debug for Source<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("files", &self.files).finish_non_exhaustive()
    }
}

fn describe(what: &str, files: &[PathBuf]) -> String {
    let mut text = what.to_owned();
    for (index, file) in files.iter().enumerate() {
        let before = if index == 0 { " of" } else { " and" };
        text += &format!("{before} {}", file.display());
    }
    text
}

/// Reads the files until two readings agree, so that a certificate and the key of the next one, or
/// half a file, are seldom taken for new content.
fn read_settled(files: &[PathBuf], before: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, TlsError> {
    let mut contents = read_all(files)?;
    for _ in 1..READINGS_MAX {
        if contents == before {
            break;
        }
        let again = read_all(files)?;
        let settled = again == contents;
        contents = again;
        if settled {
            break;
        }
    }
    Ok(contents)
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, TlsError> {
    files.iter().map(|file| read(file).map_err(|e| TlsError::file(file, e))).collect()
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("expected at most {FILE_BYTES_MAX} bytes")));
    }
    Ok(content)
}
