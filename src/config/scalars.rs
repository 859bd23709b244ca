//! Values that are no tables: strings, numbers, sizes with units, words of a fixed set.

use std::time::Duration;

use toml::de::DeValue;

use super::model::Secret;
use super::problem::one_of;
use super::reader::{At, Node, Reader};
use super::units;

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
