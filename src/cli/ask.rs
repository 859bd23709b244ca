//! How commands reach the spool: through the running gateway's control socket, or, with the service stopped, through
//! the file itself under the same lock.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::exit;
use crate::config::{self, Config};
use crate::ops::control::{Question, answer_from_store, path as socket_path};
use crate::spool::lock::{self, Lock};
use crate::spool::store::Store;

/// A little more than the gateway gives itself.
const TIMEOUT: Duration = Duration::from_secs(35);

pub struct Failure {
    pub code: u8,
    pub message: String,
}

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Failure { code, message: message.into() }
    }

    /// Says it and gives the exit code.
    pub fn tell(&self) -> u8 {
        eprintln!("failed to {}", self.message);
        self.code
    }
}

/// Whoever answers.
pub enum Access {
    Running(BufReader<UnixStream>),
    Stopped { store: Box<Store>, _lock: Lock },
}

impl Access {
    /// # Errors
    /// The configuration's problems, or why neither socket nor file can be used.
    pub fn open(config_path: &Path) -> Result<(Access, Config), Failure> {
        let loaded =
            config::load(config_path).map_err(|p| Failure::new(exit::CONFIG, format!("load the config:\n{p}")))?;
        let config = loaded.config;
        if let Ok(stream) = UnixStream::connect(socket_path(&config.gateway.runtime_dir)) {
            let _ = stream.set_read_timeout(Some(TIMEOUT));
            return Ok((Access::Running(BufReader::new(stream)), config));
        }
        if !config.spool.path.exists() {
            let message =
                format!("open the spool: {} does not exist; has the gateway run?", config.spool.path.display());
            return Err(Failure::new(exit::NOINPUT, message));
        }
        let lock = lock::take(&config.spool.path).map_err(|e| Failure::new(exit::TEMPFAIL, e.to_string()))?;
        let store = Store::open(&config.spool.path, config.spool.file_bytes_max(), config.dead_letters.max_bytes)
            .map_err(|e| Failure::new(exit::IOERR, e.to_string()))?;
        Ok((Access::Stopped { store: Box::new(store), _lock: lock }, config))
    }

    /// The running gateway and nothing else, without a limit in time: it always answers, or its end closes the connection.
    ///
    /// # Errors
    /// When there is none.
    pub fn running(runtime_dir: &Path) -> Result<Access, Failure> {
        let path = socket_path(runtime_dir);
        let stream = UnixStream::connect(&path).map_err(|error| {
            let code =
                if error.kind() == std::io::ErrorKind::PermissionDenied { exit::NOPERM } else { exit::UNAVAILABLE };
            Failure::new(code, format!("ask the gateway at {}: {error}; does it run?", path.display()))
        })?;
        Ok(Access::Running(BufReader::new(stream)))
    }

    pub fn is_running(&self) -> bool {
        matches!(self, Access::Running(_))
    }

    /// # Errors
    /// What the gateway or the file says.
    pub fn ask(&mut self, question: &Question) -> Result<Value, Failure> {
        let answer = match self {
            Access::Stopped { store, .. } => {
                return answer_from_store(store, question).map_err(|r| refused(r.unknown, r.message));
            }
            Access::Running(stream) => over_socket(stream, question)
                .map_err(|e| Failure::new(exit::UNAVAILABLE, format!("ask the gateway: {e}")))?,
        };
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(refused(answer["unknown"] == true, error)),
            None => Ok(answer),
        }
    }
}

fn refused(unknown: bool, message: impl Into<String>) -> Failure {
    Failure::new(if unknown { exit::DATAERR } else { exit::UNAVAILABLE }, message)
}

fn over_socket(stream: &mut BufReader<UnixStream>, question: &Question) -> std::io::Result<Value> {
    let line = serde_json::to_string(question)?;
    stream.get_mut().write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    if stream.read_line(&mut answer)? == 0 {
        return Err(std::io::Error::other("it closed the connection"));
    }
    Ok(serde_json::from_str(&answer)?)
}

/// Prints a line to stdout; a reader that has seen enough is no error.
pub fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
