//! What this process costs: CPU time and peak memory. The clock of the process has nanoseconds and
//! needs no `unsafe` binding to getrusage; `/proc/self/stat` counts in ticks of 10 ms.

/// User and system time of all threads since the process started, in seconds.
pub fn cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The largest resident set so far, in KiB; `None` where there is no /proc.
pub fn rss_max_kib() -> Option<u64> {
    peak_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_grows_with_work() {
        let before = cpu_s();
        let mut n = 1u64;
        while cpu_s() - before < 0.01 {
            n = std::hint::black_box(n.wrapping_mul(31));
        }
        assert!(cpu_s() - before >= 0.01);
    }

    #[test]
    fn reads_the_peak_from_the_kernel_format() {
        assert_eq!(peak_of("Name:\tx\nVmHWM:\t    5372 kB\nVmRSS:\t 1 kB\n"), Some(5372));
        assert_eq!(peak_of("Name:\tx\n"), None);
    }
}
