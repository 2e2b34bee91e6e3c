//! What a server costs: processor time and memory of its process, from `/proc`.

use std::fs;

/// The use a process has made of the machine so far.
#[derive(Clone, Copy)]
pub(crate) struct ProcessUsage {
    /// Processor time of all its threads, user and system, in microseconds. The kernel counts it
    /// in ticks of about 10 milliseconds.
    pub(crate) cpu_micros: f64,
    /// The most memory it had resident (`VmHWM`) since its start or since [`forget_peak`], in bytes.
    pub(crate) peak_rss_bytes: u64,
    /// The memory it has resident (`VmRSS`), in bytes.
    pub(crate) rss_bytes: u64,
}

impl ProcessUsage {
    /// The use the process `pid` has made so far.
    pub(crate) fn of(pid: u32) -> Result<Self, String> {
        let stat = read(pid, "stat")?;
        let status = read(pid, "status")?;
        let ticks = cpu_ticks(&stat)
            .ok_or_else(|| format!("/proc/{pid}/stat does not have the fields utime and stime"))?;
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|rest| rest.strip_prefix(':')?.trim().strip_suffix("kB"))
                .and_then(|kib| kib.trim().parse::<u64>().ok())
                .map(|kib| kib * 1024)
                .ok_or_else(|| format!("/proc/{pid}/status does not have the field {field}"))
        };
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        Ok(ProcessUsage {
            cpu_micros: ticks as f64 * 1e6 / ticks_per_second,
            peak_rss_bytes: bytes("VmHWM")?,
            rss_bytes: bytes("VmRSS")?,
        })
    }
}

/// Lets the peak of a process's resident memory begin anew with what it has resident now.
pub(crate) fn forget_peak(pid: u32) -> Result<(), String> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").map_err(|error| format!("cannot write {path}: {error}"))
}

fn read(pid: u32, file: &str) -> Result<String, String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))
}

/// The sum of utime and stime, fields 14 and 15. The command name, field 2, is in parentheses and
/// may itself hold spaces and parentheses, so fields are counted from the last one.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a ) (b) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0";
        assert_eq!(cpu_ticks(stat), Some(150));
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = ProcessUsage::of(std::process::id()).unwrap();
        assert!(usage.peak_rss_bytes > 100_000);
        assert!(ProcessUsage::of(u32::MAX).is_err());
    }
}
