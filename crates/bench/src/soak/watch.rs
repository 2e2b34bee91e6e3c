//! What can be seen of the server from outside, once a second.

use std::fs;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::memory_group::MemoryGroup;
use crate::server::Server;
use crate::server_process::ProcessUsage;

/// Looks at one server.
pub(super) struct Watch<'a> {
    server: &'a Server,
    shared: &'a Shared,
    group: Option<&'a MemoryGroup>,
    commands: u64,
}

/// What it has used at most.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) peak_rss_bytes: u64,
    /// Charged to its control group.
    pub(super) peak_charged_bytes: Option<u64>,
}

/// What was seen in one second.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) memory: Memory,
    /// Bytes of files, without those of the command log.
    pub(super) disk_bytes: u64,
    /// The same for each byte of keys and values that live.
    pub(super) space_ratio: f64,
    /// Done since the last look.
    pub(super) commands: u64,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        server: &'a Server,
        shared: &'a Shared,
        group: Option<&'a MemoryGroup>,
    ) -> Watch<'a> {
        Watch {
            server,
            shared,
            group,
            commands: shared.commands.load(Relaxed),
        }
    }

    pub(super) fn memory(&self) -> Result<Memory, String> {
        let usage = ProcessUsage::of(self.server.id())
            .map_err(|error| format!("the server has ended, or {error}"))?;
        Ok(Memory {
            peak_rss_bytes: usage.peak_rss_bytes,
            peak_charged_bytes: self.group.and_then(MemoryGroup::peak_bytes),
        })
    }

    pub(super) fn look(&mut self) -> Result<Seen, String> {
        let (disk_bytes, commands) = (self.disk_bytes()?, self.shared.commands.load(Relaxed));
        let live_bytes = self.shared.live_bytes.load(Relaxed).max(1);
        let seen = Seen {
            memory: self.memory()?,
            disk_bytes,
            space_ratio: disk_bytes as f64 / live_bytes as f64,
            commands: commands - self.commands,
        };
        self.commands = commands;
        Ok(seen)
    }

    /// What the files take on the device.
    fn disk_bytes(&self) -> Result<u64, String> {
        use std::os::unix::fs::MetadataExt;
        let data = self.shared.launch.data();
        let failed = |error: std::io::Error| format!("{}: {error}", data.display());
        let mut bytes = 0;
        for entry in fs::read_dir(data).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_log = entry.file_name().to_string_lossy().ends_with(".log");
            // A file may be removed meanwhile.
            if let (false, Ok(metadata)) = (is_log, entry.metadata()) {
                bytes += metadata.blocks() * 512;
            }
        }
        Ok(bytes)
    }
}
