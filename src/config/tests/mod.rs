//! What a person sees of a configuration: every kind of mistake with its message, every warning, and the reference.

#![expect(clippy::unwrap_used, reason = "tests")]

mod listener;
mod loading;
mod mistakes;
mod modbus;
mod parts;
mod reference;
mod serial;
mod wisdom;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::problem::{Cause, Findings, SourceText, Texts};
use super::surroundings::{Machine, Surroundings};
use super::{Loaded, Problems, read_and_resolve};

/// A world that is the same on every machine.
#[derive(Default)]
pub struct World {
    pub variables: BTreeMap<&'static str, &'static str>,
    pub files: BTreeMap<&'static str, &'static str>,
}

impl Surroundings for World {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| (*value).to_owned())
    }

    fn secret_file(&self, path: &Path) -> Result<String, String> {
        let found = self.files.get(path.to_str().unwrap());
        found.map(|text| (*text).to_owned()).ok_or_else(|| "does not exist".to_owned())
    }

    fn text_file(&self, path: &Path) -> Result<String, String> {
        self.secret_file(path)
    }

    fn readable(&self, path: &Path) -> Result<(), String> {
        self.secret_file(path).map(|_| ())
    }

    fn gateway_name(&self) -> String {
        "fb-0123456789ab".to_owned()
    }

    fn kafka_property(&self, name: &str, value: &str) -> Result<(), String> {
        Machine.kafka_property(name, value)
    }
}

/// The smallest configuration without an error; tests put their own tables behind it.
pub const LEAST: &str = r#"
[kafka.main]
bootstrap_servers = "localhost:9092"

[[source.mqtt]]
host = "localhost"

[[route]]
filter = "plant/{line}/{device}/telemetry"
kafka_topic = "telemetry"

[[topic]]
name = "telemetry"
replication_factor = 3
min_insync_replicas = 2
"#;

pub fn parse(text: &str) -> Result<Loaded, Problems> {
    parse_in(&World::default(), &[("gateway.toml", text)])
}

pub fn parse_in(world: &World, files: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let text = |(path, text): &(&str, &str)| SourceText { path: PathBuf::from(path), text: (*text).to_owned() };
    let texts = Texts(files.iter().map(text).collect());
    read_and_resolve(texts, Findings::default(), Cause::Content, world)
}

/// The report of a configuration that must be wrong.
pub fn report(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// The report of `LEAST` with something behind it.
pub fn report_with(text: &str) -> String {
    report(&format!("{LEAST}{text}"))
}

/// The warnings of `LEAST` with something behind it.
pub fn warnings_with(text: &str) -> String {
    warnings(&format!("{LEAST}{text}"))
}

pub fn warnings(text: &str) -> String {
    let loaded = parse(text).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.warnings.iter().map(ToString::to_string).collect()
}
