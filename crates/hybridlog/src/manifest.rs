//! The manifest: which files make up the last checkpoint, and what else must be known to go on from it.
//!
//! There is one, named `MANIFEST`. It is written anew as `MANIFEST.new`, synced and renamed, so a crash leaves the old one or
//! the new one, whole. What it does not name is no part of the data; what it names must be there, and is older and synced.
//!
//! ```text
//! 0   magic            "FRTMANIF"
//! 8   format version   u32   2
//! 12  length           u32   bytes of the file
//! 16  CRC32C           u32   over everything else
//! 20  segment size     u32   bytes: a power of two from 1 to 32 MiB
//! 24  hash seed        u64
//! 32  generation       u64   the last one that is complete
//! 40  last log         u64   the last generation that has a command log, as have all between it and the complete one;
//!                            0: there may be logs, but none must (in format version 1 a flag, which says no more)
//! 48  next file id     u64   above all file ids ever given
//! 56  next object id   u64   above all object ids ever given
//! 64  segments         u64 count, then of each, in ascending order of file id:
//!         file id u64, used bytes u32, records u32, dead bytes u32
//!     deaths           u64 count, then the generation u64 that names each deaths file
//!     graveyard        u64 count, then of each large value whose pages are to be freed: object id u64, pages u32
//!     key counts       u64 count, then of each namespace: namespace u16, keys u64, keys with an expiry u64
//!     state            u64 length, then bytes of the embedding program
//!     unresolved       u64 count, then of each namespace: namespace u16, blind writes u64 (not in format version 1)
//! ```
//!
//! Everything is little-endian and without gaps. Reading trusts nothing: a manifest with one wrong byte is refused.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;

use crate::Namespace;
use crate::command_log::Logs;
use crate::damage::Damage;
use crate::disk::Disk;
use crate::fields::Fields;
use crate::store::SEGMENT_BYTES;

pub(crate) const NAME: &str = "MANIFEST";
pub(crate) const NEW_NAME: &str = "MANIFEST.new";

const MAGIC: &[u8; 8] = b"FRTMANIF";
const FORMAT_VERSION: u32 = 2;
/// Older versions that are read.
const FORMAT_VERSION_MIN: u32 = 1;
/// The first that tells how many blind writes are unresolved.
const FORMAT_VERSION_UNRESOLVED: u32 = 2;
/// The first that tells which command logs there must be.
const FORMAT_VERSION_LAST_LOG: u32 = 2;
const FORMAT_VERSION_NEXT: u32 = FORMAT_VERSION + 1;
const CRC: Range<usize> = 16..20;
/// A longer one is not read: 8 TiB of segments take a fifth of this.
const LENGTH_MAX: u64 = 1 << 30;

/// What the last checkpoint consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) segment_bytes: u32,
    pub(crate) hash_seed: u64,
    /// The last complete generation.
    pub(crate) generation: u64,
    /// The command logs of the generations after it up to this one must be there. Later ones may.
    pub(crate) last_log: u64,
    /// Above all file ids ever given.
    pub(crate) next_file_id: u64,
    /// Above all object ids ever given.
    pub(crate) next_object_id: u64,
    /// Ascending by file id.
    pub(crate) segments: Vec<SegmentEntry>,
    /// The numbers of the deaths files: generations, and those that repairs have given.
    pub(crate) deaths: Vec<u64>,
    /// Large values whose root is gone and whose pages are not, yet.
    pub(crate) graveyard: Vec<Buried>,
    pub(crate) key_counts: Vec<NamespaceKeys>,
    /// What the embedding program wants back.
    pub(crate) state: Vec<u8>,
    /// Namespaces in which keys may be uncounted; `None` if it does not tell, as in format version 1.
    pub(crate) unresolved: Option<Vec<Unresolved>>,
}

/// A segment that a manifest names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    pub(crate) file_id: u64,
    /// Bytes up to the end of its last record.
    pub(crate) used_bytes: u32,
    pub(crate) records: u32,
    pub(crate) dead_bytes: u32,
}

/// A large value whose pages are to be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buried {
    pub(crate) object: u64,
    pub(crate) pages: u32,
}

/// How many keys a namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceKeys {
    pub(crate) namespace: Namespace,
    pub(crate) keys: u64,
    pub(crate) expiring: u64,
}

/// How many blind writes of a namespace nobody knows what they went in front of: each may have added a key that `keys` lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unresolved {
    pub(crate) namespace: Namespace,
    pub(crate) writes: u64,
}

impl Manifest {
    /// The manifest of a data directory; `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`Damage`], those of the disk.
    pub(crate) fn load(disk: &dyn Disk) -> io::Result<Option<Manifest>> {
        let file = match disk.open(NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let path = disk.path(NAME);
        let len = file.len()?;
        if len > LENGTH_MAX {
            return Err(damage(&path, 0, too_long(len)).into());
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0)?;
        let mut fields = Fields::new(&bytes);
        let manifest = check_head(&bytes, &mut fields)
            .and_then(|version| Manifest::decode_body(version, &mut fields))
            .map_err(|what| damage(&path, fields.last() as u64, what))?;
        Ok(Some(manifest))
    }

    /// The command logs that a start replays.
    pub(crate) fn logs(&self) -> Logs {
        Logs {
            checkpoint: self.generation,
            last: self.last_log,
        }
    }

    /// Makes this the manifest of the data directory; it survives a power cut when this returns. All that it names must have
    /// been synced before. Files that the manifest before it named may be removed only after this has returned `Ok`.
    ///
    /// # Errors
    ///
    /// Those of the disk. Either manifest may be the one that a later [`Self::load`] finds then, so the files of both must be
    /// kept.
    ///
    /// # Panics
    ///
    /// If it could not be read back: segments out of order or beyond `next_file_id`, a segment longer than segments are.
    pub(crate) fn store(&self, disk: &dyn Disk) -> io::Result<()> {
        match disk.remove(NEW_NAME) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let bytes = self.encode();
        if bytes.len() as u64 > LENGTH_MAX {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                too_long(bytes.len() as u64),
            ));
        }
        let file = disk.create(NEW_NAME)?;
        file.write_all_at(&bytes, 0)?;
        file.sync()?;
        disk.rename(NEW_NAME, NAME)?;
        disk.sync_directory()
    }

    fn encode(&self) -> Vec<u8> {
        self.assert_can_be_read_back();
        // What is in the head is known at the end.
        let mut bytes = vec![0; CRC.end];
        bytes.extend(self.segment_bytes.to_le_bytes());
        for field in [
            self.hash_seed,
            self.generation,
            self.last_log,
            self.next_file_id,
            self.next_object_id,
        ] {
            bytes.extend(field.to_le_bytes());
        }
        put_list(&mut bytes, &self.segments, |bytes, segment| {
            bytes.extend(segment.file_id.to_le_bytes());
            for field in [segment.used_bytes, segment.records, segment.dead_bytes] {
                bytes.extend(field.to_le_bytes());
            }
        });
        put_list(&mut bytes, &self.deaths, |bytes, generation| {
            bytes.extend(generation.to_le_bytes());
        });
        put_list(&mut bytes, &self.graveyard, |bytes, buried| {
            bytes.extend(buried.object.to_le_bytes());
            bytes.extend(buried.pages.to_le_bytes());
        });
        put_list(&mut bytes, &self.key_counts, |bytes, counts| {
            bytes.extend(counts.namespace.0.to_le_bytes());
            bytes.extend(counts.keys.to_le_bytes());
            bytes.extend(counts.expiring.to_le_bytes());
        });
        put_list(&mut bytes, &self.state, |bytes, &byte| bytes.push(byte));
        let unresolved = self.unresolved.as_deref().unwrap_or_default();
        put_list(&mut bytes, unresolved, |bytes, unresolved| {
            bytes.extend(unresolved.namespace.0.to_le_bytes());
            bytes.extend(unresolved.writes.to_le_bytes());
        });
        complete_head(&mut bytes);
        bytes
    }

    fn assert_can_be_read_back(&self) {
        assert_eq!(
            check_segment_bytes(self.segment_bytes),
            Ok(self.segment_bytes)
        );
        let mut least = 0;
        for segment in &self.segments {
            assert_eq!(self.check_segment(segment, least), Ok(()));
            least = segment.file_id + 1;
        }
    }

    /// `least` is one more than the file id before it.
    fn check_segment(&self, segment: &SegmentEntry, least: u64) -> Result<(), String> {
        let SegmentEntry {
            file_id,
            used_bytes,
            ..
        } = *segment;
        if file_id < least {
            return Err(format!("file id {file_id} follows a higher one"));
        }
        if file_id >= self.next_file_id {
            let next = self.next_file_id;
            return Err(format!(
                "file id {file_id} is not below the next one, {next}"
            ));
        }
        if used_bytes > self.segment_bytes {
            let size = self.segment_bytes;
            return Err(format!(
                "{used_bytes} bytes are used of a segment of {size}"
            ));
        }
        Ok(())
    }

    /// Of an error [`Fields::last`] says where.
    fn decode_body(version: u32, fields: &mut Fields<'_>) -> Result<Manifest, String> {
        let mut manifest = Manifest {
            segment_bytes: check_segment_bytes(fields.u32()?)?,
            hash_seed: fields.u64()?,
            generation: fields.u64()?,
            last_log: match fields.u64()? {
                _ if version < FORMAT_VERSION_LAST_LOG => 0,
                last_log => last_log,
            },
            next_file_id: fields.u64()?,
            next_object_id: fields.u64()?,
            ..Manifest::default()
        };
        let mut least = 0;
        for _ in 0..fields.count(20)? {
            let segment = SegmentEntry {
                file_id: fields.u64()?,
                used_bytes: fields.u32()?,
                records: fields.u32()?,
                dead_bytes: fields.u32()?,
            };
            manifest.check_segment(&segment, least)?;
            least = segment.file_id + 1;
            manifest.segments.push(segment);
        }
        for _ in 0..fields.count(8)? {
            manifest.deaths.push(fields.u64()?);
        }
        for _ in 0..fields.count(12)? {
            let (object, pages) = (fields.u64()?, fields.u32()?);
            manifest.graveyard.push(Buried { object, pages });
        }
        for _ in 0..fields.count(18)? {
            manifest.key_counts.push(NamespaceKeys {
                namespace: Namespace(fields.u16()?),
                keys: fields.u64()?,
                expiring: fields.u64()?,
            });
        }
        let state_len = fields.count(1)?;
        manifest.state = fields.bytes(state_len)?.to_vec();
        if version >= FORMAT_VERSION_UNRESOLVED {
            let mut unresolved = Vec::new();
            for _ in 0..fields.count(10)? {
                unresolved.push(Unresolved {
                    namespace: Namespace(fields.u16()?),
                    writes: fields.u64()?,
                });
            }
            manifest.unresolved = Some(unresolved);
        }
        match fields.left() {
            0 => Ok(manifest),
            left => Err(format!("{left} bytes follow the last field")),
        }
    }
}

/// Whether the manifest was written by a later version of the program, rather than that a number in it has changed.
pub(crate) fn is_newer(disk: &dyn Disk) -> io::Result<bool> {
    let mut bytes = Vec::new();
    let read = disk.open(NAME).and_then(|file| {
        bytes.resize(file.len()?.min(LENGTH_MAX) as usize, 0);
        file.read_exact_at(&mut bytes, 0)
    });
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        read => read?,
    }
    let mut fields = Fields::new(&bytes);
    let is_manifest = fields.bytes(8).is_ok_and(|magic| magic == MAGIC);
    let (version, _length, crc) = (fields.u32(), fields.u32(), fields.u32());
    let (Ok(FORMAT_VERSION_NEXT..), Ok(crc), true) = (version, crc, is_manifest) else {
        return Ok(false);
    };
    Ok((FORMAT_VERSION_MIN..=FORMAT_VERSION).all(|version| {
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        crc != crc_of(&bytes)
    }))
}

/// Checks all that is checked before the content is looked at. Returns the format version.
fn check_head(bytes: &[u8], fields: &mut Fields<'_>) -> Result<u32, String> {
    if fields.bytes(8)? != MAGIC {
        return Err("is not a manifest".to_string());
    }
    let version = fields.u32()?;
    if !(FORMAT_VERSION_MIN..=FORMAT_VERSION).contains(&version) {
        return Err(format!(
            "has format version {version}: this program reads versions {FORMAT_VERSION_MIN} to {FORMAT_VERSION}"
        ));
    }
    let (length, found) = (fields.u32()?, bytes.len() as u64);
    if u64::from(length) != found {
        return Err(format!("was {length} bytes long and is {found}"));
    }
    let crc = fields.u32()?;
    if crc != crc_of(bytes) {
        return Err("CRC mismatch".to_string());
    }
    Ok(version)
}

fn check_segment_bytes(bytes: u32) -> Result<u32, String> {
    if bytes.is_power_of_two() && SEGMENT_BYTES.contains(&(bytes as usize)) {
        return Ok(bytes);
    }
    let (least, most) = (SEGMENT_BYTES.start(), SEGMENT_BYTES.end());
    Err(format!(
        "segment size {bytes}: must be a power of two from {least} to {most}"
    ))
}

/// Fills in magic, version, length and CRC.
fn complete_head(bytes: &mut [u8]) {
    let len = bytes.len() as u32;
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&len.to_le_bytes());
    let crc = crc_of(bytes);
    bytes[CRC].copy_from_slice(&crc.to_le_bytes());
}

/// What is behind the head of a manifest, for tests of what may be wrong there.
#[cfg(any(test, fuzzing))]
pub(crate) fn content_of(manifest: &[u8]) -> Vec<u8> {
    manifest[CRC.end..].to_vec()
}

/// A manifest whose content behind the head is `content`, for the same.
#[cfg(any(test, fuzzing))]
pub(crate) fn with_sound_head(content: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; CRC.end][..], content].concat();
    complete_head(&mut bytes);
    bytes
}

/// As format version 1 had a manifest, which did not tell what is unresolved.
#[cfg(test)]
pub(crate) fn in_format_version_1(manifest: &[u8], unresolved: &[Unresolved]) -> Vec<u8> {
    let len = manifest.len() - 8 - 10 * unresolved.len();
    let mut bytes = manifest[..len].to_vec();
    complete_head(&mut bytes);
    bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
    let crc = crc_of(&bytes);
    bytes[CRC].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Over everything but the CRC itself.
fn crc_of(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC.start]), &bytes[CRC.end..])
}

fn put_list<T>(bytes: &mut Vec<u8>, list: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    bytes.extend((list.len() as u64).to_le_bytes());
    list.iter().for_each(|entry| put(bytes, entry));
}

fn too_long(len: u64) -> String {
    format!("manifest of {len} bytes: must be at most {LENGTH_MAX}")
}

fn damage(path: &Path, offset: u64, what: String) -> Damage {
    Damage {
        file: path.to_path_buf(),
        offset,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_disk::MemoryDisk;
    use crate::random::Random;

    fn random_manifest(random: &mut Random) -> Manifest {
        let next_file_id = random.next() | 1 << 20;
        let mut segments: Vec<_> = (0..random.below(20))
            .map(|_| SegmentEntry {
                file_id: random.next() % next_file_id,
                used_bytes: random.below((1 << 20) + 1) as u32,
                records: random.next() as u32,
                dead_bytes: random.next() as u32,
            })
            .collect();
        segments.sort_by_key(|segment| segment.file_id);
        segments.dedup_by_key(|segment| segment.file_id);
        Manifest {
            segment_bytes: 1 << (20 + random.below(6)),
            hash_seed: random.next(),
            generation: random.next(),
            last_log: random.next() >> 8,
            next_file_id,
            next_object_id: random.next(),
            segments,
            deaths: (0..random.below(5)).map(|_| random.next()).collect(),
            graveyard: (0..random.below(5))
                .map(|_| Buried {
                    object: random.next(),
                    pages: random.next() as u32,
                })
                .collect(),
            key_counts: (0..random.below(5))
                .map(|_| NamespaceKeys {
                    namespace: Namespace(random.next() as u16),
                    keys: random.next(),
                    expiring: random.next(),
                })
                .collect(),
            state: (0..random.below(50)).map(|_| random.next() as u8).collect(),
            unresolved: Some(
                (0..random.below(5))
                    .map(|_| Unresolved {
                        namespace: Namespace(random.next() as u16),
                        writes: random.next(),
                    })
                    .collect(),
            ),
        }
    }

    fn loaded(bytes: &[u8]) -> Result<Option<Manifest>, Damage> {
        let disk = MemoryDisk::default();
        disk.put(NAME, bytes);
        Manifest::load(&disk).map_err(|error| {
            let damage = Damage::of(&error).cloned();
            damage.unwrap_or_else(|| panic!("not a damage: {error}"))
        })
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let disk = MemoryDisk::default();
        assert_eq!(Manifest::load(&disk).unwrap(), None);
        let mut random = Random::new();
        for _ in 0..100 {
            let manifest = random_manifest(&mut random);
            // One that a crash has left half-written does not matter.
            disk.put(NEW_NAME, b"half");
            manifest.store(&disk).unwrap();
            assert_eq!(Manifest::load(&disk).unwrap(), Some(manifest), "{random}");
            assert_eq!(disk.names().unwrap(), [NAME]);
        }
    }

    #[test]
    fn every_changed_bit_and_every_truncation_is_noticed() {
        let mut random = Random::new();
        let bytes = random_manifest(&mut random).encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(loaded(&damaged).is_err(), "{random}, bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(loaded(&bytes[..len]).is_err(), "{random}, {len} bytes");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(loaded(&longer).is_err());
    }

    /// `bytes` with a CRC that fits them.
    fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = crc_of(&bytes);
        bytes[CRC].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn errors_name_the_file_the_offset_and_what_is_wrong() {
        let manifest = Manifest {
            segment_bytes: 1 << 20,
            next_file_id: 8,
            segments: vec![SegmentEntry {
                file_id: 7,
                used_bytes: 64,
                records: 0,
                dead_bytes: 0,
            }],
            ..Manifest::default()
        };
        let told = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = manifest.encode();
            change(&mut bytes);
            loaded(&with_crc(bytes)).unwrap_err().to_string()
        };
        let newer = told(&|bytes| bytes[8] = 3);
        assert_eq!(
            newer,
            "/memory/MANIFEST at offset 8: has format version 3: this program reads versions 1 to 2"
        );
        let segment_size = told(&|bytes| bytes[20] = 1);
        assert_eq!(
            segment_size,
            "/memory/MANIFEST at offset 20: segment size 1048577: must be a power of two from 1048576 to 33554432"
        );
        let file_id = told(&|bytes| bytes[72] = 8);
        assert_eq!(
            file_id,
            "/memory/MANIFEST at offset 88: file id 8 is not below the next one, 8"
        );
        let count = told(&|bytes| bytes[71] = 255);
        assert_eq!(
            count,
            "/memory/MANIFEST at offset 64: counts more entries than there is room for"
        );
    }

    fn in_fixtures(unresolved: Option<Vec<Unresolved>>) -> Manifest {
        Manifest {
            unresolved,
            ..random_manifest(&mut Random::from_seed(1))
        }
    }

    /// It was written by the first version; later ones must read it.
    #[test]
    fn the_manifest_of_format_version_1_is_read() {
        let fixture = include_bytes!("../tests/fixtures/MANIFEST");
        let expected = Manifest {
            last_log: 0,
            ..in_fixtures(None)
        };
        assert_eq!(loaded(fixture), Ok(Some(expected)));
    }

    /// As above.
    #[test]
    fn the_manifest_of_format_version_2_is_read() {
        let fixture = include_bytes!("../tests/fixtures/MANIFEST.2");
        let unresolved = [(3, 5), (4, 1)].map(|(namespace, writes)| Unresolved {
            namespace: Namespace(namespace),
            writes,
        });
        let expected = in_fixtures(Some(unresolved.to_vec()));
        assert!(expected.encode() == fixture, "the format has changed");
        assert_eq!(loaded(fixture), Ok(Some(expected)));
    }
}
