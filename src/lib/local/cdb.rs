//! Constant databases (spec/local-services-and-instances.md 4.1): a hash table in a file, written once, of at most
//! 4 GiB. The reader trusts nothing that is in the file.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;

use crate::sys::fd::{open_file, retry};
use crate::sys::{Errno, dir};

/// Bytes of the table of tables, where the records begin.
const HEADER: u64 = 2048;

fn hash(key: &[u8]) -> u32 {
    key.iter().fold(5381u32, |h, &byte| h.wrapping_mul(33) ^ u32::from(byte))
}

/// A database that is open for reading. What is malformed is EINVAL.
#[derive(Debug)]
pub struct Cdb {
    file: OwnedFd,
    size: u64,
}

impl Cdb {
    /// Opens a database. A file that is too short for one is EINVAL, a directory EISDIR.
    pub fn open(path: &CStr) -> Result<Cdb, Errno> {
        let file = open_file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?;
        let about = nix::sys::stat::fstat(&file)?;
        if dir::is_directory(&about) {
            return Err(Errno::EISDIR);
        }
        if (about.st_size as u64) < HEADER {
            return Err(Errno::EINVAL);
        }
        Ok(Cdb { file, size: about.st_size as u64 })
    }

    fn read(&self, mut position: u64, mut buffer: &mut [u8]) -> Result<(), Errno> {
        if position + buffer.len() as u64 > self.size {
            return Err(Errno::EINVAL);
        }
        while !buffer.is_empty() {
            match retry(|| nix::sys::uio::pread(&self.file, buffer, position as libc::off_t))? {
                0 => return Err(Errno::EINVAL), // shorter than it was
                n => {
                    position += n as u64;
                    buffer = &mut buffer[n..];
                }
            }
        }
        Ok(())
    }

    /// Two numbers that stand side by side.
    fn pair(&self, position: u64) -> Result<(u32, u32), Errno> {
        let mut bytes = [0; 8];
        self.read(position, &mut bytes)?;
        let [a, b, c, d, e, f, g, h] = bytes;
        Ok((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
    }

    /// Key and data of the record at `position`, which together have at most `most` bytes, and where it ends.
    fn record(&self, position: u64, most: usize) -> Result<(Vec<u8>, Vec<u8>, u64), Errno> {
        let (key, data) = self.pair(position)?;
        let both = u64::from(key) + u64::from(data);
        if both > most as u64 || position + 8 + both > self.size {
            return Err(Errno::EINVAL);
        }
        let mut key = vec![0; key as usize + data as usize];
        self.read(position + 8, &mut key)?;
        let data = key.split_off(key.len() - data as usize);
        Ok((key, data, position + 8 + both))
    }

    /// The data of the first record of that key; more than `most` bytes of it are EINVAL.
    pub fn find(&self, key: &[u8], most: usize) -> Result<Option<Vec<u8>>, Errno> {
        let hash = hash(key);
        let (table, slots) = self.pair(u64::from(hash & 255) * 8)?;
        if slots == 0 {
            return Ok(None);
        }
        let first = (hash >> 8) % slots;
        for slot in (first..slots).chain(0..first) {
            let (found, position) = self.pair(u64::from(table) + 8 * u64::from(slot))?;
            if position == 0 {
                return Ok(None);
            }
            if found == hash && self.pair(position.into())?.0 as usize == key.len() {
                let (record, data, _) = self.record(position.into(), key.len().saturating_add(most))?;
                if record == key {
                    return Ok(Some(data));
                }
            }
        }
        Ok(None)
    }

    /// All records as (key, data), in the order of the file. One of more than `most` bytes, key and data together,
    /// is EINVAL and the last.
    pub fn records(&self, most: usize) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), Errno>> {
        let mut end = self.pair(0).map(|(table, _)| u64::from(table));
        let mut position = HEADER;
        std::iter::from_fn(move || {
            let found = match end {
                Ok(end) if end == position => return None,
                Ok(end) => self.record(position, most).and_then(|(key, data, next)| {
                    position = next;
                    if next > end { Err(Errno::EINVAL) } else { Ok((key, data)) }
                }),
                Err(errno) => Err(errno),
            };
            if found.is_err() {
                end = Ok(position);
            }
            Some(found)
        })
    }
}

/// A database under construction, in memory.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Hash and position of each record.
    index: Vec<(u32, u32)>,
}

impl Default for Writer {
    fn default() -> Self {
        Writer { bytes: vec![0; HEADER as usize], index: Vec::new() }
    }
}

impl Writer {
    /// An empty database.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record; EFBIG when the file would be larger than the format can say.
    pub fn add(&mut self, key: &[u8], data: &[u8]) -> Result<(), Errno> {
        // What the finished file will have: this record, and two slots of eight bytes for each.
        let size = self.bytes.len() as u64 + 8 + key.len() as u64 + data.len() as u64;
        if size + 16 * (self.index.len() as u64 + 1) > u32::MAX.into() {
            return Err(Errno::EFBIG);
        }
        self.index.push((hash(key), self.bytes.len() as u32));
        self.bytes.extend((key.len() as u32).to_le_bytes());
        self.bytes.extend((data.len() as u32).to_le_bytes());
        self.bytes.extend(key);
        self.bytes.extend(data);
        Ok(())
    }

    /// The bytes of the file.
    pub fn finish(mut self) -> Vec<u8> {
        for table in 0..256usize {
            let records = || self.index.iter().filter(|(hash, _)| (hash & 255) as usize == table);
            let count = 2 * records().count();
            let mut slots = vec![(0u32, 0u32); count];
            for &(hash, position) in records() {
                let mut slot = (hash >> 8) as usize % count;
                while slots[slot].1 != 0 {
                    slot = (slot + 1) % count;
                }
                slots[slot] = (hash, position);
            }
            let place = self.bytes.len() as u32;
            self.bytes[8 * table..][..4].copy_from_slice(&place.to_le_bytes());
            self.bytes[8 * table + 4..][..4].copy_from_slice(&(count as u32).to_le_bytes());
            for (hash, position) in slots {
                self.bytes.extend(hash.to_le_bytes());
                self.bytes.extend(position.to_le_bytes());
            }
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    fn open(bytes: &[u8]) -> Result<Cdb, Errno> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Cdb::open(&CString::new(file.path().as_os_str().as_bytes()).unwrap())
    }

    fn small() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..12)
    }

    #[test]
    fn the_layout_is_the_classic_one() {
        let mut writer = Writer::new();
        writer.add(b"uid/5", b"D").unwrap();
        let bytes = writer.finish();
        assert_eq!(&bytes[2048..2062], b"\x05\0\0\0\x01\0\0\0uid/5D");
        assert_eq!(bytes.len(), 2062 + 16);
        let empty = Writer::new().finish();
        assert_eq!(empty, [0, 8, 0, 0, 0, 0, 0, 0].repeat(256));
    }

    #[test]
    fn what_is_too_short_is_refused() {
        assert_eq!(open(b"").err(), Some(Errno::EINVAL));
        assert_eq!(open(&[0; 2047]).err(), Some(Errno::EINVAL));
        let dir = tempfile::tempdir().unwrap();
        // On some file systems a directory is as large as the names in it.
        (0..100).for_each(|n| std::fs::write(dir.path().join(format!("{n:0>100}")), "").unwrap());
        let path = CString::new(dir.path().as_os_str().as_bytes()).unwrap();
        assert_eq!(Cdb::open(&path).err(), Some(Errno::EISDIR));
    }

    #[test]
    fn data_beyond_the_limit_is_refused() {
        let mut writer = Writer::new();
        writer.add(b"k", b"12345").unwrap();
        let cdb = open(&writer.finish()).unwrap();
        assert_eq!(cdb.find(b"k", 4), Err(Errno::EINVAL));
        assert_eq!(cdb.find(b"k", 5), Ok(Some(b"12345".to_vec())));
        assert_eq!(cdb.records(5).collect::<Vec<_>>(), [Err(Errno::EINVAL)]);
    }

    proptest! {
        #[test]
        fn what_was_written_is_found(pairs in proptest::collection::vec((small(), small()), 0..60), other in small()) {
            let mut writer = Writer::new();
            let mut first = BTreeMap::new();
            for (key, data) in &pairs {
                writer.add(key, data).unwrap();
                first.entry(key.clone()).or_insert_with(|| data.clone());
            }
            let cdb = open(&writer.finish()).unwrap();
            for (key, data) in &first {
                let found = cdb.find(key, 100);
                prop_assert_eq!(found.as_ref(), Ok(&Some(data.clone())));
            }
            prop_assert_eq!(cdb.find(&other, 100), Ok(first.get(&other).cloned()));
            let all: Result<Vec<_>, _> = cdb.records(100).collect();
            prop_assert_eq!(all, Ok(pairs));
        }

        /// Wrong bytes anywhere, or a file cut anywhere, give an error or an answer, never a panic or an endless loop.
        #[test]
        fn damage_is_survived(
            pairs in proptest::collection::vec((small(), small()), 1..20),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
            length in any::<prop::sample::Index>(),
        ) {
            let mut writer = Writer::new();
            pairs.iter().for_each(|(key, data)| writer.add(key, data).unwrap());
            let mut bytes = writer.finish();
            for (place, value) in damage {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            bytes.truncate(length.index(bytes.len() + 1).max(2048));
            let cdb = open(&bytes).unwrap();
            for (key, _) in &pairs {
                let _ = cdb.find(key, 100);
            }
            prop_assert!(cdb.records(100).count() <= bytes.len());
        }
    }
}
