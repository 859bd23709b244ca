//! Replaces a password file as a whole: after a power cut there is the old one or the new one, with the same owner and
//! rights.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::cli::ask::Failure;
use crate::cli::exit;
use crate::intake::listener::access::passwords;

/// The gateway reads by its group.
const MODE: u32 = 0o640;

/// # Errors
/// With the exit code: the file does not exist, may not be read, is no password file.
pub fn read(path: &Path) -> Result<String, Failure> {
    passwords::read(path).map_err(|error| failure("read", path, &error))
}

/// Puts what `edit` makes of the text in its place; `None` leaves the file alone. With `make` a file that does not exist
/// counts as empty.
///
/// # Errors
/// With the exit code; the file is then as it was.
pub fn change(path: &Path, make: bool, edit: impl FnOnce(&str) -> Option<String>) -> Result<(), Failure> {
    // What a link points to is replaced, and not the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let beside = Beside::make(path)?;
    let (text, old) = match passwords::read(path) {
        Err(error) if make && error.kind() == ErrorKind::NotFound => (String::new(), None),
        Err(error) => return Err(failure("read", path, &error)),
        Ok(text) => (text, Some(fs::metadata(path).map_err(|error| failure("read", path, &error))?)),
    };
    match edit(&text) {
        Some(text) if text.len() as u64 > passwords::FILE_BYTES_MAX => {
            let error = io::Error::new(ErrorKind::FileTooLarge, "it would be larger than 4MiB");
            Err(failure("write", path, &error))
        }
        Some(text) => beside.replace(&text, old.as_ref()).map_err(|error| failure("write", path, &error)),
        None => Ok(()),
    }
}

/// The new file beside the old one. That it can be made only once keeps two commands from undoing each other's work.
struct Beside<'a> {
    file: File,
    path: PathBuf,
    target: &'a Path,
}

impl<'a> Beside<'a> {
    fn make(target: &'a Path) -> Result<Self, Failure> {
        let mut path = target.as_os_str().to_owned();
        path.push(".new");
        let path = PathBuf::from(path);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => Ok(Beside { file, path, target }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let message = format!("change {}: another change is under way, or was cut off", target.display());
                Err(Failure::new(exit::TEMPFAIL, format!("{message}: then remove {}", path.display())))
            }
            Err(error) => Err(failure("write", &path, &error)),
        }
    }

    fn replace(&self, text: &str, old: Option<&Metadata>) -> io::Result<()> {
        let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match old {
            Some(old) => self.belong_to(Some(old.uid()), old.gid())?,
            // As its neighbours: a folder of the gateway's group gets files that the gateway can read.
            None => drop(self.belong_to(None, fs::metadata(folder)?.gid())),
        }
        let mode = old.map_or(MODE, |old| old.mode() & 0o777);
        self.file.set_permissions(fs::Permissions::from_mode(mode))?;
        (&self.file).write_all(text.as_bytes())?;
        self.file.sync_all()?;
        fs::rename(&self.path, self.target)?;
        File::open(folder)?.sync_all()
    }

    fn belong_to(&self, uid: Option<u32>, gid: u32) -> io::Result<()> {
        let own = self.file.metadata()?;
        if uid.is_none_or(|uid| uid == own.uid()) && gid == own.gid() {
            return Ok(());
        }
        fchown(&self.file, uid, Some(gid))
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        // Gone already when it has taken the old one's place.
        let _ = fs::remove_file(&self.path);
    }
}

fn failure(what: &str, path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::NotFound => exit::NOINPUT,
        ErrorKind::PermissionDenied => exit::NOPERM,
        ErrorKind::InvalidData | ErrorKind::FileTooLarge => exit::DATAERR,
        _ => exit::IOERR,
    };
    Failure::new(code, format!("{what} {}: {error}", path.display()))
}
