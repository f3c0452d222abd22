//! The core's wall (docs/ARCHITECTURE.md) in evenkeel-core's own text: no runtime, no socket, no
//! clock, no thread, no randomness but the seeded generator that comes in. `deps` checks the same
//! of its dependencies; the standard library is only seen here.

use crate::{
    Finding,
    source::{find_word, is_identifier},
    tree::Tree,
};

const CORE: &str = "crates/evenkeel-core/src/";

/// Words of the standard library and of crates, with what they would bring in.
const FORBIDDEN: [(&str, &str); 19] = [
    ("Instant", "a clock"),
    ("SystemTime", "a clock"),
    ("UNIX_EPOCH", "a clock"),
    ("std::thread", "a thread"),
    ("thread::spawn", "a thread"),
    ("thread_local!", "a thread"),
    ("TcpListener", "a socket"),
    ("TcpStream", "a socket"),
    ("UdpSocket", "a socket"),
    ("ToSocketAddrs", "name resolution"),
    ("UnixListener", "a socket"),
    ("UnixStream", "a socket"),
    ("std::fs", "a file"),
    ("std::env", "the environment"),
    ("tokio", "a runtime"),
    ("tonic", "a gRPC stack"),
    ("rand", "global randomness"),
    ("Rng::new", "a random seed"),
    ("RandomState", "a random seed"),
];

pub(super) fn core_is_sans_io(tree: &Tree, out: &mut Vec<Finding>) {
    for (path, source) in tree.sources().filter(|(path, _)| path.starts_with(CORE)) {
        for (n, line) in source.production() {
            let words = FORBIDDEN.iter().filter(|(word, _)| find_word(&line.code, word).is_some());
            for (word, brings) in words {
                out.push(finding(path, n, word, brings));
            }
            if global_fastrand(&line.code) {
                out.push(finding(path, n, "fastrand's global generator", "global randomness"));
            }
        }
    }
}

fn finding(path: &str, line: usize, what: &str, brings: &str) -> Finding {
    let message = format!(
        "{what} brings {brings} into the core; take `now` and a seeded generator as arguments, \
         give effects back as values"
    );
    Finding::new(path, line, "core", message)
}

/// `fastrand::u64(..)`; `fastrand::Rng` begins with a capital.
fn global_fastrand(code: &str) -> bool {
    find_word(code, "fastrand::").is_some_and(|at| {
        let function = code[at + "fastrand::".len()..].chars().next();
        function.is_some_and(|c| is_identifier(c) && c.is_lowercase())
    })
}
