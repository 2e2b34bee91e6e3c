//! What this process uses of its machine, memory and CPU time, for INFO and MEMORY. Everything comes from files under
//! `/proc`; where they are missing, figures are zero and texts are empty.

use std::fs;

/// Clock ticks a second in `/proc/<pid>/stat`: a constant of Linux's interface, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory of the process, and of the machine, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// In memory now.
    pub(crate) resident_bytes: u64,
    /// The most that ever was in memory at once.
    pub(crate) resident_peak_bytes: u64,
    /// RAM of the machine.
    pub(crate) machine_bytes: u64,
}

impl Memory {
    /// Asks the system.
    pub(crate) fn now() -> Memory {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Memory {
            resident_bytes: kib_field(&status, "VmRSS:"),
            resident_peak_bytes: kib_field(&status, "VmHWM:"),
            machine_bytes: kib_field(&machine, "MemTotal:"),
        }
    }
}

/// A line like `VmRSS:     1234 kB`, in bytes.
fn kib_field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// CPU time in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    pub(crate) user_seconds: f64,
    pub(crate) system_seconds: f64,
}

impl CpuTime {
    /// Of all threads since the start.
    pub(crate) fn of_process() -> CpuTime {
        CpuTime::from_stat("/proc/self/stat")
    }

    /// Of the main thread since the start.
    pub(crate) fn of_main_thread() -> CpuTime {
        CpuTime::from_stat(&format!("/proc/self/task/{}/stat", std::process::id()))
    }

    fn from_stat(path: &str) -> CpuTime {
        let stat = fs::read_to_string(path).unwrap_or_default();
        // The command name, in parentheses, may hold anything: fields are counted from its end on.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let seconds = |at: usize| {
            let ticks = fields.split_whitespace().nth(at);
            ticks
                .and_then(|ticks| ticks.parse::<f64>().ok())
                .unwrap_or(0.0)
                / TICKS_PER_SECOND
        };
        CpuTime {
            user_seconds: seconds(11),
            system_seconds: seconds(12),
        }
    }
}

/// Name, release and processor of the system, as `uname -srm` shows them.
pub(crate) fn system_name() -> String {
    let read =
        |path| fs::read_to_string(path).map_or(String::new(), |text| text.trim_end().to_owned());
    let (name, release) = (
        read("/proc/sys/kernel/ostype"),
        read("/proc/sys/kernel/osrelease"),
    );
    format!("{name} {release} {}", std::env::consts::ARCH)
}
