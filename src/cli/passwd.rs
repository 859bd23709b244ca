//! `forebay passwd`: the users of a listener and their passwords. A running gateway sees the change by itself.

mod file;

#[cfg(test)]
mod tests;

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::ask::{Failure, print_line};
use super::exit;
use crate::intake::listener::access::passwords::{self, Users};

/// Longer than any CONNECT that the listener takes by default.
const PASSWORD_BYTES_MAX: u64 = 4 << 10;

#[derive(Debug, clap::Args)]
pub struct PasswdArgs {
    /// The listener's `password_file`. Made with mode 0640 where it does not exist.
    file: PathBuf,
    /// Whose password to set: asked for at the terminal, else one line of stdin.
    #[arg(required_unless_present = "list")]
    user: Option<String>,
    /// Take the user out of the file.
    #[arg(long)]
    delete: bool,
    /// Print the users, one a line.
    #[arg(long, conflicts_with_all = ["delete", "user"])]
    list: bool,
}

pub fn run(args: &PasswdArgs) -> u8 {
    let done = match &args.user {
        None => list(&args.file),
        Some(user) if args.delete => delete(&args.file, user),
        Some(user) => set(&args.file, user, || ask(user)),
    };
    done.map_or_else(|failure| failure.tell(), |()| exit::OK)
}

fn set(path: &Path, user: &str, ask: impl FnOnce() -> Result<Vec<u8>, Failure>) -> Result<(), Failure> {
    passwords::check_user(user).map_err(|reason| Failure::new(exit::DATAERR, format!("set a password: {reason}")))?;
    let hash = passwords::hash(&ask()?).map_err(|reason| Failure::new(exit::OSERR, reason))?;
    file::change(path, true, |text| Some(with_line(text, user, Some(&format!("{user}:{hash}")))))
}

fn delete(path: &Path, user: &str) -> Result<(), Failure> {
    let is_there = |text: &str| text.lines().any(|line| passwords::user_of(line) == Some(user));
    let mut found = false;
    file::change(path, false, |text| {
        found = is_there(text);
        found.then(|| with_line(text, user, None))
    })?;
    if found {
        return Ok(());
    }
    Err(Failure::new(exit::DATAERR, format!("delete the user {user:?}: {} has none of that name", path.display())))
}

fn list(path: &Path) -> Result<(), Failure> {
    let text = file::read(path)?;
    let users = Users::parse(&text);
    for (line, reason) in &users.skipped {
        eprintln!("{}, line {line}: {reason}", path.display());
    }
    let mut seen: Vec<&str> = text.lines().filter_map(passwords::user_of).collect();
    seen.retain(|user| users.hash_of(user).is_some());
    seen.into_iter().for_each(print_line);
    Ok(())
}

/// `text` with `line` in place of the user's lines, at the place of the first; else at the end. Everything else stays as
/// it is.
fn with_line(text: &str, user: &str, line: Option<&str>) -> String {
    let mut new = line.map(|line| format!("{line}\n"));
    let mut out = String::with_capacity(text.len() + 128);
    // With their ends: an editor's carriage returns are not ours to take away.
    for old in text.split_inclusive('\n') {
        if old.lines().next().and_then(passwords::user_of) == Some(user) {
            out.extend(new.take());
        } else {
            out.push_str(old);
        }
    }
    if !(out.is_empty() || out.ends_with('\n')) {
        out.push('\n');
    }
    out.extend(new);
    out
}

fn ask(user: &str) -> Result<Vec<u8>, Failure> {
    let stdin = io::stdin();
    let password = if stdin.is_terminal() {
        let first = ask_unseen(&format!("Password for {user}: "))?;
        if ask_unseen("Once more: ")? != first {
            return Err(Failure::new(exit::DATAERR, "set a password: the two are not the same"));
        }
        first
    } else {
        read_line(&mut stdin.lock())?
    };
    if password.is_empty() {
        return Err(Failure::new(exit::DATAERR, "set a password: it is empty"));
    }
    Ok(password)
}

/// Asks at the terminal, which does not show the answer.
fn ask_unseen(prompt: &str) -> Result<Vec<u8>, Failure> {
    let fault = |error: rustix::io::Errno| Failure::new(exit::OSERR, format!("hide what is typed: {error}"));
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).map_err(fault)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL);
    // A prompt that cannot be shown is no reason to give up.
    let _ = write!(io::stderr(), "{prompt}");
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(fault)?;
    let answer = read_line(&mut stdin.lock());
    tcsetattr(&stdin, OptionalActions::Now, &before).map_err(fault)?;
    answer
}

/// One line without its end.
fn read_line(input: &mut impl BufRead) -> Result<Vec<u8>, Failure> {
    let mut line = Vec::new();
    let read = input.take(PASSWORD_BYTES_MAX + 2).read_until(b'\n', &mut line);
    read.map_err(|error| Failure::new(exit::IOERR, format!("read the password: {error}")))?;
    if line.last() == Some(&b'\n') {
        line.pop();
        line.pop_if(|byte| *byte == b'\r');
    }
    if line.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(Failure::new(exit::DATAERR, "set a password: it is longer than 4096 bytes"));
    }
    Ok(line)
}
