//! `forebay init`: a configuration to begin with, for a board or for any machine.

mod boards;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::ask::{Failure, print_line};
use super::exit;
use boards::{BOARDS, Board, Profile};

/// What every configuration begins with, and what the package installs.
const MINIMAL: &str = include_str!("../../../config/minimal.toml");

#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// Memory, spool and wear for this hardware; `list` shows the names.
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
    /// Take the place of a file that is there.
    #[arg(long)]
    force: bool,
}

pub fn run(path: &Path, args: &InitArgs) -> u8 {
    if args.board.as_deref() == Some("list") {
        BOARDS.iter().for_each(|board| print_line(&line(board)));
        return exit::OK;
    }
    match init(path, args) {
        Ok(()) => {
            print_line(&format!("{} is there. Say in it where your Kafka is, then: forebay check", path.display()));
            exit::OK
        }
        Err(failure) => failure.tell(),
    }
}

fn line(board: &Board) -> String {
    let title = board.profile().map_or_else(|error| error, |profile| profile.title);
    format!("{:<22} {title}", board.name)
}

fn init(path: &Path, args: &InitArgs) -> Result<(), Failure> {
    let text = match &args.board {
        None => MINIMAL.to_owned(),
        Some(name) => text_for(find(name)?).map_err(|error| Failure::new(exit::SOFTWARE, error))?,
    };
    write(path, &text, args.force).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            let message = format!("write {}: it is there; --force takes its place", path.display());
            return Failure::new(exit::CANTCREAT, message);
        }
        let code = if error.kind() == io::ErrorKind::PermissionDenied { exit::NOPERM } else { exit::CANTCREAT };
        Failure::new(code, format!("write {}: {error}; nothing has changed", path.display()))
    })
}

fn find(name: &str) -> Result<&'static Board, Failure> {
    Board::find(name).ok_or_else(|| {
        let known: Vec<String> = BOARDS.iter().map(|board| format!("  {}", line(board))).collect();
        Failure::new(exit::USAGE, format!("find a board named \"{name}\"; there are:\n{}", known.join("\n")))
    })
}

/// The whole configuration of a board.
fn text_for(board: &Board) -> Result<String, String> {
    let profile = board.profile()?;
    Ok(format!("{}\n{}\n{MINIMAL}{}", head(board, &profile), board.overlay, serial_lines(&profile)))
}

fn head(board: &Board, profile: &Profile) -> String {
    let root = if profile.read_only_root { "; everything but the state directory may be read-only" } else { "" };
    format!(
        "# For {}, by `forebay init --board {}`.\n# {} of memory at least; the spool lies on {}{root};\n# {}.\n\
         # Boxes of one image are told apart by the machine-id and by {}.\n# The build: {}.\n",
        profile.title,
        board.name,
        profile.memory,
        profile.storage.words(),
        profile.rtc.words(),
        profile.identity,
        profile.target,
    )
}

/// To be uncommented: most boxes use MQTT alone, and a port that nobody wired would only be noise in the log.
fn serial_lines(profile: &Profile) -> String {
    let port = |port: &boards::SerialPort| {
        format!(
            "\n# {}.\n# [[source.serial]]\n# name = \"{}\"\n# port = \"{}\"\n# baud = 9600\n",
            port.what,
            name_of(&port.port),
            port.port
        )
    };
    profile.serial.iter().map(port).collect()
}

fn name_of(port: &str) -> String {
    let last = port.rsplit('/').find(|part| part.chars().any(char::is_alphanumeric)).unwrap_or("line");
    last.to_ascii_lowercase()
}

/// Beside, then in its place: a full partition or a power cut leaves what was there. Readable for the group, because a
/// password may come to stand in it; in `/etc/forebay` that is the service's group.
fn write(path: &Path, text: &str, force: bool) -> io::Result<()> {
    if !force && path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let beside = PathBuf::from(format!("{}.new", path.display()));
    let written = write_new(&beside, text).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What could be written of it is of no use.
        let _ = fs::remove_file(&beside);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
