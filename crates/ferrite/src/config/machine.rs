//! What this process may use of the machine: CPUs and memory, by affinity and by cgroup (v1 and v2).
//!
//! Limits of control groups are hierarchical, so every group from the process's own up to the mount
//! is asked and the smallest answer counts. All facts come from files under `/proc` and `/sys`,
//! read below a root that tests replace by a directory of their own.

use std::fs;
use std::path::{Path, PathBuf};

/// Memory that one worker and the shared parts need at least, in bytes.
const FLOOR_BASE_BYTES: u64 = 32 << 20;
/// Memory that each further worker needs on top, in bytes.
const FLOOR_WORKER_BYTES: u64 = 4 << 20;

/// The part of the machine this process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// CPUs allowed by affinity and by cgroup quota (rounded up), at least 1.
    pub(crate) cpus: usize,
    /// RAM or the cgroup's limit, whichever is smaller; `None` where the system does not tell.
    pub(crate) memory_bytes: Option<u64>,
}

impl Machine {
    /// Asks the system.
    pub(crate) fn detect() -> Machine {
        Machine::detect_below(Path::new("/"))
    }

    /// Asks the files below `root`, which stands for `/`.
    fn detect_below(root: &Path) -> Machine {
        Machine {
            cpus: cpu_count(root),
            memory_bytes: memory_limit_bytes(root),
        }
    }
}

/// The smallest `maxmemory`, in bytes, with which the server starts: 32 MiB for one worker, 4 MiB
/// more for each further one. Below it the buffers and open segments of the workers leave no room
/// for data.
pub(crate) fn maxmemory_floor_bytes(workers: usize) -> u64 {
    FLOOR_BASE_BYTES + FLOOR_WORKER_BYTES * (workers.max(1) as u64 - 1)
}

/// The most workers whose floor fits in `maxmemory_bytes`, at least 1.
pub(crate) fn affordable_workers(maxmemory_bytes: u64) -> usize {
    let further = maxmemory_bytes.saturating_sub(FLOOR_BASE_BYTES) / FLOOR_WORKER_BYTES;
    usize::try_from(further)
        .unwrap_or(usize::MAX)
        .saturating_add(1)
}

fn cpu_count(root: &Path) -> usize {
    let allowed = affinity_count(root)
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);
    let quota = Controller::Cpu
        .groups(root)
        .iter()
        .filter_map(|group| cpu_quota(group))
        .min()
        .unwrap_or(usize::MAX);
    allowed.min(quota).max(1)
}

/// RAM or the smallest memory limit of the process's cgroups, in bytes.
fn memory_limit_bytes(root: &Path) -> Option<u64> {
    let limits = Controller::Memory.groups(root);
    let limits = limits.iter().filter_map(|group| memory_limit(group));
    limits.chain(ram_bytes(root)).min()
}

/// How many CPUs the affinity mask allows: `Cpus_allowed_list: 0-3,8`.
fn affinity_count(root: &Path) -> Option<usize> {
    let status = fs::read_to_string(root.join("proc/self/status")).ok()?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list.trim().split(',').map(range_len).sum()
}

/// The number of CPUs in `7` or `0-3`.
fn range_len(range: &str) -> Option<usize> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let first: usize = first.trim().parse().ok()?;
    let last: usize = last.trim().parse().ok()?;
    last.checked_sub(first)?.checked_add(1)
}

fn ram_bytes(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// A resource that cgroups limit.
#[derive(Clone, Copy)]
enum Controller {
    Cpu,
    Memory,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Memory => "memory",
        }
    }

    /// The directories of the process's groups that may limit this resource, in both versions of
    /// the hierarchy, own group first.
    fn groups(self, root: &Path) -> Vec<PathBuf> {
        let memberships = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
        let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::parse).collect();
        let mut groups = Vec::new();
        for line in memberships.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            let mount = if controllers.is_empty() {
                mounts.iter().find(|mount| mount.kind == "cgroup2")
            } else if controllers.split(',').any(|name| name == self.name()) {
                mounts.iter().find(|mount| {
                    mount.kind == "cgroup" && mount.options.split(',').any(|o| o == self.name())
                })
            } else {
                None
            };
            if let Some(mount) = mount {
                mount.push_groups(root, path, &mut groups);
            }
        }
        groups
    }
}

/// One line of `/proc/self/mountinfo`.
struct Mount<'a> {
    /// The directory of the mounted file system that forms the mount's root.
    origin: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Mount<'a>> {
        let (place, device) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut device = device.split(' ');
        Some(Mount {
            origin: place.next()?,
            point: place.next()?,
            kind: device.next()?,
            options: device.nth(1)?,
        })
    }

    /// Adds the directories from the group at `path` up to the mount point.
    fn push_groups(&self, root: &Path, path: &str, groups: &mut Vec<PathBuf>) {
        let point = root.join(self.point.trim_start_matches('/'));
        // In a container the mount shows only a subtree; a path outside of it is its top.
        let below = Path::new(path)
            .strip_prefix(self.origin)
            .unwrap_or(Path::new(""));
        let own = point.join(below.strip_prefix("/").unwrap_or(below));
        groups.extend(
            own.ancestors()
                .take_while(|dir| dir.starts_with(&point))
                .map(PathBuf::from),
        );
    }
}

/// The CPUs that a group's quota amounts to, rounded up; `None` without a quota.
fn cpu_quota(group: &Path) -> Option<usize> {
    let read = |file: &str| fs::read_to_string(group.join(file)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(line) => {
            let mut words = line.split_whitespace().map(str::to_owned);
            (words.next()?, words.next()?)
        }
        None => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    // `max` (v2) and `-1` (v1) mean no quota; neither parses.
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok().filter(|period| *period > 0)?;
    usize::try_from(quota.div_ceil(period)).ok()
}

/// A group's memory limit in bytes. Version 1 says "no limit" with a number no machine reaches.
fn memory_limit(group: &Path) -> Option<u64> {
    let read = |file: &str| fs::read_to_string(group.join(file)).ok();
    read("memory.max")
        .or_else(|| read("memory.limit_in_bytes"))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root directory with the given files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const STATUS: (&str, &str) = (
        "proc/self/status",
        "Name:\tx\nCpus_allowed_list:\t0-5,8,10-11\n",
    );
    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:       8388608 kB\nMemFree: 1 kB\n",
    );

    #[test]
    fn affinity_and_ram_without_cgroups() {
        let root = root(&[STATUS, MEMINFO]);
        let machine = Machine::detect_below(root.path());
        assert_eq!(
            machine,
            Machine {
                cpus: 9,
                memory_bytes: Some(8 << 30)
            }
        );
    }

    #[test]
    fn version_2_takes_the_smallest_limit_up_the_tree() {
        let root = root(&[
            STATUS,
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            (
                "proc/self/mountinfo",
                "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            ),
            ("sys/fs/cgroup/a/cpu.max", "250000 100000\n"),
            ("sys/fs/cgroup/a/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "1073741824\n"),
        ]);
        let machine = Machine::detect_below(root.path());
        assert_eq!(
            machine,
            Machine {
                cpus: 3,
                memory_bytes: Some(1 << 30)
            }
        );
    }

    #[test]
    fn version_1_inside_a_container() {
        let root = root(&[
            STATUS,
            MEMINFO,
            (
                "proc/self/cgroup",
                "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n",
            ),
            (
                "proc/self/mountinfo",
                "40 30 0:30 /docker/x /sys/fs/cgroup/cpu ro master:1 - cgroup cgroup rw,cpu,cpuacct\n\
                 41 30 0:31 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
            ),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ]);
        let machine = Machine::detect_below(root.path());
        assert_eq!(
            machine,
            Machine {
                cpus: 1,
                memory_bytes: Some(8 << 30)
            }
        );
    }

    #[test]
    fn the_real_machine_has_a_cpu_and_memory() {
        let machine = Machine::detect();
        assert!(machine.cpus >= 1);
        assert!(
            machine.memory_bytes.is_none_or(|bytes| bytes > 1 << 20),
            "{machine:?}"
        );
    }

    #[test]
    fn the_floor_and_the_workers_that_fit_agree() {
        for workers in 1..100 {
            let floor = maxmemory_floor_bytes(workers);
            assert_eq!(affordable_workers(floor), workers);
            assert_eq!(affordable_workers(floor - 1), (workers - 1).max(1));
        }
    }
}
