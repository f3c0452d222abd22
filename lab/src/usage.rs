//! What a process costs, by the kernel's books: a proxy is a program that we did not write, and it
//! is not asked.

use std::{fs, io};

/// The unit of `/proc/PID/stat`, which is 1/100 s on every architecture that the lab runs on,
/// whatever the kernel's own tick is.
const TICKS_PER_S: f64 = 100.0;

/// What one process has used up to now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// User and system time of all its threads, those that ended included.
    pub(crate) cpu_s: f64,
    /// Its resident set.
    pub(crate) rss_kib: u64,
}

impl Usage {
    /// Of the process `pid`.
    ///
    /// # Errors
    ///
    /// When it is gone, or the kernel writes something else.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let odd = |file: &str| io::Error::other(format!("/proc/{pid}/{file} is not as expected"));
        let cpu_s = cpu_s(&read("stat")?).ok_or_else(|| odd("stat"))?;
        let rss_kib = rss_kib(&read("status")?).ok_or_else(|| odd("status"))?;
        Ok(Self { cpu_s, rss_kib })
    }
}

/// Fields 14 and 15 of `stat`. The second one is the program's name in parentheses, in which there
/// may be spaces and parentheses; nothing after it has any.
fn cpu_s(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    Some((user + system) as f64 / TICKS_PER_S)
}

fn rss_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added_and_a_name_may_look_like_anything() {
        let after = "S 1 2 3 4 5 6 7 8 9 10 150 75 8 9 20 0 3 0 1234 5678 90";
        for name in ["envoy", "wrk:worker_0", "a b", "a) S 9 9 9", "((x)"] {
            assert_eq!(cpu_s(&format!("4711 ({name}) {after}")), Some(2.25), "{name}");
        }
        assert_eq!(cpu_s("4711 (envoy) S 1 2 3"), None);
        assert_eq!(cpu_s(""), None);
    }

    #[test]
    fn the_resident_set_is_read_from_its_own_line() {
        let status = "Name:\tenvoy\nVmHWM:\t  90000 kB\nVmRSS:\t   71232 kB\nThreads:\t4\n";
        assert_eq!(rss_kib(status), Some(71_232));
        assert_eq!(rss_kib("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn this_process_has_used_memory_and_one_that_is_gone_is_an_error() {
        let before = Usage::of(std::process::id()).unwrap();
        assert!(before.rss_kib > 100);
        let mut n = 1u64;
        let worked = || Usage::of(std::process::id()).unwrap().cpu_s;
        while worked() < before.cpu_s + 0.02 {
            n = std::hint::black_box(n.wrapping_mul(31));
        }
        // Pids end at 2^22.
        assert_eq!(Usage::of(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
