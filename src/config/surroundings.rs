//! What a configuration asks of the machine: environment variables, secret files, the gateway's identity, and what the
//! Kafka client in this binary knows.
//!
//! The one door between the pure resolution and the world, so that tests can give a world of their own.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::identity;
use crate::forward::client::kafka;

/// A key, a token or a register map is a few kilobytes; whoever names a disk image by mistake gets an answer, not an empty memory.
const TEXT_BYTES_MAX: u64 = 64 * 1024;

pub trait Surroundings {
    /// The variable's value; `None` where it is not set or not UTF-8.
    fn variable(&self, name: &str) -> Option<String>;
    /// The file's text without the line end that editors add.
    ///
    /// # Errors
    /// Why it cannot serve as a secret, as a fragment.
    fn secret_file(&self, path: &Path) -> Result<String, String>;
    /// The text of a file that is no secret.
    ///
    /// # Errors
    /// Why it cannot be read, as a fragment.
    fn text_file(&self, path: &Path) -> Result<String, String>;
    /// # Errors
    /// Why the file cannot be opened, as a fragment.
    fn readable(&self, path: &Path) -> Result<(), String>;
    /// The name of a gateway that was given none.
    fn gateway_name(&self) -> String;
    /// # Errors
    /// What the Kafka client has against this property or its value, as a fragment.
    fn kafka_property(&self, name: &str, value: &str) -> Result<(), String>;
}

/// Where a `*_file` key points: systemd credentials first, else beside the file that names it.
pub fn named_file(surroundings: &dyn Surroundings, folder: &Path, path: &str) -> PathBuf {
    let base = surroundings.variable("CREDENTIALS_DIRECTORY").map_or_else(|| folder.to_owned(), PathBuf::from);
    base.join(path)
}

/// The machine this program runs on.
pub struct Machine;

impl Surroundings for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn text_file(&self, path: &Path) -> Result<String, String> {
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|error| why(&error))?;
        file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| why(&error))?;
        if bytes.len() as u64 > TEXT_BYTES_MAX {
            return Err("is larger than 64KiB".to_owned());
        }
        String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
    }

    fn secret_file(&self, path: &Path) -> Result<String, String> {
        let text = self.text_file(path)?;
        let secret = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if secret.is_empty() { Err("is empty".to_owned()) } else { Ok(secret.to_owned()) }
    }

    fn readable(&self, path: &Path) -> Result<(), String> {
        match File::open(path).and_then(|file| file.metadata()) {
            Ok(about) if about.is_dir() => Err("is a folder".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(why(&error)),
        }
    }

    fn gateway_name(&self) -> String {
        identity::gateway_name()
    }

    fn kafka_property(&self, name: &str, value: &str) -> Result<(), String> {
        kafka::try_property(name, value)
    }
}

/// An I/O error as a fragment, without the number that says nothing to the reader.
pub fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "may not be read by this user".to_owned(),
        io::ErrorKind::IsADirectory => "is a folder".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}
