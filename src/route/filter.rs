//! MQTT topic filters with named captures: `plant/{line}/{device}/telemetry`, `site/{rest...}`.
//!
//! `{x}` is one `+` level whose text templates may use, `{x...}` at the end is a `#`. Plain `+` and `#` match as MQTT
//! says and give nothing to templates. Matching allocates nothing.

use std::ops::Range;

use super::ParseError;

/// Longest topic and filter in bytes (MQTT-1.5.4: a string has a two-byte length).
pub const TOPIC_BYTES_MAX: usize = 65_535;
/// More levels than any plant names; bounds the work per match.
pub const LEVELS_MAX: usize = 128;
/// Captures live in a fixed array, so that a match allocates nothing.
pub const CAPTURES_MAX: usize = 16;

/// A compiled topic filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    levels: Vec<Level>,
    captures: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Literal(String),
    /// `+` or `{x}`.
    One {
        captured: bool,
    },
    /// `#` or `{x...}`.
    Rest {
        captured: bool,
    },
}

/// The captured texts of one match, borrowed from the topic.
#[derive(Debug, Clone, Copy)]
pub struct Captures<'t> {
    topic: &'t str,
    /// Offsets fit: a topic longer than [`TOPIC_BYTES_MAX`] matches nothing.
    spans: [(u16, u16); CAPTURES_MAX],
    len: usize,
    /// The last slot is a `{x...}` that matched the parent level, where there is no text at all.
    last_missing: bool,
}

impl Filter {
    /// # Errors
    /// [`ParseError`] for what MQTT forbids in a topic filter (section 4.7), for `$share/`, which is the subscription's
    /// and not the route's, and for malformed captures.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        check_whole(text)?;
        let count = text.split('/').count();
        let mut filter = Filter { levels: Vec::with_capacity(count), captures: Vec::new() };
        let mut start = 0;
        for (index, level) in text.split('/').enumerate() {
            let at = start..start + level.len();
            start = at.end + 1;
            filter.push(level, at, index + 1 == count)?;
        }
        Ok(filter)
    }

    fn push(&mut self, level: &str, at: Range<usize>, last: bool) -> Result<(), ParseError> {
        let parsed = match level {
            "+" => Level::One { captured: false },
            "#" => Level::Rest { captured: false },
            _ => match level.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
                Some(inner) => self.push_capture(inner, &at)?,
                None => Level::Literal(check_literal(level, &at)?),
            },
        };
        if matches!(parsed, Level::Rest { .. }) && !last {
            return Err(ParseError::new(at, format!("`{level}` stands before other levels"))
                .help("`#` and `{x...}` may only be the last level of an MQTT topic filter"));
        }
        self.levels.push(parsed);
        Ok(())
    }

    fn push_capture(&mut self, inner: &str, at: &Range<usize>) -> Result<Level, ParseError> {
        let (name, rest) = inner.strip_suffix("...").map_or((inner, false), |name| (name, true));
        check_capture_name(name, at)?;
        if self.captures.iter().any(|known| known == name) {
            return Err(ParseError::new(at.clone(), format!("the capture `{{{name}}}` stands here twice"))
                .help("give each capture a name of its own, or use `+`"));
        }
        if self.captures.len() == CAPTURES_MAX {
            return Err(ParseError::new(at.clone(), format!("more than {CAPTURES_MAX} captures"))
                .help("use `+` for levels no template needs"));
        }
        self.captures.push(name.to_owned());
        Ok(if rest { Level::Rest { captured: true } } else { Level::One { captured: true } })
    }

    /// Names of the captures, in order.
    pub fn captures(&self) -> &[String] {
        &self.captures
    }

    /// The filter as a broker understands it, for SUBSCRIBE.
    pub fn mqtt_filter(&self) -> String {
        let levels: Vec<&str> = self.levels.iter().map(Level::mqtt).collect();
        levels.join("/")
    }

    /// The first level when it is a literal: what routes are indexed by.
    pub fn first_literal(&self) -> Option<&str> {
        match self.levels.first() {
            Some(Level::Literal(text)) => Some(text),
            _ => None,
        }
    }

    /// Matches as MQTT section 4.7 says: `#` also matches the parent level, and a wildcard at the first level matches
    /// no topic that begins with `$` (MQTT-4.7.2-1). An empty topic matches nothing (MQTT-4.7.3-1).
    pub fn matches<'t>(&self, topic: &'t str) -> Option<Captures<'t>> {
        if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX {
            return None;
        }
        if topic.starts_with('$') && self.first_literal().is_none() {
            return None;
        }
        let mut captures = Captures { topic, spans: [(0, 0); CAPTURES_MAX], len: 0, last_missing: false };
        // `None`: the topic has no further level, which is not the same as an empty one.
        let mut next = Some(0);
        for level in &self.levels {
            if let Level::Rest { captured } = level {
                if *captured {
                    captures.push_rest(next);
                }
                return Some(captures);
            }
            let start = next?;
            let end = topic.as_bytes()[start..].iter().position(|&byte| byte == b'/').map(|offset| start + offset);
            let stop = end.unwrap_or(topic.len());
            match level {
                Level::Literal(text) if *text != topic[start..stop] => return None,
                Level::One { captured: true } => captures.push(start, stop),
                _ => {}
            }
            next = end.map(|slash| slash + 1);
        }
        next.is_none().then_some(captures)
    }
}

impl Level {
    fn mqtt(&self) -> &str {
        match self {
            Level::Literal(text) => text,
            Level::One { .. } => "+",
            Level::Rest { .. } => "#",
        }
    }
}

impl<'t> Captures<'t> {
    fn push(&mut self, start: usize, end: usize) {
        self.spans[self.len] = (start as u16, end as u16);
        self.len += 1;
    }

    fn push_rest(&mut self, start: Option<usize>) {
        self.last_missing = start.is_none();
        self.push(start.unwrap_or(0), start.map_or(0, |_| self.topic.len()));
    }

    /// The text of a capture by its place in [`Filter::captures`]. `None`: a `{x...}` that matched its parent level,
    /// which is not the same as an empty level.
    pub fn get(&self, slot: usize) -> Option<&'t str> {
        if slot >= self.len || (self.last_missing && slot + 1 == self.len) {
            return None;
        }
        let (start, end) = self.spans[slot];
        Some(&self.topic[usize::from(start)..usize::from(end)])
    }

    /// For templates that no filter stands before.
    pub(super) fn none() -> Self {
        Captures { topic: "", spans: [(0, 0); CAPTURES_MAX], len: 0, last_missing: false }
    }
}

fn check_whole(text: &str) -> Result<(), ParseError> {
    let all = 0..text.len();
    if text.is_empty() {
        return Err(ParseError::new(all, "the topic filter is empty").help("use `#` to match every topic"));
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(ParseError::new(all, format!("the topic filter is longer than {TOPIC_BYTES_MAX} bytes")));
    }
    if let Some(at) = text.find('\0') {
        return Err(ParseError::new(at..at + 1, "an MQTT topic filter cannot hold the character U+0000"));
    }
    if text == "$share" || text.starts_with("$share/") {
        return Err(ParseError::new(0..6, "a route's filter cannot be a shared subscription")
            .help("sharing belongs to the subscription: write `$share/...` in the source and the bare filter here"));
    }
    if text.split('/').count() > LEVELS_MAX {
        return Err(ParseError::new(all, format!("the topic filter has more than {LEVELS_MAX} levels")));
    }
    Ok(())
}

fn check_literal(level: &str, at: &Range<usize>) -> Result<String, ParseError> {
    if let Some(offset) = level.find(['+', '#']) {
        let place = at.start + offset..at.start + offset + 1;
        let wildcard = &level[offset..=offset];
        return Err(ParseError::new(place, format!("`{wildcard}` shares the level \"{level}\" with other characters"))
            .help("a wildcard must be a whole level of its own"));
    }
    if level.contains(['{', '}']) {
        return Err(ParseError::new(at.clone(), format!("the braces in \"{level}\" are not a capture"))
            .help("a capture is a whole level, `{name}` or, at the end, `{name...}`; to match a level that holds braces use `+`"));
    }
    Ok(level.to_owned())
}

fn check_capture_name(name: &str, at: &Range<usize>) -> Result<(), ParseError> {
    if name.is_empty() {
        return Err(ParseError::new(at.clone(), "a capture without a name")
            .help("write `{name}`, or `+` if no template needs it"));
    }
    if !is_capture_name(name) {
        return Err(ParseError::new(at.clone(), format!("`{name}` is not a name for a capture"))
            .help("use letters a-z and A-Z, digits and `_`, such as `{line_2}`"));
    }
    Ok(())
}

/// Letters, digits and `_`: nothing that could be taken for `mqtt.…` or a JSON pointer.
pub(super) fn is_capture_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    /// The obvious matcher: recursive, over whole level lists, straight from the words of section 4.7.
    fn obvious(filter: &[&str], topic: &[&str]) -> bool {
        match (filter.split_first(), topic.split_first()) {
            (None, None) => true,
            (Some((&"#", _)), _) => true,
            (Some((&"+", filter)), Some((_, topic))) => obvious(filter, topic),
            (Some((f, filter)), Some((t, topic))) => f == t && obvious(filter, topic),
            _ => false,
        }
    }

    fn obvious_match(filter: &str, topic: &str) -> bool {
        if topic.is_empty() || (topic.starts_with('$') && filter.starts_with(['+', '#'])) {
            return false;
        }
        obvious(&filter.split('/').collect::<Vec<_>>(), &topic.split('/').collect::<Vec<_>>())
    }

    #[test]
    fn captures_are_the_levels_they_stand_for() {
        let filter = Filter::parse("plant/{line}/+/{device}/{rest...}").unwrap();
        assert_eq!(filter.captures(), ["line", "device", "rest"]);
        assert_eq!(filter.mqtt_filter(), "plant/+/+/+/#");
        let captures = filter.matches("plant/l1/x/pump/a/b").unwrap();
        assert_eq!([captures.get(0), captures.get(1), captures.get(2)], [Some("l1"), Some("pump"), Some("a/b")]);
        assert_eq!(captures.get(3), None);
        let parent = filter.matches("plant//x/").unwrap();
        assert_eq!([parent.get(0), parent.get(1), parent.get(2)], [Some(""), Some(""), None]);
        let empty_level = filter.matches("plant/l1/x/pump/").unwrap();
        assert_eq!(empty_level.get(2), Some(""));
    }

    #[test]
    fn matches_as_section_4_7_says() {
        let long = "x".repeat(TOPIC_BYTES_MAX);
        let too_long = "x".repeat(TOPIC_BYTES_MAX + 1);
        let deep = "a/".repeat(1000);
        for (filter, topic, expected) in [
            ("sport/#", "sport", true),
            ("sport/#", "sport/", true),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+", "/", false),
            ("+/+", "/", true),
            ("/+", "/x", true),
            ("+", "/x", false),
            ("#", "", false),
            ("+", "", false),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("{a}/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/{a...}", "$SYS", true),
            ("a/$b", "a/$b", true),
            ("+", &long, true),
            ("#", &too_long, false),
            ("#", &deep, true),
            ("a/a/#", &deep, true),
            ("A", "a", false),
            ("e\u{301}", "\u{e9}", false),
            ("a/+/c", "a/\u{202e}\n\t/c", true),
        ] {
            assert_eq!(Filter::parse(filter).unwrap().matches(topic).is_some(), expected, "{filter} {topic:.40}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let many = (0..=CAPTURES_MAX).map(|n| format!("{{c{n}}}")).collect::<Vec<_>>().join("/");
        let deep = "a/".repeat(LEVELS_MAX);
        for (text, at, words) in [
            ("", 0..0, "empty"),
            ("#/a", 0..1, "before other levels"),
            ("a/+/#/b", 4..5, "before other levels"),
            ("{x...}/b", 0..6, "before other levels"),
            ("a+", 1..2, "shares the level"),
            ("a/b#", 3..4, "shares the level"),
            ("$share//x", 0..6, "shared subscription"),
            ("$share/g/x/y", 0..6, "shared subscription"),
            ("$share", 0..6, "shared subscription"),
            ("a/{}", 2..4, "without a name"),
            ("a/{...}", 2..7, "without a name"),
            ("a/{b c}", 2..7, "not a name"),
            ("a/{mqtt.topic}", 2..14, "not a name"),
            ("a/{b", 2..4, "not a capture"),
            ("{a}/x{b}", 4..8, "not a capture"),
            ("{a}/{a}", 4..7, "twice"),
            ("a\0", 1..2, "U+0000"),
            (&many, many.len() - 5..many.len(), "more than 16"),
            (&deep, 0..deep.len(), "levels"),
        ] {
            let error = Filter::parse(text).unwrap_err();
            assert_eq!(error.at, at, "{text:.40}");
            assert!(error.message.contains(words), "{text:.40}: {}", error.message);
        }
    }

    proptest! {
        #[test]
        fn equals_the_obvious_matcher(
            filter in "(\\+|a|b||\\$s)(/(\\+|a|b|)){0,4}(/#)?",
            topic in "(a|b||\\$s)(/(a|b|)){0,5}",
        ) {
            prop_assume!(!filter.is_empty());
            let compiled = Filter::parse(&filter).unwrap();
            prop_assert_eq!(compiled.mqtt_filter(), filter.clone());
            prop_assert_eq!(compiled.matches(&topic).is_some(), obvious_match(&filter, &topic));
        }

        #[test]
        fn parse_and_match_never_panic(filter in "[a+#{}./$é\0]{0,12}|\\PC{0,40}", topic in "[a/$é]{0,12}|\\PC{0,60}") {
            if let Ok(filter) = Filter::parse(&filter) {
                let expected = obvious_match(&filter.mqtt_filter(), &topic);
                prop_assert_eq!(filter.matches(&topic).is_some(), expected);
            }
        }
    }
}
