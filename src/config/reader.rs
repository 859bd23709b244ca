//! Reads parsed TOML into plain structs and goes on after every mistake.
//!
//! Serde's derived code stops at the first unknown key or wrong type. Here each struct says its keys once, in the
//! `table!` macro, and each key says its type; reading fills in what is right and reports everything else with its
//! place. Only pure work: the environment is asked through [`Surroundings`].

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::problem::{Finding, Findings, Place, Texts, nearest};
use super::surroundings::Surroundings;

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
    pub fn entries<'d>(&mut self, name: &str, node: Node<'d>, help: &str) -> Option<Vec<(Key<'d>, Node<'d>)>> {
        let DeValue::Table(table) = node.get_ref() else {
            self.wrong_type(name, node, "a table").help(help);
            return None;
        };
        Some(table.iter().map(|(key, value)| (self.key(key), value)).collect())
    }

    pub fn wrong_type(&mut self, name: &str, node: Node<'_>, expected: &str) -> &mut Finding {
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
    pub fn text(&mut self, name: &str, node: Node<'_>) -> Option<String> {
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
    #[cfg(test)]
    fn paths(prefix: &str, out: &mut Vec<String>);

    fn read_table(&mut self, name: &str, node: Node<'_>, reader: &mut Reader<'_>) {
        for (key, value) in reader.entries(name, node, "write its name in brackets above its keys").unwrap_or_default()
        {
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
    #[cfg(test)]
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
            #[cfg(test)]
            fn paths(prefix: &str, out: &mut Vec<String>) {
                $(<$kind as Field>::paths(&format!("{prefix}{}", stringify!($field)), out);)*
            }
        }
    };
}
pub(super) use table;
