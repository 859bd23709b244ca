//! Finds and reads the configuration files: the main one, then `conf.d/*.toml` beside it in the order of their names.
//!
//! Reading is bounded, so that naming a disk image by mistake costs a message and not the memory.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::problem::{Cause, Findings, Place, SourceText, Texts};
use super::surroundings::why;

/// The reference file with every key has about 20 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;
const FOLDER: &str = "conf.d";
/// More is a folder full of something else.
const FILES_MAX: usize = 200;

/// Reads all files. A file that cannot be read is a finding, and the others are read all the same.
pub fn read(main: &Path, found: &mut Findings) -> (Texts, Cause) {
    let mut texts = Texts::default();
    let cause = read_one(main, &mut texts, found);
    for path in parts(main, found) {
        read_one(&path, &mut texts, found);
    }
    (texts, cause)
}

fn read_one(path: &Path, texts: &mut Texts, found: &mut Findings) -> Cause {
    let file = texts.0.len();
    match bounded(path) {
        Ok(bytes) => {
            let (text, bad) = decode(bytes);
            texts.0.push(SourceText { path: path.to_owned(), text });
            if let Some((at, byte)) = bad {
                let place = Place { file, start: at, end: at + 1 };
                let message = format!("not UTF-8: the byte 0x{byte:02x}");
                found.error(place, message).help("save the file as UTF-8");
            }
            Cause::Content
        }
        Err(Refused::TooLarge) => {
            let message = format!("{} is larger than 1MiB", path.display());
            found.error(None, message).help("is this the configuration? `--config PATH` names another file");
            Cause::Content
        }
        Err(Refused::Io(error)) => {
            let message = format!("{} {}", path.display(), why(&error));
            found.error(None, message).help("`--config PATH` names another file");
            match error.kind() {
                io::ErrorKind::NotFound => Cause::Missing,
                io::ErrorKind::PermissionDenied => Cause::Denied,
                _ => Cause::Content,
            }
        }
    }
}

enum Refused {
    TooLarge,
    Io(io::Error),
}

fn bounded(path: &Path) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Refused::Io)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Refused::Io)?;
    if bytes.len() as u64 > FILE_BYTES_MAX { Err(Refused::TooLarge) } else { Ok(bytes) }
}

/// The text up to the line with the first bad byte, and that byte with its place.
fn decode(bytes: Vec<u8>) -> (String, Option<(usize, u8)>) {
    match String::from_utf8(bytes) {
        Ok(text) => (text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text), None),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let bytes = error.into_bytes();
            (String::from_utf8_lossy(&bytes).into_owned(), Some((at, bytes[at])))
        }
    }
}

fn parts(main: &Path, found: &mut Findings) -> Vec<PathBuf> {
    let folder = main.parent().unwrap_or_else(|| Path::new("")).join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            found.error(None, format!("{} {}", folder.display(), why(&error))).help("every file there belongs to it");
            return Vec::new();
        }
    };
    let is_part = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_part).collect();
    paths.sort();
    if paths.len() > FILES_MAX {
        let message = format!("{} holds {} files, more than {FILES_MAX}", folder.display(), paths.len());
        found.error(None, message).help("put several tables into one file");
        paths.truncate(FILES_MAX);
    }
    paths
}
