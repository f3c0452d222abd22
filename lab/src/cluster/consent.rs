//! Whether the user wants a cluster to be changed. Apart from the run, so that what is typed can
//! come from a pipe in tests: a terminal of its own would need a pty, and what has to be right are
//! the answers, not the terminal.

use std::io::{BufRead, Write as _};

use tokio::sync::oneshot;

use crate::error::LabError;

/// The only answer that is one: `y` may be a slip, and what follows deletes pods.
const YES: &str = "yes";
/// More than this is no answer; standard input may be a file by mistake.
const ANSWER_BYTES_MAX: u64 = 1024;

/// Asks on stderr and reads one line of what `open` opens. `asked_whom`: somebody can answer there.
///
/// # Errors
///
/// When nobody can be asked, or the answer is another one than yes.
pub(super) async fn given<R: BufRead>(
    asked_whom: bool,
    open: impl FnOnce() -> R + Send + 'static,
) -> Result<(), LabError> {
    if !asked_whom {
        return Err(LabError::Cluster(
            "expected --yes, since nobody can be asked here whether the cluster may be changed"
                .to_owned(),
        ));
    }
    if agreed(open).await {
        Ok(())
    } else {
        Err(LabError::Cluster("nothing was changed: the answer was not yes".to_owned()))
    }
}

/// A thread of its own reads: the runtime would wait for one of its own at the end, and after
/// Ctrl-C nobody types any more.
async fn agreed<R: BufRead>(open: impl FnOnce() -> R + Send + 'static) -> bool {
    let (say, said) = oneshot::channel();
    std::thread::spawn(move || {
        eprint!("Go on? Type {YES}: ");
        std::io::stderr().flush().ok();
        let mut line = String::new();
        let read = open().take(ANSWER_BYTES_MAX).read_line(&mut line);
        // Nobody listens any more when the run was interrupted.
        say.send(read.is_ok() && line.trim() == YES).ok();
    });
    said.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufReader, Cursor},
        time::Duration,
    };

    use super::*;

    async fn answered(text: &'static [u8]) -> Result<(), String> {
        let given = given(true, move || Cursor::new(text)).await;
        given.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn only_yes_is_yes() {
        assert_eq!(answered(b"yes\n").await, Ok(()));
        assert_eq!(answered(b" yes \r\n").await, Ok(()));
        for other in [&b"\n"[..], b"y\n", b"YES\n", b"yes, please\n", b"no\nyes\n", b"", b"\xff\n"]
        {
            let refused = answered(other).await.expect_err("no yes");
            assert!(refused.contains("nothing was changed"), "{other:?}: {refused}");
        }
        let endless = [b'y'; 10_000];
        let refused = given(true, move || Cursor::new(endless)).await;
        assert!(refused.is_err(), "a line without end is no answer");
    }

    #[tokio::test]
    async fn where_nobody_can_answer_nothing_is_read() {
        let read = given(false, || -> Cursor<&[u8]> { panic!("it must not be opened") }).await;
        assert!(read.is_err_and(|error| error.to_string().contains("expected --yes")));
    }

    #[tokio::test]
    async fn who_types_nothing_is_waited_for_and_can_be_left() {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let asked = given(true, move || BufReader::new(reader));
        tokio::pin!(asked);
        let left = tokio::select! {
            biased;
            _ = &mut asked => false,
            () = tokio::task::yield_now() => true,
        };
        assert!(left, "no answer was typed");
        writer.write_all(b"yes\n").expect("the thread holds the other end");
        let limit = Duration::from_secs(10);
        let answer = tokio::time::timeout(limit, asked).await.expect("the line is there");
        assert!(answer.is_ok());
    }
}
