//! Resolving blind writes that nobody has noted.
//!
//! What is noted about blind writes (`shadows`) is lost in a restart, and where more is noted than there is memory for. How
//! many are unresolved is counted all the same, in every namespace, and kept over a restart; and the deaths files mark what
//! lies behind each. So when nothing is noted any more and writes are still unresolved, all that is marked is looked into,
//! file by file, and the shadows among it lose their slots. Then no shadow is left: each write that is still unresolved has
//! added a key.
//!
//! What must hold:
//! * The deaths files that are gone through are those of a manifest that is no older than the last shadow that was not noted.
//! * Keys are counted only if all that is marked could be read, and since then no write has gone unnoted and no shadow has been
//!   moved.
//! * A slot that is remembered from one step to the next is looked up in the index again before it is used.
//! * Memory is bounded: what is marked in one segment, a part of its key file, and the slots that the records in that part have.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::address::{Slot, SlotKind};
use crate::deaths::{DeathsReader, FileDeaths};
use crate::epoch;
use crate::index::Index;
use crate::key_file::KeyFile;
use crate::segment::Segment;
use crate::shadows::Looked;
use crate::shared::Shared;

/// Slots that are looked into at once.
const BATCH: usize = 256;

/// How far the tiering thread has got.
#[derive(Default)]
pub(crate) struct Recount {
    stage: Stage,
    /// [`Counters::shadows`](crate::stats::Counters) when nothing was unresolved.
    resolved_at: Option<u64>,
}

enum Stage {
    /// Waits for something unresolved that nobody has noted, and for a manifest that marks it.
    Waiting(Since),
    Walking(Box<Walk>),
}

/// When something unresolved was found that nobody had noted.
#[derive(Clone, Copy, Default)]
struct Since {
    generation: u64,
    /// [`Shadows::unnoted`](crate::shadows::Shadows) then.
    unnoted: u64,
}

impl Default for Stage {
    /// What a restart finds unresolved is marked as of the manifest that it begins with.
    fn default() -> Stage {
        Stage::Waiting(Since::default())
    }
}

struct Walk {
    since: Since,
    deaths: DeathsReader,
    /// The segment that is being gone through.
    listed: Option<Listed>,
    /// Slots that lead to what is marked in the part of its key file read last, with their hashes.
    marked: Vec<(u64, Slot)>,
    /// Something could not be read.
    is_incomplete: bool,
}

/// What is marked in a segment, and what its key file says of that.
struct Listed {
    segment: Arc<Segment>,
    file: KeyFile,
    /// Offsets, ascending.
    shadowed: Vec<u32>,
    /// So many records have been read.
    records: u32,
}

/// What a step of a walk has come to.
#[derive(PartialEq, Eq)]
enum Step {
    Done,
    /// Others keep all keys latched that are to be looked into.
    InTheWay,
    /// Nothing is left.
    Over,
}

impl<I: Index> Shared<I> {
    /// Goes on by a step. Nothing is noted at this moment. `false` if there is nothing to be done now.
    pub(crate) fn recount(&self, recount: &mut Recount) -> bool {
        if !self.recovery.stats().is_over {
            return false;
        }
        let since = match &mut recount.stage {
            Stage::Walking(walk) => {
                match self.walk(walk) {
                    Ok(Step::Done) => return true,
                    Ok(Step::InTheWay) => return false,
                    Ok(Step::Over) if self.settle(walk) => {}
                    // Again with the next manifest.
                    Ok(Step::Over) | Err(_) => {}
                }
                recount.stage = Stage::Waiting(self.since_now());
                return false;
            }
            Stage::Waiting(since) if since.unnoted == self.shadows.unnoted() => *since,
            Stage::Waiting(_) => self.since_now(),
        };
        recount.stage = Stage::Waiting(since);
        let writes = self.counters.shadows.load(Ordering::Relaxed);
        if recount.resolved_at == Some(writes) {
            return false;
        }
        // Whoever has counted a blind write has counted it as unresolved after this.
        epoch::barrier();
        if self.key_counts.unresolved().is_empty() {
            recount.resolved_at = Some(writes);
            return false;
        }
        let walk = self.begin_walk(since);
        let is_begun = walk.is_some();
        recount.stage = walk.map_or(Stage::Waiting(since), Stage::Walking);
        is_begun
    }

    fn since_now(&self) -> Since {
        let _pin = epoch::pin();
        // In this order.
        let unnoted = self.shadows.unnoted();
        let generation = self.generations.current();
        Since {
            generation,
            unnoted,
        }
    }

    /// `None` until there is a manifest that knows all that was marked by then.
    fn begin_walk(&self, since: Since) -> Option<Box<Walk>> {
        // A checkpoint that is being made may have to wait for this thread. While none is, no deaths file is removed; and what
        // has been opened can be read to its end.
        let manifest = self.checkpoints.manifest.try_lock()?;
        if manifest.generation < since.generation {
            return None;
        }
        let deaths = DeathsReader::open(&*self.disk, &manifest.deaths).ok()?;
        Some(Box::new(Walk {
            since,
            deaths,
            listed: None,
            marked: Vec::new(),
            is_incomplete: false,
        }))
    }

    /// Looks into some of what is marked.
    fn walk(&self, walk: &mut Walk) -> io::Result<Step> {
        if walk.marked.is_empty() {
            return self.find_marked(walk);
        }
        let left = walk.marked.len().saturating_sub(BATCH);
        let some = walk.marked.split_off(left);
        let looked_into = some.len();
        let left = self.look_into(some, |&(hash, slot), reads| {
            let looked = self.drop_shadow(hash, slot, reads);
            walk.is_incomplete |= looked == Looked::Unreadable;
            looked
        });
        let is_in_the_way = left.len() == looked_into;
        walk.marked.extend(left);
        Ok(match is_in_the_way {
            true => Step::InTheWay,
            false => Step::Done,
        })
    }

    /// Goes on to the next part of a key file, or to the next segment.
    fn find_marked(&self, walk: &mut Walk) -> io::Result<Step> {
        if let Some(listed) = &mut walk.listed {
            if self.read_marked(listed, &mut walk.marked)? {
                return Ok(Step::Done);
            }
            walk.listed = None;
        }
        let Some(of_file) = walk.deaths.next_file()? else {
            return Ok(Step::Over);
        };
        walk.listed = self.listed(of_file)?;
        Ok(Step::Done)
    }

    /// `None` if nothing in the segment is marked as shadowed, or no slot leads there any more.
    fn listed(&self, of_file: FileDeaths) -> io::Result<Option<Listed>> {
        if of_file.shadowed.is_empty() {
            return Ok(None);
        }
        let mut segments = self.log.table.all().into_iter();
        let segment = segments.find(|segment| segment.file_id == of_file.file_id);
        let Some(segment) = segment.filter(|segment| !segment.retired.load(Ordering::Relaxed))
        else {
            return Ok(None);
        };
        Ok(Some(Listed {
            segment,
            file: KeyFile::open(&*self.disk, of_file.file_id)?,
            shadowed: of_file.shadowed,
            records: 0,
        }))
    }

    /// Finds the slots that lead to what is marked in the next part of a key file, but for the newest of their hashes, which are
    /// no shadows; `false` after the last part.
    fn read_marked(&self, listed: &mut Listed, marked: &mut Vec<(u64, Slot)>) -> io::Result<bool> {
        let mut records = Vec::new();
        let mut column = listed.file.recovery_behind(listed.records);
        column.read(&mut records)?;
        listed.file.drop_cached();
        if records.is_empty() || listed.segment.retired.load(Ordering::Relaxed) {
            return Ok(false);
        }
        listed.records += records.len() as u32;
        let is_marked = |offset: &u32| listed.shadowed.binary_search(offset).is_ok();
        for record in records.iter().filter(|record| is_marked(&record.offset)) {
            let newest = self.index.newest(record.hash, SlotKind::Root);
            let slot = self.slot_of(&listed.segment, record);
            let slot = slot.filter(|slot| slot.kind() == SlotKind::Root && newest != Some(*slot));
            marked.extend(slot.map(|slot| (record.hash, slot)));
        }
        Ok(true)
    }

    /// Everything marked has been looked into: counts what is unresolved as keys. `false` if that cannot be told now.
    fn settle(&self, walk: &Walk) -> bool {
        // Nobody else resolves what is noted meanwhile, or begins to count a namespace anew.
        let _alone = self.tiering.lock();
        let writes = self.counters.shadows.load(Ordering::Relaxed);
        // Whoever has taken a shadow out of the index has counted that after this; who has moved one has told it.
        epoch::barrier();
        let unresolved = self.key_counts.unresolved();
        // Whoever has counted a blind write that was seen above has noted it after this, or told that he could not.
        epoch::barrier();
        let is_sure = !walk.is_incomplete
            && self.shadows.is_empty()
            && self.shadows.unnoted() == walk.since.unnoted
            && self.counters.shadows.load(Ordering::Relaxed) == writes;
        if is_sure {
            let _pin = epoch::pin();
            for (namespace, writes) in unresolved {
                match writes {
                    1.. => self.count_strangers(namespace, writes),
                    // There was more to be resolved than the manifest of a damaged directory told.
                    _ => {
                        let generation = self.generations.current();
                        self.key_counts
                            .add_unresolved(generation, namespace, -writes);
                    }
                }
            }
        }
        is_sure
    }
}
