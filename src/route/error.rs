//! The errors of this stage: what a person wrote wrong in a filter or template, and why a reading became no record.

use std::ops::Range;

use super::json::JsonError;
use super::kafka_name::NameError;
use super::timestamp::TimestampError;

/// A mistake in a filter, template or pointer, with its place, so that a caret can point at it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// Bytes of the parsed text.
    pub at: Range<usize>,
    pub message: String,
    /// The way out.
    pub help: Option<String>,
}

impl ParseError {
    pub(super) fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        ParseError { at, message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same mistake, seen from the text that holds this one from byte `start` on.
    pub(super) fn shifted(mut self, start: usize) -> Self {
        self.at = self.at.start + start..self.at.end + start;
        self
    }
}

/// Why no router can be made of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouterError {
    #[error("compile `{field}` of route \"{route}\": {error}")]
    Route {
        /// Name of the route; `unmatched` for the rule of last resort.
        route: String,
        /// The key of the `[[route]]` table.
        field: String,
        error: ParseError,
    },
    #[error("compile the topic policy pattern \"{pattern}\": {reason}")]
    Pattern { pattern: String, reason: &'static str },
    #[error("compile {count} routes: at most {max} are possible")]
    TooManyRoutes { count: usize, max: usize },
}

/// Why a reading became no record. The text is the cause that a dead letter carries: it holds names and places, never
/// values out of a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("no route matches this topic")]
    Unmatched,
    #[error("{part}: {error}")]
    Render { part: Part, error: RenderError },
    #[error("key: it is empty after rendering (only `key = \"\"` asks for a null key)")]
    EmptyKey,
    #[error("timestamp: {0}")]
    Timestamp(#[from] TimestampError),
    #[error("Kafka topic: {0}")]
    Name(#[from] NameError),
}

/// Why a template gave no text for one reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    #[error("the reading has no `{0}`")]
    Missing(String),
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("it would be longer than {0} bytes")]
    TooLong(usize),
    #[error("`{0}` holds the character U+0000")]
    Nul(String),
}

impl RenderError {
    pub(super) fn of(self, part: Part) -> RouteError {
        RouteError::Render { part, error: self }
    }
}

/// The part of a record that a template makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Topic,
    Key,
    Header(String),
    Timestamp,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Topic => f.write_str("Kafka topic"),
            Part::Key => f.write_str("key"),
            Part::Header(name) => write!(f, "header \"{name}\""),
            Part::Timestamp => f.write_str("timestamp"),
        }
    }
}
