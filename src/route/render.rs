//! Rendering: a template bound to its filter's captures, appended to a buffer.
//!
//! Literals, captures and MQTT properties are copied straight into the buffer; only escaped JSON strings allocate.

use super::ParseError;
use super::error::RenderError;
use super::filter::Captures;
use super::template::{Segment, Template};
use crate::record::Reading;

/// Longest rendered text in bytes: a whole MQTT topic fits. A longer one is refused, not cut: two cut keys could be equal.
pub const RENDERED_BYTES_MAX: usize = 65_535;

/// Stands around variable parts of a marked text: no MQTT topic holds it (MQTT-1.5.4-2), and JSON values with it are
/// refused there.
pub(super) const MARK: char = '\0';

/// What a template may draw from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'r> {
    pub reading: &'r Reading<'r>,
    pub captures: &'r Captures<'r>,
}

/// A template whose captures are places instead of names.
#[derive(Debug, Clone)]
pub(super) struct Renderer {
    /// Each segment with its place among the captures (0 where it is none).
    segments: Vec<(Segment, usize)>,
}

impl Renderer {
    /// # Errors
    /// [`ParseError`] when the template names a capture that the filter does not have.
    pub fn bind(template: &Template, captures: &[String]) -> Result<Self, ParseError> {
        let mut segments = Vec::with_capacity(template.placed().len());
        for placed in template.placed() {
            let slot = match &placed.segment {
                Segment::Capture(name) => captures
                    .iter()
                    .position(|known| known == name)
                    .ok_or_else(|| unknown_capture(name, captures, placed.at.clone()))?,
                _ => 0,
            };
            segments.push((placed.segment.clone(), slot));
        }
        Ok(Renderer { segments })
    }

    /// It is exactly `{mqtt.topic}`, so that nothing needs to be rendered.
    pub fn is_mqtt_topic(&self) -> bool {
        matches!(self.segments.as_slice(), [(Segment::Topic, _)])
    }

    /// How many segments differ from reading to reading.
    pub fn variables(&self) -> usize {
        self.segments.iter().filter(|(segment, _)| !matches!(segment, Segment::Literal(_))).count()
    }

    /// Appends the text for one reading. After an error `out` may hold a part of it.
    ///
    /// # Errors
    /// [`RenderError`] when the reading lacks a value or the text is longer than [`RENDERED_BYTES_MAX`].
    pub fn append(&self, values: &Values<'_>, out: &mut String) -> Result<(), RenderError> {
        let start = out.len();
        for (segment, slot) in &self.segments {
            segment.text(*slot, values, |text| push_bounded(text, start, out))??;
        }
        Ok(())
    }

    /// As [`Renderer::append`], with a [`MARK`] on both sides of every variable part: `x.y` + `z` and `x` + `y.z`
    /// differ then.
    pub fn append_marked(&self, values: &Values<'_>, out: &mut String) -> Result<(), RenderError> {
        let start = out.len();
        for (segment, slot) in &self.segments {
            if matches!(segment, Segment::Literal(_)) {
                segment.text(*slot, values, |text| push_bounded(text, start, out))??;
                continue;
            }
            out.push(MARK);
            segment.text(*slot, values, |text| {
                if text.contains(MARK) { Err(RenderError::Nul(segment.name())) } else { push_bounded(text, start, out) }
            })??;
            out.push(MARK);
        }
        Ok(())
    }
}

impl Segment {
    /// Hands the segment's text for this reading to `take`: a callback, because a JSON text lives only that long.
    fn text<T>(&self, slot: usize, values: &Values<'_>, take: impl FnOnce(&str) -> T) -> Result<T, RenderError> {
        let properties = values.reading.properties;
        let text = match self {
            Segment::Literal(text) => Some(text.as_str()),
            Segment::Capture(_) => values.captures.get(slot),
            Segment::Topic => Some(values.reading.topic),
            Segment::Source => Some(values.reading.source),
            Segment::ContentType => properties.content_type.as_deref(),
            Segment::ResponseTopic => properties.response_topic.as_deref(),
            Segment::User(wanted) => {
                properties.user.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
            }
            Segment::Json(pointer) => return Ok(take(pointer.scalar(values.reading.payload)?.as_str())),
        };
        text.map(take).ok_or_else(|| RenderError::Missing(self.name()))
    }
}

fn push_bounded(text: &str, start: usize, out: &mut String) -> Result<(), RenderError> {
    if out.len() - start + text.len() > RENDERED_BYTES_MAX {
        return Err(RenderError::TooLong(RENDERED_BYTES_MAX));
    }
    out.push_str(text);
    Ok(())
}

fn unknown_capture(name: &str, captures: &[String], at: std::ops::Range<usize>) -> ParseError {
    let help = if captures.is_empty() {
        format!("the filter captures nothing: write `{{{name}}}` in place of a `+` there")
    } else {
        let known: Vec<String> = captures.iter().map(|known| format!("`{{{known}}}`")).collect();
        format!("the filter captures {}", known.join(", "))
    };
    ParseError::new(at, format!("the filter has no capture `{{{name}}}`")).help(help)
}
