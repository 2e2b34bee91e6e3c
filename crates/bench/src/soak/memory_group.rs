//! A memory control group: what its processes use, page cache and the kernel's own memory included, is counted and limited.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// A group of its own. Removed when dropped, once its processes have ended.
pub(super) struct MemoryGroup {
    path: PathBuf,
    /// The file that tells the most it has used.
    peak: PathBuf,
}

impl MemoryGroup {
    /// A group with this limit; `None` where none can be made, which takes root and a kernel that counts memory.
    pub(super) fn make(limit_bytes: u64) -> Option<MemoryGroup> {
        let name = format!("ferrite-soak-{}", std::process::id());
        // The first and the second version of control groups.
        let kinds = [
            (
                "memory",
                "memory.limit_in_bytes",
                "memory.max_usage_in_bytes",
            ),
            ("", "memory.max", "memory.peak"),
        ];
        kinds.into_iter().find_map(|(under, limit, peak)| {
            let path = Path::new(ROOT).join(under).join(&name);
            fs::create_dir(&path).ok()?;
            let group = MemoryGroup {
                peak: path.join(peak),
                path,
            };
            fs::write(group.path.join(limit), limit_bytes.to_string()).ok()?;
            Some(group)
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The most it has used, in bytes.
    pub(super) fn peak_bytes(&self) -> Option<u64> {
        fs::read_to_string(&self.peak).ok()?.trim().parse().ok()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It cannot be removed while a process is in it; an empty group left behind costs nothing.
        let _ = fs::remove_dir(&self.path);
    }
}
