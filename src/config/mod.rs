//! Configuration: files in, one resolved [`Config`] out, or every problem at once with its place.
//!
//! The way: `files` reads, `reader` turns TOML into the plain structs of `file`, `resolve` and its parts make the
//! [`Config`] of `model`. What is wrong is collected on the whole way and rendered by `problem`. Nothing here opens a
//! connection, and nothing here stops at the first mistake.

mod budget;
mod clusters;
mod fields;
mod file;
mod files;
pub mod identity;
mod lanes;
mod last_good;
mod lines;
mod listener;
mod listener_model;
mod modbus;
mod modbus_file;
mod modbus_map;
mod modbus_model;
mod modbus_register;
mod model;
mod problem;
mod properties;
mod rank;
mod reader;
mod report;
mod resolve;
mod routes;
mod scalars;
mod serial;
mod serial_file;
mod serial_frame;
mod serial_model;
mod sources;
mod surroundings;
mod topics;
pub mod units;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use lanes::DEFAULT as DEFAULT_LANE;
pub use last_good::{LastGoodError, load_last_good, save_last_good};
pub use listener_model::*;
pub use modbus::address as modbus_address;
pub use modbus_map::load_map;
pub use modbus_map::names as map_names;
pub use modbus_model::*;
pub use model::*;
pub use problem::{Cause, Problem, Problems, Severity, Spot};
pub use rank::{Rank, parts};
pub use serial_model::*;
pub use surroundings::Surroundings;

use file::ConfigFile;
use problem::{Findings, Place, SourceText, Texts};
use reader::{Reader, Table};
use resolve::{RUNTIME_DIR, Resolver, STATE_DIR};
use surroundings::Machine;

/// Where the package installs the configuration.
pub const DEFAULT_PATH: &str = "/etc/forebay/gateway.toml";

/// A configuration without errors.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// What is legal but unwise.
    pub warnings: Vec<Problem>,
    texts: Texts,
}

/// Loads `path` and `conf.d/*.toml` beside it.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let mut found = Findings::default();
    let (texts, cause) = files::read(path, &mut found);
    read_and_resolve(texts, found, cause, &Machine)
}

/// Loads a text as if it were the file `name`, without `conf.d`.
///
/// # Errors
/// As [`load`].
pub fn parse_str(name: &str, text: &str) -> Result<Loaded, Problems> {
    resolve_texts(Texts(vec![SourceText { path: PathBuf::from(name), text: text.to_owned() }]))
}

/// The same in surroundings of the caller's.
///
/// # Errors
/// As [`load`].
pub fn parse_str_in(name: &str, text: &str, surroundings: &dyn Surroundings) -> Result<Loaded, Problems> {
    let texts = Texts(vec![SourceText { path: PathBuf::from(name), text: text.to_owned() }]);
    read_and_resolve(texts, Findings::default(), Cause::Content, surroundings)
}

fn resolve_texts(texts: Texts) -> Result<Loaded, Problems> {
    read_and_resolve(texts, Findings::default(), Cause::Content, &Machine)
}

fn read_and_resolve(
    mut texts: Texts,
    mut found: Findings,
    cause: Cause,
    surroundings: &dyn Surroundings,
) -> Result<Loaded, Problems> {
    let unreadable = found.has_errors();
    let (file, whole) = read_files(&texts, &mut found, surroundings);
    let folders = Folders::of(&file);
    if unreadable || !whole {
        // What could not be read would be missed everywhere: only what was found so far is true.
        return Err(problems(found, &texts, cause, folders));
    }
    let own = texts.0.len();
    let maps = modbus_map::read(&file, &mut texts, &mut found, surroundings);
    let (config, found) = resolve::resolve(file, &maps, Resolver { found, texts: &texts, surroundings });
    if found.has_errors() {
        return Err(problems(found, &texts, cause, folders));
    }
    let (warnings, _) = found.into_problems(&texts);
    // A register map belongs to what refers to it: it is no part of the configuration's own text.
    texts.0.truncate(own);
    Ok(Loaded { config, warnings, texts })
}

/// Where a wrong configuration, as far as it could be read, says that things are.
struct Folders {
    state: PathBuf,
    runtime: PathBuf,
}

impl Folders {
    fn of(file: &ConfigFile) -> Self {
        let table = file.gateway.0.as_ref().map(|at| &at.value);
        let state = table.and_then(|table| table.state_dir.value().cloned());
        let runtime = table.and_then(|table| table.runtime_dir.value().cloned());
        Folders {
            state: state.map_or_else(|| STATE_DIR.into(), PathBuf::from),
            runtime: runtime.map_or_else(|| RUNTIME_DIR.into(), PathBuf::from),
        }
    }
}

fn problems(found: Findings, texts: &Texts, cause: Cause, folders: Folders) -> Problems {
    let (list, omitted) = found.into_problems(texts);
    Problems { list, omitted, cause, state_dir: folders.state, runtime_dir: folders.runtime }
}

/// The merged structs, and whether all files could be parsed.
fn read_files(texts: &Texts, found: &mut Findings, surroundings: &dyn Surroundings) -> (ConfigFile, bool) {
    let (mut merged, mut whole) = (ConfigFile::default(), true);
    for file in 0..texts.0.len() {
        let (one, complete) = read_one(file, texts, found, surroundings);
        whole &= complete;
        merged.merge(one, found);
    }
    (merged, whole)
}

/// One text as a struct, and whether it could be parsed.
fn read_one<T: Table>(file: usize, texts: &Texts, found: &mut Findings, surroundings: &dyn Surroundings) -> (T, bool) {
    let (table, mistakes) = DeTable::parse_recoverable(&texts.0[file].text);
    let place = |mistake: &toml::de::Error| {
        let span = mistake.span().unwrap_or(0..0);
        Place { file, start: span.start, end: span.end }
    };
    let mut broken: Vec<Place> = mistakes.iter().map(place).collect();
    let bad_bytes: Vec<Place> = found.places_in(file).collect();
    for (mistake, place) in mistakes.iter().zip(&broken) {
        report_syntax(mistake.message(), *place, texts, found);
    }
    broken.extend(bad_bytes);
    // A key given twice leaves the rest of the file as it was meant.
    let complete = mistakes.iter().all(|mistake| mistake.message().contains("duplicate key"));
    let before = found.len();
    let mut one = T::default();
    let node = as_node(table);
    one.read_table("", &node, &mut Reader { file, texts, surroundings, found });
    found.forget_lines(texts, &broken, before);
    (one, complete)
}

fn as_node(table: Spanned<DeTable<'_>>) -> Spanned<DeValue<'_>> {
    let span = table.span();
    Spanned::new(span, DeValue::Table(table.into_inner()))
}

fn report_syntax(message: &str, place: Place, texts: &Texts, found: &mut Findings) {
    if message.contains("duplicate key") {
        found.error(place, "this key is given twice").help("keep one of them");
    } else if is_unquoted(message, texts.slice(place)) {
        // The parser takes `key =` and `key = info` for a broken date or number.
        let missing = texts.slice(place).trim().is_empty();
        let said = if missing { "the value behind `=` is missing" } else { "a string must stand in quotes" };
        found.error(place, said).help("write key = \"value\"");
    } else {
        // A parser may spread its message over lines; a finding is one line.
        found.error(place, message.lines().collect::<Vec<_>>().join(", "));
    }
}

fn is_unquoted(message: &str, text: &str) -> bool {
    message.starts_with("string values must be quoted")
        || message.starts_with("invalid") && text.starts_with(|c: char| c.is_ascii_alphabetic())
}
