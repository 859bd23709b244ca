//! Templates for Kafka topics, keys and headers: `edge.{line}.{/device/id}`.
//!
//! A placeholder is a capture of the route's filter, `{mqtt.topic}`, `{mqtt.source}`, `{mqtt.content_type}`,
//! `{mqtt.response_topic}`, `{mqtt.user.NAME}` (the first user property of that name) or a JSON pointer into the payload
//! (`{/a/b}`). `{{` and `}}` stand for braces. What a placeholder gives is text and is never read as a template again.

use std::ops::Range;

use super::ParseError;
use super::filter::is_capture_name;
use super::json::Pointer;

/// Longest template in bytes: longer than anyone writes, short enough to print.
pub const TEMPLATE_BYTES_MAX: usize = 4096;

const KNOWN: &str = "`{mqtt.topic}`, `{mqtt.source}`, `{mqtt.content_type}`, `{mqtt.response_topic}`, `{mqtt.user.NAME}`, \
                     a capture of the filter, or a JSON pointer such as `{/device/id}`";

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    placed: Vec<Placed>,
}

/// A segment and the bytes of the template it was written in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub segment: Segment,
    pub at: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(String),
    Capture(String),
    Topic,
    Source,
    ContentType,
    ResponseTopic,
    User(String),
    Json(Pointer),
}

impl Template {
    /// # Errors
    /// [`ParseError`] for a lone brace, an unknown placeholder, a bad JSON pointer, or a template that is too long.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            let message = format!("the template is longer than {TEMPLATE_BYTES_MAX} bytes");
            return Err(ParseError::new(0..text.len(), message));
        }
        let mut template = Template { placed: Vec::new() };
        let mut at = 0;
        while at < text.len() {
            at = template.push_next(text, at)?;
        }
        Ok(template)
    }

    /// Takes one brace construct or literal run from byte `at` on; returns where the next one begins.
    fn push_next(&mut self, text: &str, at: usize) -> Result<usize, ParseError> {
        let rest = &text[at..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            self.push_literal(&rest[..1], at..at + 2);
            return Ok(at + 2);
        }
        if let Some(inner) = rest.strip_prefix('{') {
            let Some(len) = inner.find('}') else {
                return Err(
                    ParseError::new(at..text.len(), "this `{` is never closed").help("write `{{` for a brace itself")
                );
            };
            let end = at + len + 2;
            let segment = placeholder(&inner[..len], at..end)?;
            self.placed.push(Placed { segment, at: at..end });
            return Ok(end);
        }
        if rest.starts_with('}') {
            return Err(ParseError::new(at..at + 1, "this `}` closes nothing").help("write `}}` for a brace itself"));
        }
        let end = rest.find(['{', '}']).map_or(text.len(), |len| at + len);
        self.push_literal(&text[at..end], at..end);
        Ok(end)
    }

    /// Neighbouring literals become one, so that rendering copies them in one go.
    fn push_literal(&mut self, text: &str, at: Range<usize>) {
        if let Some(Placed { segment: Segment::Literal(last), at: span }) = self.placed.last_mut() {
            last.push_str(text);
            span.end = at.end;
        } else {
            self.placed.push(Placed { segment: Segment::Literal(text.to_owned()), at });
        }
    }

    /// Names of the captures it needs, in order, with repeats.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.captures_at().map(|(name, _)| name)
    }

    /// The same with their places, for messages.
    pub fn captures_at(&self) -> impl Iterator<Item = (&str, Range<usize>)> {
        self.placed.iter().filter_map(|placed| match &placed.segment {
            Segment::Capture(name) => Some((name.as_str(), placed.at.clone())),
            _ => None,
        })
    }

    /// Every reading gets the same text.
    pub fn is_constant(&self) -> bool {
        self.placed.iter().all(|placed| matches!(placed.segment, Segment::Literal(_)))
    }

    /// The text of a constant template.
    pub fn constant(&self) -> Option<&str> {
        match self.placed.as_slice() {
            [] => Some(""),
            [Placed { segment: Segment::Literal(text), .. }] => Some(text),
            _ => None,
        }
    }

    /// Rendering looks into the payload.
    pub fn needs_json(&self) -> bool {
        self.placed.iter().any(|placed| matches!(placed.segment, Segment::Json(_)))
    }

    pub(super) fn placed(&self) -> &[Placed] {
        &self.placed
    }
}

impl Segment {
    /// The placeholder as a person writes it, for messages.
    pub(super) fn name(&self) -> String {
        match self {
            Segment::Literal(text) | Segment::Capture(text) => text.clone(),
            Segment::Topic => "mqtt.topic".to_owned(),
            Segment::Source => "mqtt.source".to_owned(),
            Segment::ContentType => "mqtt.content_type".to_owned(),
            Segment::ResponseTopic => "mqtt.response_topic".to_owned(),
            Segment::User(name) => format!("mqtt.user.{name}"),
            Segment::Json(pointer) => pointer.as_str().to_owned(),
        }
    }
}

fn placeholder(inner: &str, at: Range<usize>) -> Result<Segment, ParseError> {
    if let Some(offset) = inner.find('{') {
        let place = at.start + 1 + offset..at.start + 2 + offset;
        return Err(ParseError::new(place, "a `{` inside a placeholder").help("write `{{` for a brace itself"));
    }
    if inner.starts_with('/') {
        return Pointer::parse(inner).map(Segment::Json).map_err(|error| error.shifted(at.start + 1));
    }
    match inner {
        "" => Err(ParseError::new(at, "an empty placeholder").help(format!("write {KNOWN}"))),
        "mqtt.topic" => Ok(Segment::Topic),
        "mqtt.source" => Ok(Segment::Source),
        "mqtt.content_type" => Ok(Segment::ContentType),
        "mqtt.response_topic" => Ok(Segment::ResponseTopic),
        _ => match inner.strip_prefix("mqtt.user.") {
            Some(name) if !name.is_empty() => Ok(Segment::User(name.to_owned())),
            _ if is_capture_name(inner) => Ok(Segment::Capture(inner.to_owned())),
            _ => Err(ParseError::new(at, format!("unknown placeholder `{{{inner}}}`")).help(format!("write {KNOWN}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn segments_know_what_they_are() {
        let template = Template::parse("edge.{line}.{/device/id}").unwrap();
        assert_eq!(template.captures().collect::<Vec<_>>(), ["line"]);
        assert_eq!(template.captures_at().next(), Some(("line", 5..11)));
        assert!(template.needs_json() && !template.is_constant() && template.constant().is_none());
        let constant = Template::parse("a{{b}}c").unwrap();
        assert_eq!((constant.constant(), constant.is_constant()), (Some("a{b}c"), true));
        assert_eq!(Template::parse("").unwrap().constant(), Some(""));
        assert_eq!(Template::parse("{{{{x}}}}").unwrap().constant(), Some("{{x}}"));
        let user = Template::parse("{mqtt.user.a b.é}").unwrap();
        assert_eq!(user.placed()[0].segment, Segment::User("a b.é".to_owned()));
        assert!(!user.is_constant() && !user.needs_json());
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let long = "x".repeat(TEMPLATE_BYTES_MAX + 1);
        for (text, at, words) in [
            ("a{b", 1..3, "never closed"),
            ("a}b", 1..2, "closes nothing"),
            ("{}", 0..2, "empty placeholder"),
            ("é{mqtt.nothing}", 2..16, "unknown placeholder"),
            ("{mqtt.user.}", 0..12, "unknown placeholder"),
            ("{a-b}", 0..5, "unknown placeholder"),
            ("{a{b}", 2..3, "inside a placeholder"),
            ("x{/a~3}", 4..5, "escape"),
            ("{{{a}", 0..0, ""),
            (&long, 0..long.len(), "longer"),
        ] {
            match Template::parse(text) {
                Ok(template) => assert_eq!((text, template.captures().next()), ("{{{a}", Some("a"))),
                Err(error) => {
                    assert_eq!(error.at, at, "{text:.40}");
                    assert!(error.message.contains(words), "{text:.40}: {}", error.message);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics_and_places_cover_the_text(text in "[{}a./~mqt]{0,16}|\\PC{0,40}") {
            if let Ok(template) = Template::parse(&text) {
                let mut next = 0;
                for placed in template.placed() {
                    prop_assert_eq!(placed.at.start, next);
                    next = placed.at.end;
                }
                prop_assert_eq!(next, text.len());
            }
        }

        #[test]
        fn escaped_text_comes_back(text in "\\PC{0,40}") {
            let escaped = text.replace('{', "{{").replace('}', "}}");
            let template = Template::parse(&escaped).unwrap();
            prop_assert_eq!(template.constant().unwrap(), text);
        }
    }
}
