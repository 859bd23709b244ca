//! Register maps: ready-made ones in this binary, and files of the user's.

use std::path::{Path, PathBuf};

use super::fields::Opt;
use super::file::ConfigFile;
use super::modbus::{limits, registers};
use super::modbus_file::{DeviceTable, MapTable};
use super::problem::{Cause, Findings, Place, Problems, SourceText, Texts, nearest, one_of};
use super::read_one;
use super::reader::At;
use super::resolve::Resolver;
use super::surroundings::{Machine, Surroundings};
use crate::intake::modbus::plan::Limits;
use crate::intake::modbus::register::Register;

/// Name, and what `config/modbus/` holds under it.
const READY: [(&str, &str); 4] = [
    ("abb-b23", include_str!("../../config/modbus/abb-b23.toml")),
    ("janitza-umg", include_str!("../../config/modbus/janitza-umg.toml")),
    ("sdm120", include_str!("../../config/modbus/sdm120.toml")),
    ("sdm630", include_str!("../../config/modbus/sdm630.toml")),
];

/// Every map that the configuration refers to.
#[derive(Debug, Default)]
pub struct Maps(Vec<(Named, MapTable)>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Ready(&'static str),
    File(PathBuf),
}

/// Reads them behind the configuration's own texts, so that what is wrong in a map is found with its place there.
pub fn read(file: &ConfigFile, texts: &mut Texts, found: &mut Findings, surroundings: &dyn Surroundings) -> Maps {
    let mut maps = Maps::default();
    let sources = file.source.0.as_ref().map(|at| &at.value.modbus.0).into_iter().flatten();
    for device in sources.flat_map(|source| &source.value.device.0) {
        maps.add(&device.value, texts, found, surroundings);
    }
    maps
}

/// The same for one device.
pub fn read_of(device: &DeviceTable, texts: &mut Texts, found: &mut Findings, surroundings: &dyn Surroundings) -> Maps {
    let mut maps = Maps::default();
    maps.add(device, texts, found, surroundings);
    maps
}

impl Maps {
    fn add(&mut self, device: &DeviceTable, texts: &mut Texts, found: &mut Findings, surroundings: &dyn Surroundings) {
        let Some(named) = named(device, texts).filter(|named| !self.0.iter().any(|(known, _)| known == named)) else {
            return;
        };
        if let Some(text) = text(&named, device, found, surroundings) {
            texts.0.push(text);
            let (map, _) = read_one(texts.0.len() - 1, texts, found, surroundings);
            self.0.push((named, map));
        }
    }

    pub fn of(&self, device: &DeviceTable, texts: &Texts) -> Option<&MapTable> {
        let wanted = named(device, texts)?;
        self.0.iter().find(|(known, _)| *known == wanted).map(|(_, map)| map)
    }
}

fn named(device: &DeviceTable, texts: &Texts) -> Option<Named> {
    if let Some(at) = device.map_file.get() {
        return Some(Named::File(texts.folder(at.place.file).join(&at.value)));
    }
    let name = device.map.value()?;
    READY.iter().find(|(known, _)| known == name).map(|(known, _)| Named::Ready(known))
}

fn text(
    named: &Named,
    device: &DeviceTable,
    found: &mut Findings,
    surroundings: &dyn Surroundings,
) -> Option<SourceText> {
    match named {
        Named::Ready(name) => {
            let (_, text) = READY.iter().find(|(known, _)| known == name)?;
            Some(SourceText {
                path: Path::new("config/modbus").join(name).with_extension("toml"),
                text: (*text).to_owned(),
            })
        }
        Named::File(path) => match surroundings.text_file(path) {
            Ok(text) => Some(SourceText { path: path.clone(), text }),
            Err(why) => {
                let help = "a relative path is looked up beside this file";
                found.error(device.map_file.place(), format!("`map_file`: {} {why}", path.display())).help(help);
                None
            }
        },
    }
}

/// The names of the ready-made ones.
pub fn names() -> impl Iterator<Item = &'static str> {
    READY.iter().map(|(name, _)| *name)
}

/// What is wrong with the references themselves.
pub fn check(device: &DeviceTable, found: &mut Findings) {
    if let (Some(first), Some(second)) = (device.map.place(), device.map_file.place()) {
        let finding = found.error(second, "both `map` and `map_file` are given");
        finding.note("the other is at", first).help("keep one of them; registers of your own come on top");
    }
    let Some(At { value: name, place }) = device.map.get() else { return };
    if !names().any(|ready| ready == name) {
        let help = match nearest(name, names()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("there is {}; `map_file` names a file of your own", one_of(names())),
        };
        found.error(*place, format!("there is no ready-made map {name:?}")).help(help);
    }
}

/// What a ready-made map (by its name) or a file (by its path) holds: for commands.
///
/// # Errors
/// Everything that is wrong with it, or that there is none.
pub fn load_map(name: &str, is_file: bool) -> Result<(Vec<Register>, Limits), Problems> {
    let place = Place { file: 0, start: 0, end: 0 };
    let given = Opt::Given(At { value: name.to_owned(), place });
    let device = match is_file {
        true => DeviceTable { map_file: given, ..DeviceTable::default() },
        false => DeviceTable { map: given, ..DeviceTable::default() },
    };
    let (mut texts, mut found) = (Texts::default(), Findings::default());
    let maps = read_of(&device, &mut texts, &mut found, &Machine);
    let mut r = Resolver { found, texts: &texts, surroundings: &Machine };
    check(&device, &mut r.found);
    let limits = limits(&device, maps.of(&device, &texts), &mut r);
    let device = At { value: device, place };
    let registers = registers(&device, maps.of(&device.value, &texts), limits, &mut r);
    if r.found.has_errors() {
        let (list, omitted) = r.found.into_problems(&texts);
        return Err(Problems {
            list,
            omitted,
            cause: Cause::Content,
            state_dir: PathBuf::new(),
            runtime_dir: PathBuf::new(),
        });
    }
    Ok((registers.into_iter().map(|placed| placed.register).collect(), limits))
}
