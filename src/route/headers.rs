//! The Kafka headers of a record.
//!
//! First the configured ones, then what MQTT says of the reading: `content-type`, `mqtt.response-topic`,
//! `mqtt.correlation-data`, `mqtt.expiry-s`, `mqtt.retain`, `mqtt.dup`, `mqtt.topic` (left out where the key is exactly
//! the topic), then the user properties under their own names. Rules: a configured header replaces an automatic one and
//! a user property of the same name; a user property that would pass for one of the gateway's own headers
//! (`forebay-…`, `mqtt.…`, `content-type`) gets `mqtt.user.` before its name: a device must not be able to forge
//! `forebay-id`, by which consumers drop repeats. (`forebay-id` itself is added at forwarding.)

use std::ops::Range;

use super::ParseError;
use super::error::{Part, RouteError};
use super::render::{Renderer, Values};
use super::template::Template;
use crate::record::Reading;

/// A header as a record carries it.
pub(super) type Header<'h> = (&'h str, &'h [u8]);

/// The configured headers of one route.
#[derive(Debug, Clone, Default)]
pub(super) struct Headers {
    configured: Vec<(String, Renderer)>,
}

/// Texts that had to be made for one reading; headers borrow from it.
#[derive(Debug, Default)]
pub(super) struct Texts {
    text: String,
    /// In the order in which the headers use them.
    spans: Vec<Range<usize>>,
}

impl Headers {
    /// # Errors
    /// The name of the header and what is wrong with it.
    pub fn compile(specs: &[(String, String)], captures: &[String]) -> Result<Self, (String, ParseError)> {
        let mut headers = Headers::default();
        for (name, template) in specs {
            let renderer = headers.compile_one(name, template, captures).map_err(|error| (name.clone(), error))?;
            headers.configured.push((name.clone(), renderer));
        }
        Ok(headers)
    }

    fn compile_one(&self, name: &str, template: &str, captures: &[String]) -> Result<Renderer, ParseError> {
        if name.is_empty() || name.contains('\0') {
            return Err(ParseError::new(0..0, "a header needs a name without the character U+0000"));
        }
        if name.starts_with("forebay-") {
            return Err(ParseError::new(0..0, "headers that begin with `forebay-` are the gateway's own"));
        }
        if self.replaces(name) {
            return Err(ParseError::new(0..0, format!("the header \"{name}\" is configured twice")));
        }
        Renderer::bind(&Template::parse(template)?, captures)
    }

    /// Makes every text that is not borrowed from the reading as it is.
    ///
    /// # Errors
    /// [`RouteError`] when a configured header cannot be rendered.
    pub fn render(&self, values: &Values<'_>) -> Result<Texts, RouteError> {
        let mut texts = Texts::default();
        for (name, renderer) in &self.configured {
            let start = texts.text.len();
            renderer.append(values, &mut texts.text).map_err(|error| error.of(Part::Header(name.clone())))?;
            texts.spans.push(start..texts.text.len());
        }
        Ok(self.render_mqtt(values.reading, texts))
    }

    /// The part of [`Headers::render`] that cannot fail.
    pub fn render_mqtt(&self, reading: &Reading<'_>, mut texts: Texts) -> Texts {
        if let Some(seconds) = reading.properties.message_expiry_s {
            texts.push(|text| text.push_str(&seconds.to_string()));
        }
        for (name, _) in &reading.properties.user {
            if !self.replaces(name) && is_reserved(name) {
                texts.push(|text| push_renamed(name, text));
            }
        }
        texts
    }

    /// All headers of a record, in order. `texts` is what [`Headers::render`] made for the same reading.
    pub fn assemble<'h>(&'h self, reading: &Reading<'h>, key: Option<&[u8]>, texts: &'h Texts) -> Vec<Header<'h>> {
        let mut made = texts.iter();
        let mut next_made = || made.next().unwrap_or_default();
        let mut all: Vec<Header<'h>> = Vec::with_capacity(self.configured.len() + 1 + reading.properties.user.len());
        all.extend(self.configured.iter().map(|(name, _)| (name.as_str(), next_made().as_bytes())));
        self.push_mqtt(reading, key, &mut next_made, &mut all);
        for (name, value) in &reading.properties.user {
            if !self.replaces(name) {
                let name = if is_reserved(name) { next_made() } else { name };
                all.push((name, value.as_bytes()));
            }
        }
        all
    }

    fn push_mqtt<'h>(
        &self,
        reading: &Reading<'h>,
        key: Option<&[u8]>,
        next_made: &mut impl FnMut() -> &'h str,
        all: &mut Vec<Header<'h>>,
    ) {
        let properties = reading.properties;
        let mut push = |name: &'static str, value: Option<&'h [u8]>| {
            if let Some(value) = value
                && !self.replaces(name)
            {
                all.push((name, value));
            }
        };
        push("content-type", properties.content_type.as_deref().map(str::as_bytes));
        push("mqtt.response-topic", properties.response_topic.as_deref().map(str::as_bytes));
        push("mqtt.correlation-data", properties.correlation_data.as_deref());
        push("mqtt.expiry-s", properties.message_expiry_s.map(|_| next_made().as_bytes()));
        push("mqtt.retain", reading.retain.then_some(b"1"));
        push("mqtt.dup", reading.dup.then_some(b"1"));
        push("mqtt.topic", (key != Some(reading.topic.as_bytes())).then_some(reading.topic.as_bytes()));
    }

    fn replaces(&self, name: &str) -> bool {
        self.configured.iter().any(|(configured, _)| configured == name)
    }
}

impl Texts {
    fn push(&mut self, make: impl FnOnce(&mut String)) {
        let start = self.text.len();
        make(&mut self.text);
        self.spans.push(start..self.text.len());
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        self.spans.iter().map(|span| &self.text[span.clone()])
    }
}

/// U+0000 would end the name early in librdkafka.
fn is_reserved(name: &str) -> bool {
    name.starts_with("forebay-") || name.starts_with("mqtt.") || name == "content-type" || name.contains('\0')
}

fn push_renamed(name: &str, text: &mut String) {
    text.push_str("mqtt.user.");
    text.extend(name.chars().map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }));
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use bytes::Bytes;

    use super::*;
    use crate::record::{Arrival, Properties};
    use crate::route::filter::Filter;

    fn reading<'r>(topic: &'r str, properties: &'r Properties) -> Reading<'r> {
        let arrival = Arrival::default();
        Reading { source: "s", topic, payload: b"{}", qos: 1, retain: true, dup: true, properties, arrival }
    }

    fn headers(specs: &[(&str, &str)], reading: &Reading<'_>, key: Option<&[u8]>) -> Vec<(String, String)> {
        let filter = Filter::parse("{line}/#").unwrap();
        let specs: Vec<_> = specs.iter().map(|(name, template)| ((*name).to_owned(), (*template).to_owned())).collect();
        let headers = Headers::compile(&specs, filter.captures()).unwrap();
        let captures = filter.matches(reading.topic).unwrap();
        let texts = headers.render(&Values { reading, captures: &captures }).unwrap();
        let owned = |(name, value): &Header<'_>| ((*name).to_owned(), String::from_utf8_lossy(value).into_owned());
        headers.assemble(reading, key, &texts).iter().map(owned).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn all_that_mqtt_says_reaches_the_record() {
        let user = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let properties = Properties {
            content_type: Some("application/json".to_owned()),
            response_topic: Some("re/ply".to_owned()),
            correlation_data: Some(Bytes::from_static(b"\x00c")),
            message_expiry_s: Some(3600),
            user: vec![
                user("traceparent", "00-1"),
                user("x", "1"),
                user("x", "2"),
                user("forebay-id", "forged"),
                user("site", "replaced"),
                user("a\0b", "nul"),
                user("", "no name"),
            ],
        };
        assert_eq!(
            headers(&[("line", "L{line}"), ("site", "north")], &reading("7/t", &properties), Some(b"other")),
            pairs(&[
                ("line", "L7"),
                ("site", "north"),
                ("content-type", "application/json"),
                ("mqtt.response-topic", "re/ply"),
                ("mqtt.correlation-data", "\0c"),
                ("mqtt.expiry-s", "3600"),
                ("mqtt.retain", "1"),
                ("mqtt.dup", "1"),
                ("mqtt.topic", "7/t"),
                ("traceparent", "00-1"),
                ("x", "1"),
                ("x", "2"),
                ("mqtt.user.forebay-id", "forged"),
                ("mqtt.user.a\u{fffd}b", "nul"),
                ("", "no name"),
            ])
        );
    }

    #[test]
    fn the_topic_is_left_out_only_where_the_key_is_the_topic() {
        let properties = Properties::default();
        let mut reading = reading("7/t", &properties);
        (reading.retain, reading.dup) = (false, false);
        assert_eq!(headers(&[], &reading, Some(b"7/t")), pairs(&[]));
        assert_eq!(headers(&[], &reading, Some(b"7/t2")), pairs(&[("mqtt.topic", "7/t")]));
        assert_eq!(headers(&[], &reading, None), pairs(&[("mqtt.topic", "7/t")]));
    }

    #[test]
    fn a_configured_header_replaces_an_automatic_one_and_keeps_the_others_apart() {
        let properties = Properties {
            message_expiry_s: Some(5),
            user: vec![("mqtt.topic".to_owned(), "forged".to_owned()), ("mqtt.x".to_owned(), "y".to_owned())],
            ..Properties::default()
        };
        assert_eq!(
            headers(&[("mqtt.expiry-s", "never"), ("mqtt.topic", "t")], &reading("7", &properties), None),
            pairs(&[
                ("mqtt.expiry-s", "never"),
                ("mqtt.topic", "t"),
                ("mqtt.retain", "1"),
                ("mqtt.dup", "1"),
                ("mqtt.user.mqtt.x", "y")
            ])
        );
    }

    #[test]
    fn bad_header_names_are_refused() {
        for specs in
            [&[("", "x")][..], &[("a\0", "x")], &[("forebay-id", "x")], &[("a", "x"), ("a", "y")], &[("a", "{no}")]]
        {
            let specs: Vec<_> = specs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
            assert!(Headers::compile(&specs, &[]).is_err(), "{specs:?}");
        }
    }
}
