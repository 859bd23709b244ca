//! Text: columns and patterns. Pure.

use std::borrow::Cow;

use regex_lite::Regex;
use serde_json::{Map, Value};

use super::{DecodeError, Scaling};

/// How the bytes of a text are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    #[default]
    Utf8,
    Latin1,
}

impl Encoding {
    pub(super) fn read(self, bytes: &[u8]) -> Result<Cow<'_, str>, DecodeError> {
        match self {
            Encoding::Utf8 => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| DecodeError::NotUtf8),
            Encoding::Latin1 => Ok(bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into()),
        }
    }
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    #[default]
    Text,
    Int,
    Float,
    /// `1`, `true`, `on`, `yes` and their opposites.
    Bool,
    /// Left out.
    Skip,
}

/// A column, or a named group of a pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    pub unit: Option<String>,
    pub scaling: Scaling,
}

impl Column {
    fn value(&self, text: &str) -> Result<Value, DecodeError> {
        let text = text.trim();
        if text.is_empty() && self.kind != Kind::Text {
            return Ok(Value::Null);
        }
        let wrong = |kind| DecodeError::Value { field: self.name.clone(), kind };
        Ok(match self.kind {
            Kind::Text | Kind::Skip => Value::from(text),
            Kind::Int => self.scaling.int(text.parse::<i64>().map_err(|_| wrong("whole number"))?.into()),
            Kind::Float => {
                let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
                self.scaling.float(number.ok_or_else(|| wrong("number"))?)
            }
            Kind::Bool => Value::from(boolean(text).ok_or_else(|| wrong("truth value"))?),
        })
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "on" | "yes" => Some(true),
        "0" | "false" | "off" | "no" => Some(false),
        _ => None,
    }
}

pub(super) fn csv(line: &str, separator: u8, columns: &[Column]) -> Result<Map<String, Value>, DecodeError> {
    let cells = cells(line, char::from(separator));
    if cells.len() != columns.len() {
        return Err(DecodeError::Columns { found: cells.len(), wanted: columns.len() });
    }
    let wanted = columns.iter().zip(&cells).filter(|(column, _)| column.kind != Kind::Skip);
    wanted.map(|(column, cell)| Ok((column.name.clone(), column.value(cell)?))).collect()
}

/// The cells of a line. Within double quotes a separator is text and a doubled quote is one (RFC 4180).
fn cells(line: &str, separator: char) -> Vec<String> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' if quoted || cell.trim().is_empty() => quoted = !quoted,
            c if c == separator && !quoted => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    cells.push(cell);
    cells
}

pub(super) fn groups(line: &str, pattern: &Regex, columns: &[Column]) -> Result<Map<String, Value>, DecodeError> {
    let found = pattern.captures(line).ok_or(DecodeError::NoMatch)?;
    let mut fields = Map::new();
    for name in pattern.capture_names().flatten() {
        let text = found.name(name).map(|group| group.as_str());
        let column = columns.iter().find(|column| column.name == name);
        let value = match (text, column) {
            (None, _) => Value::Null,
            (_, Some(column)) if column.kind == Kind::Skip => continue,
            (Some(text), Some(column)) => column.value(text)?,
            (Some(text), None) => Value::from(text),
        };
        fields.insert(name.to_owned(), value);
    }
    Ok(fields)
}
