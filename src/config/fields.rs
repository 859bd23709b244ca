//! What may stand behind a key: one value, a table, a list of tables, tables with names, free pairs.
//!
//! Each kind reads itself and adds what a later file says; none of them knows a key by name.

use toml::de::DeValue;

use super::problem::{Findings, Place};
use super::reader::{At, Field, Key, Node, Reader, Table};
use super::scalars::Scalar;

/// A key with one value.
#[derive(Debug, Default)]
pub enum Opt<T> {
    #[default]
    Absent,
    /// Given, but wrong and already reported: asking for it again would only add noise.
    Broken(Place),
    Given(At<T>),
}

impl<T> Opt<T> {
    pub fn get(&self) -> Option<&At<T>> {
        if let Opt::Given(at) = self { Some(at) } else { None }
    }

    pub fn place(&self) -> Option<Place> {
        match self {
            Opt::Absent => None,
            Opt::Broken(place) => Some(*place),
            Opt::Given(at) => Some(at.place),
        }
    }

    pub fn value(&self) -> Option<&T> {
        self.get().map(|at| &at.value)
    }
}

impl<T: Clone> Opt<T> {
    pub fn or(&self, default: T) -> T {
        self.value().cloned().unwrap_or(default)
    }
}

impl<T: Scalar> Field for Opt<T> {
    fn read(&mut self, key: &Key<'_>, node: Node<'_>, reader: &mut Reader<'_>) {
        let place = reader.place(node.span());
        *self = T::read(key.name, node, reader).map_or(Opt::Broken(place), |value| Opt::Given(At { value, place }));
    }

    fn merge(&mut self, later: Self, name: &str, found: &mut Findings) {
        match (self.place(), later.place()) {
            (Some(first), Some(second)) => twice(name, first, second, found),
            (None, _) => *self = later,
            (Some(_), None) => {}
        }
    }
}

fn twice(name: &str, first: Place, second: Place, found: &mut Findings) {
    let finding = found.error(second, format!("`{name}` is given twice"));
    finding.note("it is already given at", first).help("keep it in one file only: no file overrides another");
}

/// `[name]`, or `name = { ... }`.
#[derive(Debug)]
pub struct Section<T>(pub Option<At<T>>);

impl<T> Default for Section<T> {
    fn default() -> Self {
        Section(None)
    }
}

impl<T: Table> Section<T> {
    /// The table, or an empty one where every key has its default.
    pub fn take(&mut self) -> T {
        self.0.take().map(|at| at.value).unwrap_or_default()
    }
}

impl<T: Table> Field for Section<T> {
    fn read(&mut self, key: &Key<'_>, node: Node<'_>, reader: &mut Reader<'_>) {
        let mut value = T::default();
        value.read_table(key.name, node, reader);
        self.0 = Some(At { value, place: key.place });
    }

    fn merge(&mut self, later: Self, _name: &str, found: &mut Findings) {
        match (&mut self.0, later.0) {
            (Some(first), Some(second)) => first.value.merge(second.value, found),
            (first @ None, second) => *first = second,
            (Some(_), None) => {}
        }
    }

    #[cfg(test)]
    fn paths(path: &str, out: &mut Vec<String>) {
        T::paths(&format!("{path}."), out);
    }
}

/// `[[name]]`: any number of tables.
#[derive(Debug)]
pub struct List<T>(pub Vec<At<T>>);

impl<T> Default for List<T> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<T: Table> Field for List<T> {
    fn read(&mut self, key: &Key<'_>, node: Node<'_>, reader: &mut Reader<'_>) {
        let DeValue::Array(items) = node.get_ref() else {
            let help = "write its name in two brackets above each table: [[...]]";
            reader.wrong_type(key.name, node, "a list of tables").help(help);
            return;
        };
        for item in items.iter() {
            let mut value = T::default();
            value.read_table(key.name, item, reader);
            self.0.push(At { value, place: reader.place(item.span()) });
        }
    }

    fn merge(&mut self, later: Self, _name: &str, _found: &mut Findings) {
        self.0.extend(later.0);
    }

    #[cfg(test)]
    fn paths(path: &str, out: &mut Vec<String>) {
        T::paths(&format!("{path}."), out);
    }
}

/// `[key.NAME]`: tables with a name of the user's choice.
#[derive(Debug)]
pub struct Named<T>(pub Vec<(At<String>, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<T: Table> Field for Named<T> {
    fn read(&mut self, key: &Key<'_>, node: Node<'_>, reader: &mut Reader<'_>) {
        let help = format!("`{0}` holds named tables: write [{0}.NAME] above the keys", key.name);
        for (name, inner) in reader.entries(key.name, node, &help).unwrap_or_default() {
            let full = format!("{}.{}", key.name, name.name);
            if !matches!(inner.get_ref(), DeValue::Table(_)) {
                reader.wrong_type(&full, inner, "a table").help(help.as_str());
                continue;
            }
            let mut value = T::default();
            value.read_table(&full, inner, reader);
            self.0.push((At { value: name.name.to_owned(), place: name.place }, value));
        }
    }

    fn merge(&mut self, later: Self, _name: &str, found: &mut Findings) {
        for (name, table) in later.0 {
            match self.0.iter_mut().find(|(known, _)| known.value == name.value) {
                Some((_, known)) => known.merge(table, found),
                None => self.0.push((name, table)),
            }
        }
    }

    #[cfg(test)]
    fn paths(path: &str, out: &mut Vec<String>) {
        T::paths(&format!("{path}.NAME."), out);
    }
}

/// A table whose keys are free: headers, properties. Numbers and booleans are taken as their text.
#[derive(Debug, Default)]
pub struct Pairs(pub Vec<(At<String>, At<String>)>);

impl Field for Pairs {
    fn read(&mut self, key: &Key<'_>, node: Node<'_>, reader: &mut Reader<'_>) {
        let help = format!("{} = {{ \"name\" = \"value\" }}", key.name);
        for (name, inner) in reader.entries(key.name, node, &help).unwrap_or_default() {
            let value = match inner.get_ref() {
                DeValue::Integer(number) => Some(number.as_str().to_owned()),
                DeValue::Float(number) => Some(number.as_str().to_owned()),
                DeValue::Boolean(flag) => Some(flag.to_string()),
                DeValue::Table(_) => {
                    let help = format!("put a name with dots in quotes: \"{}.…\" = ...", name.name);
                    reader.wrong_type(name.name, inner, "a string").help(help);
                    None
                }
                _ => reader.text(name.name, inner),
            };
            let Some(value) = value else { continue };
            let value = At { value, place: reader.place(inner.span()) };
            self.0.push((At { value: name.name.to_owned(), place: name.place }, value));
        }
    }

    fn merge(&mut self, later: Self, _name: &str, found: &mut Findings) {
        for (name, value) in later.0 {
            match self.0.iter().find(|(known, _)| known.value == name.value) {
                Some((known, _)) => twice(&name.value, known.place, name.place, found),
                None => self.0.push((name, value)),
            }
        }
    }
}
