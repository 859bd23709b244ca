//! The start of a spool: opened, or on a full disk opened on the ballast, or set aside and begun anew. Owns nothing;
//! the owner thread lives on with what comes out of it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::owner::{Opened, OpenedLane, SetAside, Settings};
use super::store::Store;
use super::{Loss, RowId, StoreError, aside, row_base, salvage};
use crate::clock;

/// What a start may write: the WAL's index and a few of its frames.
const START_BYTES: u64 = 256 << 10;

/// Damage shows when the file is opened, or in the first things that are asked of it.
pub(super) fn open_or_set_aside(settings: &Settings, run: u64) -> Result<(Store, Opened), String> {
    let unfinished = salvage::unfinished(&settings.path, |aside| {
        open(settings).is_ok_and(|store| store.salvaged_from().as_deref() == Some(aside))
    })
    .map_err(|e| format!("take a salvage up again: {e}"))?;
    let begun = if let Some(aside) = unfinished {
        let cause = "its salvage was cut off".to_owned();
        let (mut store, aside, _) = refill(settings, aside, cause, &HashMap::new())?;
        begin_run(&mut store, settings, run, Some(aside)).map(|opened| (store, opened))
    } else if is_cut_to_nothing(&settings.path) {
        Err(StoreError::Corrupt("the file is empty and its WAL is not".into()))
    } else {
        begin_with_ballast(settings, run)
    };
    let cause = match begun {
        Ok(begun) => return Ok(begun),
        Err(StoreError::Corrupt(cause)) => cause,
        // The system lets us write and SQLite does not: a damaged header says so.
        Err(StoreError::Open(cause)) if is_misread(&settings.path, &cause) => cause,
        Err(e) => return Err(e.to_string()),
    };
    let (mut store, aside, _) = replace(settings, cause, &HashMap::new())?;
    let opened = begin_run(&mut store, settings, run, Some(aside)).map_err(|e| e.to_string())?;
    Ok((store, opened))
}

/// A start writes a few pages: on a full disk the ballast makes room for them.
fn begin_with_ballast(settings: &Settings, run: u64) -> Result<(Store, Opened), StoreError> {
    let begin = || {
        open(settings).and_then(|mut store| begin_run(&mut store, settings, run, None).map(|opened| (store, opened)))
    };
    match begin() {
        // SQLite calls a full disk an I/O error where the WAL's index finds no room.
        Err(StoreError::DiskFull(cause) | StoreError::Io(cause)) if give_up_ballast(settings) => {
            tracing::warn!(cause, "the disk is full: the ballast is given up so that the spool can be opened");
            begin()
        }
        other => other,
    }
}

fn give_up_ballast(settings: &Settings) -> bool {
    let disk = Disk::new(&settings.path, settings.ballast_bytes, settings.reserve_bytes);
    disk.free() < START_BYTES && disk.drop_ballast()
}

fn open(settings: &Settings) -> Result<Store, StoreError> {
    let mut store = Store::open(&settings.path, settings.max_bytes, settings.dead_bytes_max)?;
    store.message_ids = settings.message_ids;
    Ok(store)
}

/// SQLite takes an empty file for a new one and deletes the WAL beside it.
fn is_cut_to_nothing(path: &Path) -> bool {
    let len = |p: &Path| std::fs::metadata(p).map(|m| m.len()).ok();
    len(path) == Some(0) && len(Path::new(&format!("{}-wal", path.display()))).is_some_and(|l| l > 0)
}

fn is_misread(path: &Path, cause: &str) -> bool {
    !cause.contains("schema version") && std::fs::OpenOptions::new().read(true).write(true).open(path).is_ok()
}

/// Sets the damaged file aside and begins a new one with all that can still be read.
pub(super) fn replace(
    settings: &Settings,
    cause: String,
    last_rows: &HashMap<u32, RowId>,
) -> Result<(Store, SetAside, Vec<Loss>), String> {
    let path = salvage::set_aside(&settings.path).map_err(|e| format!("set the spool aside: {e}"))?;
    tracing::error!(file = %path.display(), cause, "the spool is damaged; it is set aside and salvaged");
    refill(settings, path, cause, last_rows)
}

fn refill(
    settings: &Settings,
    path: PathBuf,
    cause: String,
    last_rows: &HashMap<u32, RowId>,
) -> Result<(Store, SetAside, Vec<Loss>), String> {
    let mut store = match open(settings) {
        Err(StoreError::Corrupt(_)) => {
            salvage::put_away(&settings.path).map_err(|e| format!("put the spool away: {e}"))?;
            open(settings)
        }
        opened => opened,
    }
    .map_err(|e| e.to_string())?;
    let saved = salvage::salvage(&path, &mut store, last_rows);
    // Only a spool that says so itself is whole; until then the next start begins the salvage again.
    store.note_salvaged(&path).map_err(|e| e.to_string())?;
    salvage::finish(&settings.path);
    aside::prune(&settings.path);
    let (chunks, records, missing_at_most) = (saved.chunks, saved.records, saved.missing_at_most);
    Ok((store, SetAside { path, cause, chunks, records, missing_at_most }, saved.losses))
}

fn begin_run(
    store: &mut Store,
    settings: &Settings,
    run: u64,
    set_aside: Option<SetAside>,
) -> Result<Opened, StoreError> {
    store.add_run(run, clock::wall_ms(), &clock::boot_id(), &settings.gateway)?;
    let mut lanes = Vec::new();
    for name in &settings.lanes {
        let number = store.lane_number(name)?;
        lanes.push(OpenedLane { number, name: name.clone(), last_row: store.last_row(number)? });
    }
    for (number, name) in store.lanes()? {
        let last_row = store.last_row(number)?;
        // A lane removed from the config drains until empty; an empty one needs nothing.
        if !settings.lanes.contains(&name) && last_row > row_base(number) {
            lanes.push(OpenedLane { number, name, last_row });
        }
    }
    Ok(Opened {
        spool_id: store.spool_id,
        run,
        lanes,
        untold: store.untold_losses(1000)?,
        lost: store.loss_totals()?,
        runs: store.runs()?,
        kept: store.facts()?,
        message_ids: store.known_message_ids(clock::wall_ms())?,
        set_aside,
    })
}
