//! Reads parsed TOML into plain structs and goes on after every mistake.
//!
//! Serde's derived code stops at the first unknown key or wrong type. Here each struct says its keys once, in the
//! `table!` macro, and each key says its type; reading fills in what is right and reports everything else with its
//! place. Only pure work: the environment is asked through [`Surroundings`].

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::model::Secret;
use super::problem::{Finding, Findings, Place, Texts, nearest, one_of};
use super::surroundings::Surroundings;
use super::units;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct At<T> {
    pub value: T,
    pub place: Place,
}

pub type Node<'d> = &'d Spanned<DeValue<'d>>;

/// A key as it stands in the file.
pub struct Key<'d> {
    pub name: &'d str,
    pub place: Place,
}

/// What reading one file needs at hand.
pub struct Reader<'a> {
    pub file: usize,
    pub texts: &'a Texts,
    pub surroundings: &'a dyn Surroundings,
    pub found: &'a mut Findings,
}

impl Reader<'_> {
    pub fn place(&self, span: Range<usize>) -> Place {
        Place { file: self.file, start: span.start, end: span.end }
    }

    fn key<'d>(&self, key: &'d Spanned<DeString<'_>>) -> Key<'d> {
        Key { name: key.get_ref(), place: self.place(key.span()) }
    }

    /// The entries of a table in the order of the file.
    fn entries<'d>(&mut self, name: &str, node: Node<'d>) -> Option<Vec<(Key<'d>, Node<'d>)>> {
        let DeValue::Table(table) = node.get_ref() else {
            self.wrong_type(name, node, "a table").help(format!("write [{name}] above its keys"));
            return None;
        };
        Some(table.iter().map(|(key, value)| (self.key(key), value)).collect())
    }

    fn wrong_type(&mut self, name: &str, node: Node<'_>, expected: &str) -> &mut Finding {
        let place = self.place(node.span());
        self.found.error(place, format!("`{name}` must be {expected}, not {}", kind_of(node)))
    }

    fn unknown(&mut self, key: &Key<'_>, known: &'static [&'static str]) {
        let finding = self.found.error(key.place, format!("unknown key `{}`", key.name));
        match nearest(key.name, known.iter().copied()) {
            Some(name) => finding.help(format!("did you mean `{name}`?")),
            None => finding.help(format!("known here: {}", known.join(", "))),
        };
    }

    /// A string with its `${VAR}` references replaced.
    fn text(&mut self, name: &str, node: Node<'_>) -> Option<String> {
        match node.get_ref() {
            DeValue::String(text) => self.expand(text, self.place(node.span())),
            _ => {
                self.wrong_type(name, node, "a string").help(format!("put it in quotes: {name} = \"...\""));
                None
            }
        }
    }

    fn expand(&mut self, text: &str, place: Place) -> Option<String> {
        let mut expanded = String::with_capacity(text.len());
        let (mut at, mut complete) = (0, true);
        while let Some(reference) = next_reference(text, at) {
            expanded.push_str(&text[at..reference.whole.start]);
            at = reference.whole.end;
            match self.replacement(text, &reference) {
                Ok(value) => expanded.push_str(&value),
                Err((message, help)) => {
                    let inner = self.texts.inside(place, text, &reference.whole);
                    self.found.error(inner, message).help(help);
                    complete = false;
                }
            }
        }
        expanded.push_str(&text[at..]);
        complete.then_some(expanded)
    }

    fn replacement(&self, text: &str, reference: &Reference) -> Result<String, (String, String)> {
        let Some(name) = &reference.name else { return Ok("${".to_owned()) };
        let name = &text[name.clone()];
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let help = "write ${NAME} with letters, digits and `_`, or $${ for a plain ${";
            return Err((format!("malformed reference to an environment variable: {name:?}"), help.to_owned()));
        }
        self.surroundings.variable(name).ok_or_else(|| {
            let help = format!("set {name}, for instance by Environment= or EnvironmentFile= in the systemd unit");
            (format!("the environment variable `{name}` is not set"), help)
        })
    }
}

struct Reference {
    whole: Range<usize>,
    /// `None`: the escape `$${`.
    name: Option<Range<usize>>,
}

fn next_reference(text: &str, from: usize) -> Option<Reference> {
    let at = from + text[from..].find("${")?;
    if at > from && text.as_bytes()[at - 1] == b'$' {
        return Some(Reference { whole: at - 1..at + 2, name: None });
    }
    let end = text[at..].find('}').map_or(text.len(), |close| at + close);
    Some(Reference { whole: at..(end + 1).min(text.len()), name: Some(at + 2..end) })
}

fn kind_of(node: Node<'_>) -> String {
    match node.get_ref() {
        DeValue::String(_) => "a string".to_owned(),
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(flag) => format!("{flag}"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A struct with a fixed set of keys. Made by `table!`.
pub trait Table: Default {
    const KEYS: &'static [&'static str];
    fn read_key(&mut self, key: &Key<'_>, node: Node<'_>, reader: &mut Reader<'_>) -> bool;
    /// Adds what a later file says. Lists grow; a key given twice is reported with both places.
    fn merge(&mut self, later: Self, found: &mut Findings);
    /// Every key below this table as a dotted path, for the test of the reference file.
    fn paths(prefix: &str, out: &mut Vec<String>);

    fn read_table(&mut self, name: &str, node: Node<'_>, reader: &mut Reader<'_>) {
        for (key, value) in reader.entries(name, node).unwrap_or_default() {
            if !self.read_key(&key, value, reader) {
                reader.unknown(&key, Self::KEYS);
            }
        }
    }
}

/// What may stand behind a key.
pub trait Field: Default {
    fn read(&mut self, key: &Key<'_>, node: Node<'_>, reader: &mut Reader<'_>);
    fn merge(&mut self, later: Self, name: &str, found: &mut Findings);
    fn paths(path: &str, out: &mut Vec<String>) {
        out.push(path.to_owned());
    }
}

macro_rules! table {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$about:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $name { $($(#[$about])* pub $field: $kind,)* }

        impl Table for $name {
            const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];
            fn read_key(&mut self, key: &Key<'_>, node: Node<'_>, reader: &mut Reader<'_>) -> bool {
                match key.name {
                    $(stringify!($field) => Field::read(&mut self.$field, key, node, reader),)*
                    _ => return false,
                }
                true
            }
            fn merge(&mut self, later: Self, found: &mut Findings) {
                $(Field::merge(&mut self.$field, later.$field, stringify!($field), found);)*
            }
            fn paths(prefix: &str, out: &mut Vec<String>) {
                $(<$kind as Field>::paths(&format!("{prefix}{}", stringify!($field)), out);)*
            }
        }
    };
}
pub(super) use table;

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
            let help = format!("write [[{}]] with two brackets above each", key.name);
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
        for (name, inner) in reader.entries(key.name, node).unwrap_or_default() {
            let full = format!("{}.{}", key.name, name.name);
            if !matches!(inner.get_ref(), DeValue::Table(_)) {
                let help = format!("`{0}` holds named tables: write [{0}.NAME] above the keys", key.name);
                reader.wrong_type(&full, inner, "a table").help(help);
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

    fn paths(path: &str, out: &mut Vec<String>) {
        T::paths(&format!("{path}.NAME."), out);
    }
}

/// A table whose keys are free: headers, properties. Numbers and booleans are taken as their text.
#[derive(Debug, Default)]
pub struct Pairs(pub Vec<(At<String>, At<String>)>);

impl Field for Pairs {
    fn read(&mut self, key: &Key<'_>, node: Node<'_>, reader: &mut Reader<'_>) {
        for (name, inner) in reader.entries(key.name, node).unwrap_or_default() {
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

/// A value that is no table.
pub trait Scalar: Sized {
    fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self>;
}

impl Scalar for String {
    fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.text(name, node)
    }
}

impl Scalar for Secret {
    fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.text(name, node).map(Secret::new)
    }
}

impl Scalar for bool {
    fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if let DeValue::Boolean(flag) = node.get_ref() {
            return Some(*flag);
        }
        reader.wrong_type(name, node, "true or false").help("without quotes");
        None
    }
}

impl Scalar for i64 {
    fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Integer(number) = node.get_ref() else {
            reader.wrong_type(name, node, "a whole number").help(format!("without quotes: {name} = 1"));
            return None;
        };
        let parsed = i64::from_str_radix(number.as_str(), number.radix());
        if parsed.is_err() {
            let place = reader.place(node.span());
            reader.found.error(place, format!("`{name}` is too large: {}", number.as_str()));
        }
        parsed.ok()
    }
}

/// Bytes, from `"32MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// Bytes a second, from `"1MiB/s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRate(pub u64);

impl Scalar for Duration {
    fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        with_unit(name, node, reader, units::duration, units::DURATION_HELP)
    }
}

impl Scalar for ByteSize {
    fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        with_unit(name, node, reader, units::size, units::SIZE_HELP).map(ByteSize)
    }
}

impl Scalar for ByteRate {
    fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        with_unit(name, node, reader, units::rate, units::RATE_HELP).map(ByteRate)
    }
}

fn with_unit<T>(
    name: &str,
    node: Node<'_>,
    reader: &mut Reader<'_>,
    parse: fn(&str) -> Result<T, String>,
    help: &str,
) -> Option<T> {
    if matches!(node.get_ref(), DeValue::Integer(_) | DeValue::Float(_)) {
        let place = reader.place(node.span());
        reader.found.error(place, format!("`{name}` is a bare number: its unit is missing")).help(help);
        return None;
    }
    let text = reader.text(name, node)?;
    parse(&text)
        .map_err(|error| {
            let place = reader.place(node.span());
            reader.found.error(place, format!("`{name}` {error}")).help(help);
        })
        .ok()
}

/// `["a", "b"]`.
impl Scalar for Vec<At<String>> {
    fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Array(items) = node.get_ref() else {
            reader.wrong_type(name, node, "a list of strings").help(format!("{name} = [\"...\", \"...\"]"));
            return None;
        };
        let read = |item| Some(At { value: reader.text(name, item)?, place: reader.place(item.span()) });
        items.iter().map(read).collect()
    }
}

/// `"a"` or `["a", "b"]`.
#[derive(Debug, Clone, Default)]
pub struct OneOrMany(pub Vec<At<String>>);

impl Scalar for OneOrMany {
    fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if matches!(node.get_ref(), DeValue::Array(_)) {
            return Scalar::read(name, node, reader).map(OneOrMany);
        }
        let value = reader.text(name, node)?;
        Some(OneOrMany(vec![At { value, place: reader.place(node.span()) }]))
    }
}

/// One of a fixed set of words.
pub fn word<T: Copy>(name: &str, node: Node<'_>, reader: &mut Reader<'_>, words: &[(&str, T)]) -> Option<T> {
    let text = reader.text(name, node)?;
    let known = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if known.is_none() {
        let place = reader.place(node.span());
        let help = format!("`{name}` is {}", one_of(words.iter().map(|(word, _)| *word)));
        reader.found.error(place, format!("unknown value {text:?} for `{name}`")).help(help);
    }
    known
}

macro_rules! words {
    ($kind:ty { $($word:literal => $value:expr),+ $(,)? }) => {
        impl Scalar for $kind {
            fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
                word(name, node, reader, &[$(($word, $value)),+])
            }
        }
    };
}
pub(super) use words;
