//! Legal Kafka topic names, and the rules that make one of a rendered text.
//!
//! Legal: 1 to 249 characters of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`. Rules for a rendered text:
//! `/` becomes `.`; every other illegal character becomes one `_`; nothing is shortened: what is empty, too long, `.` or
//! `..` afterwards is refused, because a cut name could be another topic's. Two source names that become the same legal
//! name are told apart by the registry (`names.rs`). Why so: docs/decisions/0002-kafka-names.md.

use super::render::MARK;
use super::template::{Segment, Template};
use super::{ParseError, RouterError};

/// Kafka's own bound: a log directory's name with partition number must fit into 255 bytes.
pub const NAME_BYTES_MAX: usize = 249;

/// Why a text is no Kafka topic that this gateway may use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the name is empty")]
    Empty,
    #[error("the name \"{0}\" is not possible in Kafka")]
    Dots(String),
    #[error("the name of {0} characters is longer than {NAME_BYTES_MAX}")]
    TooLong(usize),
    #[error("the name \"{0}\" holds characters other than a-z A-Z 0-9 . _ -")]
    Characters(String),
    #[error("\"{0}\" matches no pattern of the topic policy's `allow`")]
    NotAllowed(String),
    #[error("\"{name}\" would be topic number {}: `max_topics` is {max}", max + 1)]
    TooMany { name: String, max: usize },
    #[error("\"{this}\" becomes \"{name}\", which \"{first}\" already uses")]
    Collision { name: String, first: String, this: String },
}

/// # Errors
/// [`NameError`] when Kafka would refuse the name.
pub fn check(name: &str) -> Result<(), NameError> {
    match name {
        "" => Err(NameError::Empty),
        "." | ".." => Err(NameError::Dots(name.to_owned())),
        _ if name.len() > NAME_BYTES_MAX => Err(NameError::TooLong(name.chars().count())),
        _ if !name.bytes().all(is_legal) => Err(NameError::Characters(name.to_owned())),
        _ => Ok(()),
    }
}

/// What can be said about a Kafka topic template before any reading has come.
///
/// # Errors
/// [`ParseError`] when a literal part holds characters that Kafka refuses, or a constant name is illegal as a whole.
pub fn check_template(template: &Template) -> Result<(), ParseError> {
    for placed in template.placed() {
        if let Segment::Literal(text) = &placed.segment
            && let Some(bad) = text.chars().find(|&c| !u8::try_from(c).is_ok_and(is_legal))
        {
            let message = format!("the character {bad:?} is not possible in a Kafka topic name");
            let help = "use a-z, A-Z, 0-9, `.`, `_` and `-`; only captured values are made legal";
            return Err(ParseError::new(placed.at.clone(), message).help(help));
        }
    }
    if let Some(name) = template.constant() {
        check(name).map_err(|error| ParseError::new(0..name.len(), error.to_string()))?;
    }
    Ok(())
}

/// Every byte is legal, so that nothing has to be rewritten. Says nothing about the length.
pub(super) fn is_clean(text: &str) -> bool {
    text.bytes().all(is_legal)
}

/// Appends the legal form of a rendered text, character for character. Marks vanish.
pub(super) fn sanitise(rendered: &str, out: &mut String) {
    out.extend(rendered.chars().filter(|&c| c != MARK).map(|c| match c {
        '/' => '.',
        _ if u8::try_from(c).is_ok_and(is_legal) => c,
        _ => '_',
    }));
}

/// A name that is always legal, for dead letters, whose topic only says where the reading came from: here a long name
/// may be cut.
pub fn derived_from(mqtt_topic: &str) -> String {
    let mut name = String::with_capacity(mqtt_topic.len().min(NAME_BYTES_MAX));
    // Cut before the work, so that it is bounded; one character gives at most one byte.
    let end = mqtt_topic.char_indices().nth(NAME_BYTES_MAX).map_or(mqtt_topic.len(), |(at, _)| at);
    sanitise(&mqtt_topic[..end], &mut name);
    match name.as_str() {
        "" | "." | ".." => "_".to_owned(),
        _ => name,
    }
}

/// Kafka's metrics write `.` as `_`, and its controller refuses to create a topic that differs from another one only so.
pub fn metric_form(name: &str) -> String {
    name.replace('.', "_")
}

/// # Errors
/// [`RouterError`] when no Kafka name can match the pattern.
pub fn check_pattern(pattern: &str) -> Result<(), RouterError> {
    let reason = if pattern.is_empty() {
        "it is empty"
    } else if pattern.len() > NAME_BYTES_MAX {
        "it is longer than a Kafka name can be"
    } else if !pattern.bytes().all(|byte| byte == b'*' || is_legal(byte)) {
        "it holds characters that no Kafka name has"
    } else {
        return Ok(());
    };
    Err(RouterError::Pattern { pattern: pattern.to_owned(), reason })
}

/// `*` stands for any run of characters, the empty one too. At most pattern length times name length steps: a failed
/// attempt goes back to the last `*` only.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, n + 1));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            p += 1;
            n += 1;
        } else if let Some((after_star, from)) = retry {
            retry = Some((after_star, from + 1));
            p = after_star;
            n = from;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

fn is_legal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kafka_s_rules_hold() {
        let longest = "x".repeat(NAME_BYTES_MAX);
        let longer = "x".repeat(NAME_BYTES_MAX + 1);
        for legal in ["a", "...", "_", "-", "a.b_c-D9", &longest] {
            assert_eq!(check(legal), Ok(()));
        }
        assert_eq!(check(""), Err(NameError::Empty));
        assert_eq!(check("."), Err(NameError::Dots(".".to_owned())));
        assert_eq!(check(".."), Err(NameError::Dots("..".to_owned())));
        assert_eq!(check(&longer), Err(NameError::TooLong(250)));
        for illegal in ["a b", "é", "a/b", "a\nb", "a:b", "\0"] {
            assert_eq!(check(illegal), Err(NameError::Characters(illegal.to_owned())));
        }
    }

    #[test]
    fn templates_are_checked_before_any_reading() {
        for (text, at) in [("a b.{x}", 0..4), ("{x}/y", 3..5), ("..", 0..2), ("", 0..0), ("{x}é", 3..5)] {
            assert_eq!(check_template(&Template::parse(text).unwrap()).unwrap_err().at, at, "{text}");
        }
        assert_eq!(check_template(&Template::parse("edge.{x}").unwrap()), Ok(()));
        assert_eq!(check_template(&Template::parse("{x}").unwrap()), Ok(()));
    }

    #[test]
    fn dead_letters_always_get_a_name() {
        let long = "é/".repeat(40_000);
        for (topic, expected) in
            [("plant/l 1/x", "plant.l_1.x"), ("/", "_"), ("//", "_"), ("", "_"), ("///", "..."), ("é", "_")]
        {
            assert_eq!(derived_from(topic), expected);
        }
        assert_eq!(derived_from(&long).len(), NAME_BYTES_MAX);
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("edge.*", "edge.a", true),
            ("edge.*", "edge.", true),
            ("edge.*", "edge", false),
            ("*", "x", true),
            ("*.raw", "a.b.raw", true),
            ("*.raw", "a.raw.b", false),
            ("a*b*c", "aXbYbZc", true),
            ("a", "ab", false),
            ("**a**", "bab", true),
        ] {
            assert_eq!(matches_pattern(pattern, name), expected, "{pattern} {name}");
        }
        for pattern in ["", "a b", "é*", &"*".repeat(250)] {
            assert!(check_pattern(pattern).is_err());
        }
    }

    /// The obvious matcher: try every length for each `*`.
    fn obvious(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|skip| obvious(rest, &name[skip..])),
            Some((byte, rest)) => name.first() == Some(byte) && obvious(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn patterns_equal_the_obvious_matcher(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(matches_pattern(&pattern, &name), obvious(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn sanitised_names_are_clean_and_legal_ones_unchanged(text in any::<String>()) {
            let mut name = String::new();
            sanitise(&text, &mut name);
            prop_assert!(is_clean(&name));
            prop_assert_eq!(name == text, is_clean(&text));
            prop_assert_eq!(check(&derived_from(&text)), Ok(()));
        }
    }
}
