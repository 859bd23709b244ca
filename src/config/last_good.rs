//! The last good configuration, kept in the state directory: with an invalid new one the gateway goes on with it.
//!
//! Holds the texts as they were written, so a secret given as `${VAR}` or `*_file` stays a reference. The file is
//! replaced as a whole: after a power cut there is the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::problem::{Problems, SourceText, Texts};
use super::{Loaded, resolve_texts};

const NAME: &str = "last-good-config.json";
/// Goes up when an older Forebay could not read the file any more.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    files: Vec<SavedFile>,
}

#[derive(Serialize, Deserialize)]
struct SavedFile {
    path: PathBuf,
    text: String,
}

/// Why there is no last good configuration to go on with.
#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    #[error("access {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("read {path}: {reason}")]
    Damaged { path: PathBuf, reason: String },
    /// It was good once: a variable or a file it refers to has gone since.
    #[error("use {path}:\n{problems}")]
    Problems { path: PathBuf, problems: Box<Problems> },
}

/// Keeps the texts of a configuration that was loaded without error. Mode 0600, because a password may stand in it.
///
/// # Errors
/// [`LastGoodError::Io`]; the former file then still stands.
pub fn save_last_good(state_dir: &Path, loaded: &Loaded) -> Result<(), LastGoodError> {
    let files = loaded.texts.0.iter().map(|t| SavedFile { path: t.path.clone(), text: t.text.clone() }).collect();
    let path = state_dir.join(NAME);
    let json = serde_json::to_vec_pretty(&Saved { format: FORMAT, files });
    let json = json.map_err(|error| LastGoodError::Damaged { path: path.clone(), reason: error.to_string() })?;
    if fs::read(&path).is_ok_and(|known| known == json) {
        // Every start would otherwise wear the flash for nothing.
        return Ok(());
    }
    replace(&path, &json).map_err(|source| LastGoodError::Io { path, source })
}

/// Write beside, fsync, rename, fsync the folder: only then both the content and the name survive a power cut.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    // A leftover of an interrupted write may have other permissions; it must not hand them on.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Loads what was saved, checked anew: the environment may have changed since.
///
/// # Errors
/// No file, a damaged one, or one whose references no longer lead anywhere.
pub fn load_last_good(state_dir: &Path) -> Result<Loaded, LastGoodError> {
    let path = state_dir.join(NAME);
    let bytes = fs::read(&path).map_err(|source| LastGoodError::Io { path: path.clone(), source })?;
    let damaged = |reason: String| LastGoodError::Damaged { path: path.clone(), reason };
    let saved: Saved = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if saved.format != FORMAT {
        return Err(damaged(format!("it has format {}, this version reads {FORMAT}", saved.format)));
    }
    let texts = saved.files.into_iter().map(|file| SourceText { path: file.path, text: file.text }).collect();
    resolve_texts(Texts(texts)).map_err(|problems| LastGoodError::Problems { path, problems: Box::new(problems) })
}
