//! Command logs of a damaged directory: they are cut where the first damage is, or the first place that the device cannot
//! read, and those behind it dropped.

use std::collections::HashSet;
use std::io;

use super::Repair;
use crate::Namespace;
use crate::check::check_frame;
use crate::command_log::{Blobs, Effect, TreeEffect, generation_of_log, log_name, sound_end};
use crate::damage::Damage;
use crate::readable::{self, ReadableDisk};
use crate::shared::key_hash;
use crate::survey::name_of;

impl Repair<'_> {
    /// The first damage of the logs that a start would replay, if there is one. Tells which keys they change that have been
    /// dropped.
    pub(super) fn damage_of_logs(&mut self) -> io::Result<Option<Damage>> {
        let mut changed = ChangedInPart::default();
        let (live, seed) = (&self.live, self.manifest.hash_seed);
        let mut each = |_: u64, frame: &[u8], blobs: &mut Blobs<'_>| {
            check_frame(frame, blobs, &mut |effect| {
                changed.note(effect, &|namespace, key| {
                    live.is_lost(key_hash(seed, namespace, key))
                });
            })
        };
        let replayed = readable::replay(self.disk, self.manifest.logs(), &mut each);
        for note in changed.notes {
            self.note(note);
        }
        Ok(replayed?.err())
    }

    /// Cuts the logs at the damage, and at what is found behind it, until a start can replay what is left.
    pub(super) fn cut_logs(&mut self, mut next: Option<Damage>) -> io::Result<()> {
        while let Some(damage) = next {
            let name = name_of(&damage.file);
            let Some(generation) = generation_of_log(&name) else {
                return Err(damage.into());
            };
            let offset = damage.offset;
            self.damage(damage);
            self.drop_logs_behind(generation)?;
            self.cut_log(generation, offset)?;
            next = self.damage_of_logs()?;
        }
        Ok(())
    }

    fn drop_logs_behind(&mut self, generation: u64) -> io::Result<()> {
        let names = self.disk.names()?;
        let mut behind: Vec<u64> = names
            .iter()
            .filter_map(|name| generation_of_log(name))
            .collect();
        behind.retain(|&of| of > generation);
        // From the last on, so that what is left after an interruption has no gap.
        behind.sort_unstable();
        for generation in behind.into_iter().rev() {
            self.drop_log(generation)?;
        }
        Ok(())
    }

    fn drop_log(&mut self, generation: u64) -> io::Result<()> {
        let name = log_name(generation);
        let bytes = self.disk.open(&name)?.len()?;
        self.repaired.log_bytes += bytes;
        self.dropped(format!("{name}: all of it, {bytes} bytes"));
        self.set_aside(&name)
    }

    /// Keeps the sound blocks that end at `offset` or before.
    fn cut_log(&mut self, generation: u64, offset: u64) -> io::Result<()> {
        let name = log_name(generation);
        if !self.disk.names()?.contains(&name) {
            self.dropped(format!("{name}, which is missing: all that it had"));
            return Ok(());
        }
        let end = sound_end(&ReadableDisk::new(self.disk), generation, offset)?;
        if end == 0 {
            return self.drop_log(generation);
        }
        let file = self.disk.open(&name)?;
        let bytes = file.len()?.saturating_sub(end);
        self.keep_copy(&name)?;
        self.repaired.files += 1;
        file.truncate(end)?;
        file.sync()?;
        self.repaired.log_bytes += bytes;
        self.dropped(format!(
            "{name} at offset {end}: {bytes} bytes, and all that was logged later"
        ));
        Ok(())
    }
}

/// Keys that have been dropped and of which the logs change a part.
#[derive(Default)]
struct ChangedInPart {
    /// Those that the logs have stored anew.
    whole: HashSet<(Namespace, Vec<u8>)>,
    told: HashSet<(Namespace, Vec<u8>)>,
    notes: Vec<String>,
}

impl ChangedInPart {
    fn note(&mut self, effect: &Effect<'_>, is_lost: &dyn Fn(Namespace, &[u8]) -> bool) {
        match *effect {
            Effect::Set { namespace, key, .. }
            | Effect::SetBlob { namespace, key, .. }
            | Effect::Remove { namespace, key }
            | Effect::Collection {
                namespace,
                key,
                effect: TreeEffect::Create { .. },
            } if is_lost(namespace, key) => {
                self.whole.insert((namespace, key.to_vec()));
            }
            Effect::WriteRange { namespace, key, .. }
            | Effect::WriteRangeBlob { namespace, key, .. }
                if is_lost(namespace, key) =>
            {
                self.tell((namespace, key), "will have zeroes where it has been lost");
            }
            Effect::Collection { namespace, key, .. } if is_lost(namespace, key) => {
                self.tell(
                    (namespace, key),
                    "stays lost, and so does what was put into it",
                );
            }
            Effect::CopyCollection { from, .. } if is_lost(from.0, from.1) => {
                self.tell(from, "was copied: the other key keeps what it had before");
            }
            Effect::Rename { from, .. } if is_lost(from.0, from.1) => {
                self.tell(from, "was renamed: the other key keeps what it had before");
            }
            _ => {}
        }
    }

    fn tell(&mut self, (namespace, key): (Namespace, &[u8]), what: &str) {
        let owned = (namespace, key.to_vec());
        if !self.whole.contains(&owned) && self.told.insert(owned) {
            let key = key.escape_ascii();
            self.notes.push(format!(
                "key \"{key}\" of namespace {}, whose record is lost, is changed in part by the command log: it {what}",
                namespace.0
            ));
        }
    }
}
