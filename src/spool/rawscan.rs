//! Finds chunks in the pages of a broken SQLite file and its WAL without SQLite.
//!
//! Formats: "Database File Format" of the SQLite documentation, sections 1.6 (b-tree pages), 2.1 (records) and 4.1
//! (WAL frames). Only table leaf cells are looked at; a cell whose record holds a chunk is put together along its
//! overflow pages. Whether it is whole, the chunk's checksum decides.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{RowId, chunk};

const PAGE: usize = 4096;
const WAL_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;
const TABLE_LEAF: u8 = 0x0d;

/// What is found: the cell's row and a byte string that begins like a chunk.
type Visit<'a> = &'a mut dyn FnMut(RowId, &[u8]);

/// Calls `visit` with every byte string that begins like a chunk. It may be called twice for the same chunk.
pub fn scan(path: &Path, visit: Visit<'_>) {
    let Ok(pages) = Pages::open(path) else { return };
    let mut page = [0; PAGE];
    for number in 1..=pages.in_file {
        if pages.read_file(number, &mut page) {
            visit_leaf(&pages, &page, number == 1, visit);
        }
    }
    for frame in 0..pages.in_wal {
        if pages.read_frame(frame, &mut page) {
            visit_leaf(&pages, &page, false, visit);
        }
    }
}

struct Pages {
    file: File,
    wal: Option<File>,
    in_file: u32,
    in_wal: u64,
    /// The newest frame of each page in the WAL.
    newest: HashMap<u32, u64>,
}

impl Pages {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let wal = File::open(PathBuf::from(format!("{}-wal", path.display()))).ok();
        let in_file = (file.metadata()?.len() / PAGE as u64).min(u64::from(u32::MAX)) as u32;
        let wal_len = wal.as_ref().and_then(|w| w.metadata().ok()).map_or(0, |m| m.len());
        let in_wal = wal_len.saturating_sub(WAL_HEADER) / (FRAME_HEADER + PAGE as u64);
        let mut pages = Pages { file, wal, in_file, in_wal, newest: HashMap::new() };
        pages.index_wal();
        Ok(pages)
    }

    /// Frames of the current generation carry the salt of the WAL's header; older ones are left-overs.
    fn index_wal(&mut self) {
        let Some(wal) = &self.wal else { return };
        let mut header = [0; WAL_HEADER as usize];
        if wal.read_exact_at(&mut header, 0).is_err() {
            return;
        }
        for frame in 0..self.in_wal {
            let mut head = [0; FRAME_HEADER as usize];
            if wal.read_exact_at(&mut head, frame_at(frame)).is_ok() && head[8..16] == header[16..24] {
                self.newest.insert(be32(&head, 0), frame);
            }
        }
    }

    fn read_file(&self, number: u32, page: &mut [u8; PAGE]) -> bool {
        number > 0 && self.file.read_exact_at(page, u64::from(number - 1) * PAGE as u64).is_ok()
    }

    fn read_frame(&self, frame: u64, page: &mut [u8; PAGE]) -> bool {
        self.wal.as_ref().is_some_and(|w| w.read_exact_at(page, frame_at(frame) + FRAME_HEADER).is_ok())
    }

    fn read_newest(&self, number: u32, page: &mut [u8; PAGE]) -> bool {
        match self.newest.get(&number) {
            Some(&frame) => self.read_frame(frame, page),
            None => self.read_file(number, page),
        }
    }
}

fn frame_at(frame: u64) -> u64 {
    WAL_HEADER + frame * (FRAME_HEADER + PAGE as u64)
}

fn visit_leaf(pages: &Pages, page: &[u8; PAGE], first: bool, visit: Visit<'_>) {
    // The file's first page begins with the 100-byte database header.
    let base = if first { 100 } else { 0 };
    if page[base] != TABLE_LEAF {
        return;
    }
    let cells = usize::from(be16(page, base + 3));
    for i in 0..cells {
        let at = base + 8 + 2 * i;
        if at + 2 > PAGE {
            return;
        }
        let cell = usize::from(be16(page, at));
        if cell < PAGE
            && let Some((row, payload)) = payload(pages, &page[cell..])
            && let Some(start) = payload.windows(4).position(|w| w == chunk::MAGIC)
        {
            visit(row, &payload[start..]);
        }
    }
}

/// A cell's row and whole payload, along its overflow pages (file format, 1.6: local part of a table leaf cell).
fn payload(pages: &Pages, cell: &[u8]) -> Option<(RowId, Vec<u8>)> {
    let (len, rest) = varint(cell)?;
    let (row, rest) = varint(rest)?;
    let row = row as RowId;
    let len = usize::try_from(len).ok().filter(|l| *l <= chunk::RAW_BYTES_MAX)?;
    let max_local = PAGE - 35;
    if len <= max_local {
        return rest.get(..len).map(|local| (row, local.to_vec()));
    }
    let min_local = (PAGE - 12) * 32 / 255 - 23;
    let surplus = min_local + (len - min_local) % (PAGE - 4);
    let local = if surplus <= max_local { surplus } else { min_local };
    let mut out = rest.get(..local)?.to_vec();
    let mut next = be32(rest.get(local..local + 4)?, 0);
    let mut page = [0; PAGE];
    while out.len() < len {
        // Each step adds bytes, so that a loop in the chain ends at `len` too.
        if !pages.read_newest(next, &mut page) {
            return None;
        }
        next = be32(&page, 0);
        let take = (len - out.len()).min(PAGE - 4);
        out.extend_from_slice(&page[4..4 + take]);
    }
    Some((row, out))
}

/// SQLite's varint: big endian, nine bytes at most.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for i in 0..9 {
        let byte = *bytes.get(i)?;
        if i == 8 {
            return Some((value << 8 | u64::from(byte), &bytes[9..]));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
