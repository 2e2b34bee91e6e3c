//! Writing the new files of a repaired directory.

use std::collections::HashMap;
use std::io;

use super::live::{has, marks_of};
use super::{DEATHS_NUMBERS_FROM, Found, Repair};
use crate::address::{RECORD_ALIGN, size_class};
use crate::deaths::{self, DeathEntry, DeathsWriter, Mark};
use crate::key_file::{self, Listed, RecoveryRecord, SegmentRecords};
use crate::large::owns_pages;
use crate::manifest::SegmentEntry;
use crate::record::{RecordRef, filler_header};
use crate::segment::{self, SEGMENT_HEADER_BYTES};
use crate::survey::{Expected, Survey, hash_of, survey};
use crate::tiering::segment_file_name;
use crate::tree::look_at_ms;

/// Deaths that are sorted at a time.
const DEATHS_PER_RUN: usize = 64 * 1024;

impl Repair<'_> {
    /// Replaces the damaged segments, and writes down what is dead now.
    pub(super) fn rebuild(&mut self, found: &[Found]) -> io::Result<()> {
        let dead = self.live.dead();
        let (mut deaths, mut entries) = (Vec::new(), Vec::new());
        for (found, entry) in found.iter().zip(self.manifest.segments.clone()) {
            let dead = dead.get(&found.file_id).map_or(&[][..], |dead| dead);
            if !found.is_sound {
                entries.extend(self.rebuild_segment(&entry, dead, &mut deaths)?);
                continue;
            }
            if self.is_guessed {
                self.write_keys_anew(&entry)?;
            }
            let segment_bytes = u64::from(self.manifest.segment_bytes);
            entries.push(SegmentEntry {
                used_bytes: self.manifest.segment_bytes,
                records: found.records,
                dead_bytes: segment_bytes.saturating_sub(found.live_bytes) as u32,
                ..entry
            });
            deaths.extend(dead.iter().map(|&offset| DeathEntry {
                file_id: found.file_id,
                offset,
                mark: Mark::Dead,
            }));
        }
        entries.sort_unstable_by_key(|entry| entry.file_id);
        self.manifest.segments = entries;
        self.write_deaths(&mut deaths)
    }

    /// A segment with the live sound records of a damaged one; `None` if it has none. The old files are to be dropped.
    fn rebuild_segment(
        &mut self,
        entry: &SegmentEntry,
        dead: &[u32],
        deaths: &mut Vec<DeathEntry>,
    ) -> io::Result<Option<SegmentEntry>> {
        let old = self.survey_of(entry);
        self.dropped.push(segment_file_name(entry.file_id));
        self.dropped.push(key_file::file_name(entry.file_id));
        let file_id = self.manifest.next_file_id;
        let next_file_id = file_id.checked_add(1);
        let next_file_id = next_file_id.ok_or_else(|| io::Error::other("no file id is left"))?;
        let (known_dead, shadowed) = marks_of(&self.deaths, entry.file_id);
        let segment_bytes = self.manifest.segment_bytes as usize;
        let mut bytes = segment::header(segment_bytes, file_id).to_vec();
        let mut records = 0;
        for listed in &old.sound {
            if has(known_dead, listed.offset) || has(dead, listed.offset) {
                continue;
            }
            let Some(record) = old.record_bytes(listed.offset) else {
                continue;
            };
            if has(shadowed, listed.offset) {
                deaths.push(DeathEntry {
                    file_id,
                    offset: bytes.len() as u32,
                    mark: Mark::Shadowed,
                });
            }
            bytes.extend_from_slice(record);
            records += 1;
        }
        if records == 0 {
            return Ok(None);
        }
        let used_bytes = bytes.len();
        // Sound records do not overlap, so they fit.
        let unused = segment_bytes.saturating_sub(used_bytes);
        if unused >= RECORD_ALIGN {
            bytes.extend_from_slice(&filler_header(unused));
        }
        let name = segment_file_name(file_id);
        let file = self.disk.create(&name)?;
        file.write_all_at(&bytes, 0)?;
        file.truncate(segment_bytes as u64)?;
        file.sync()?;
        let new = survey(self.disk, self.expected_without_keys(file_id));
        self.write_keys(file_id, &new)?;
        self.manifest.next_file_id = next_file_id;
        self.note(format!(
            "{} goes on as {name} with {records} records",
            segment_file_name(entry.file_id)
        ));
        Ok(Some(SegmentEntry {
            file_id,
            used_bytes: self.manifest.segment_bytes,
            records,
            dead_bytes: (SEGMENT_HEADER_BYTES + unused) as u32,
        }))
    }

    fn expected_without_keys(&self, file_id: u64) -> Expected {
        Expected {
            file_id,
            segment_bytes: Some(self.manifest.segment_bytes),
            seed: Some(self.manifest.hash_seed),
            records: None,
        }
    }

    /// Writes the key file of a sound segment with hashes of the new seed.
    fn write_keys_anew(&mut self, entry: &SegmentEntry) -> io::Result<()> {
        let survey = self.survey_of(entry);
        self.set_aside(&key_file::file_name(entry.file_id))?;
        // The old one has its other name before the new one takes this.
        self.disk.sync_directory()?;
        self.write_keys(entry.file_id, &survey)
    }

    fn write_keys(&self, file_id: u64, survey: &Survey) -> io::Result<()> {
        let records = SoundRecords {
            survey,
            seed: self.manifest.hash_seed,
            listed: survey
                .sound
                .iter()
                .map(|listed| (listed.offset, *listed))
                .collect(),
        };
        key_file::write(self.disk, file_id, &records)?.file.sync()
    }

    /// Writes a deaths file of its own, if there is anything to be told in it.
    fn write_deaths(&mut self, entries: &mut [DeathEntry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        // Until the new manifest is stored, the old one names what it named; and what is dropped is given another name.
        let names = self.disk.names()?;
        let is_free = |number: &u64| {
            let name = deaths::FORMAT.file_name(*number);
            !names.contains(&name) && !self.dropped.contains(&name)
        };
        let mut numbers = DEATHS_NUMBERS_FROM..=u64::MAX;
        let number = numbers.find(is_free).unwrap_or(u64::MAX);
        let mut writer = DeathsWriter::create(self.disk, number)?;
        for run in entries.chunks_mut(DEATHS_PER_RUN) {
            writer.write_run(run)?;
        }
        writer.finish()?.sync()?;
        self.manifest.deaths.push(number);
        Ok(())
    }
}

/// The records of a segment that has been surveyed.
struct SoundRecords<'s> {
    survey: &'s Survey,
    seed: u64,
    listed: HashMap<u32, RecoveryRecord>,
}

impl SoundRecords<'_> {
    fn record(&self, offset: u32) -> RecordRef<'_> {
        let record = self.survey.record(offset);
        record.expect("the survey has found it sound, and its bytes are in memory")
    }
}

impl SegmentRecords for SoundRecords<'_> {
    fn for_each(&self, each: &mut dyn FnMut(Listed<'_>)) {
        for listed in &self.survey.sound {
            each(self.at(listed.offset));
        }
    }

    fn at(&self, offset: u32) -> Listed<'_> {
        let record = self.record(offset);
        let (_, kind) = hash_of(self.seed, &record);
        Listed {
            offset,
            size_class: size_class(record.flags(), record.record_bytes()),
            kind,
            namespace: record.namespace(),
            meta: record.meta(),
            large: owns_pages(&record),
            look_at_ms: look_at_ms(&record),
            key: record.key(),
        }
    }

    fn prefetch(&self, _offset: u32) {}

    fn hash(&self, record: &Listed<'_>) -> u64 {
        match self.listed.get(&record.offset) {
            Some(listed) => listed.hash,
            None => hash_of(self.seed, &self.record(record.offset)).0,
        }
    }
}
