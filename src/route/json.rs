//! One scalar out of a JSON payload, by pointer (RFC 6901), without building the document.
//!
//! The walk follows only the wanted path and skips the rest. Rules: of members with the same name the last one counts
//! (as in JavaScript and serde_json); the whole document is checked, so that cut-off JSON is never half understood;
//! numbers keep the text they were written with; `null` is as good as missing. Bounds: [`DOCUMENT_BYTES_MAX`] and
//! [`TOKENS_MAX`]; nesting beside the path is skipped without recursion.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::ParseError;

/// A larger payload is forwarded all the same, but no template looks into it: the time per reading stays bounded.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Deepest pointer: each token is a step of recursion.
pub const TOKENS_MAX: usize = 32;

/// A compiled JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    name: String,
    /// The token as an array index, where it can be one.
    index: Option<usize>,
}

/// What a template or timestamp can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// Unescaped.
    Text(Cow<'a, str>),
    /// As written in the payload.
    Number(&'a str),
    Bool(bool),
}

/// Why a pointer gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("the payload is empty, not JSON with a \"{pointer}\"")]
    Empty { pointer: String },
    #[error("the payload of {bytes} bytes is too large to look into (at most {DOCUMENT_BYTES_MAX})")]
    TooLarge { bytes: usize },
    #[error("the payload is not valid JSON (line {line}, column {column})")]
    Invalid { line: usize, column: usize },
    #[error("the payload has no \"{pointer}\" (missing or null)")]
    Missing { pointer: String },
    #[error("\"{pointer}\" in the payload is an {kind}, not a text, number or boolean")]
    NotScalar { pointer: String, kind: &'static str },
}

impl Pointer {
    /// # Errors
    /// [`ParseError`] when the text does not begin with `/`, holds a bad escape or is too deep.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if !text.is_empty() && !text.starts_with('/') {
            return Err(
                ParseError::new(0..text.len(), "a JSON pointer begins with `/`").help(format!("write `/{text}`"))
            );
        }
        let mut tokens = Vec::new();
        let mut start = 1;
        for token in text.split('/').skip(1) {
            tokens.push(Token::parse(token).map_err(|error| error.shifted(start))?);
            start += token.len() + 1;
        }
        if tokens.len() > TOKENS_MAX {
            return Err(ParseError::new(0..text.len(), format!("the JSON pointer is deeper than {TOKENS_MAX} levels")));
        }
        Ok(Pointer { text: text.to_owned(), tokens })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// # Errors
    /// [`JsonError`] when the payload is no JSON, has no such member, or holds an object, array or null there.
    pub fn scalar<'a>(&self, payload: &'a [u8]) -> Result<Scalar<'a>, JsonError> {
        if payload.is_empty() {
            return Err(JsonError::Empty { pointer: self.text.clone() });
        }
        if payload.len() > DOCUMENT_BYTES_MAX {
            return Err(JsonError::TooLarge { bytes: payload.len() });
        }
        let mut document = serde_json::Deserializer::from_slice(payload);
        let found = Step(&self.tokens).deserialize(&mut document).map_err(|error| invalid(&error))?;
        document.end().map_err(|error| invalid(&error))?;
        let raw = found.ok_or_else(|| self.missing())?.get();
        self.interpret(raw)
    }

    fn interpret<'a>(&self, raw: &'a str) -> Result<Scalar<'a>, JsonError> {
        match raw.as_bytes().first() {
            Some(b'"') => unescaped(raw).map(Scalar::Text),
            Some(b't') => Ok(Scalar::Bool(true)),
            Some(b'f') => Ok(Scalar::Bool(false)),
            Some(b'{') => Err(JsonError::NotScalar { pointer: self.text.clone(), kind: "object" }),
            Some(b'[') => Err(JsonError::NotScalar { pointer: self.text.clone(), kind: "array" }),
            Some(b'n') | None => Err(self.missing()),
            Some(_) => Ok(Scalar::Number(raw)),
        }
    }

    fn missing(&self) -> JsonError {
        JsonError::Missing { pointer: self.text.clone() }
    }
}

impl Token {
    fn parse(text: &str) -> Result<Self, ParseError> {
        let mut name = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('~') {
            let place = text.len() - rest.len() + at;
            name.push_str(&rest[..at]);
            name.push(match rest.as_bytes().get(at + 1) {
                Some(b'0') => '~',
                Some(b'1') => '/',
                _ => {
                    return Err(ParseError::new(place..place + 1, "`~` in a JSON pointer begins an escape")
                        .help("write `~0` for `~` and `~1` for `/`"));
                }
            });
            rest = &rest[at + 2..];
        }
        name.push_str(rest);
        let index = array_index(&name);
        Ok(Token { name, index })
    }
}

impl Scalar<'_> {
    /// The text that a template renders.
    pub fn as_str(&self) -> &str {
        match self {
            Scalar::Text(text) => text,
            Scalar::Number(text) => text,
            Scalar::Bool(true) => "true",
            Scalar::Bool(false) => "false",
        }
    }
}

/// RFC 6901 section 4: digits without a leading zero. `-`, the place behind the last element, never exists.
fn array_index(token: &str) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with('0');
    if canonical && token.bytes().all(|byte| byte.is_ascii_digit()) { token.parse().ok() } else { None }
}

fn unescaped(raw: &str) -> Result<Cow<'_, str>, JsonError> {
    let inner = &raw[1..raw.len() - 1];
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    // Only here can a lone surrogate show itself: the walk skips over escapes.
    serde_json::from_str(raw).map(Cow::Owned).map_err(|error| invalid(&error))
}

fn invalid(error: &serde_json::Error) -> JsonError {
    JsonError::Invalid { line: error.line(), column: error.column() }
}

/// The rest of the path, applied to the value that comes next in the document.
struct Step<'p>(&'p [Token]);

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, document: D) -> Result<Self::Value, D::Error> {
        match self.0.split_first() {
            None => serde::Deserialize::deserialize(document).map(Some),
            Some((token, rest)) => document.deserialize_any(Walk { token, rest }),
        }
    }
}

struct Walk<'p> {
    token: &'p Token,
    rest: &'p [Token],
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(wanted) = map.next_key_seed(Named(&self.token.name))? {
            if wanted {
                found = map.next_value_seed(Step(self.rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut before = self.token.index.unwrap_or(usize::MAX);
        while before > 0 && list.next_element::<IgnoredAny>()?.is_some() {
            before -= 1;
        }
        let found = if before == 0 { list.next_element_seed(Step(self.rest))?.flatten() } else { None };
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    // A scalar has no members: the pointer goes beyond it.
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Is the next member's name this one? Compares without copying the name.
struct Named<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<bool, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for Named<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn at(pointer: &str, payload: &[u8]) -> Result<String, JsonError> {
        Pointer::parse(pointer).unwrap().scalar(payload).map(|scalar| scalar.as_str().to_owned())
    }

    #[test]
    fn follows_rfc_6901() {
        let document = br#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
        for (pointer, expected) in [
            ("/foo/0", "bar"),
            ("/foo/1", "baz"),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert_eq!(at(pointer, document).as_deref(), Ok(expected), "{pointer}");
        }
        for missing in ["/foo/2", "/foo/-", "/foo/01", "/foo/bar", "/foo/0/x", "/nothing", "/foo/18446744073709551616"]
        {
            assert_eq!(at(missing, document), Err(JsonError::Missing { pointer: missing.to_owned() }));
        }
    }

    #[test]
    fn scalars_keep_their_text() {
        for (payload, expected) in [
            (r#"{"a":1.50}"#, "1.50"),
            (r#"{"a":-0}"#, "-0"),
            (r#"{"a": 123456789012345678901234567890 }"#, "123456789012345678901234567890"),
            (r#"{"a":1E400}"#, "1E400"),
            (r#"{"a":true}"#, "true"),
            (r#"{"a":false}"#, "false"),
            (r#"{"a":""}"#, ""),
            (r#"{"a":"x\u00e9\n\ud83d\ude00"}"#, "x\u{e9}\n\u{1f600}"),
            (r#"{"\u0061":"name unescaped"}"#, "name unescaped"),
            (r#"{"a":1,"a":2}"#, "2"),
        ] {
            assert_eq!(at("/a", payload.as_bytes()).as_deref(), Ok(expected), "{payload}");
        }
        assert_eq!(at("", b" 17 ").as_deref(), Ok("17"));
    }

    #[test]
    fn the_last_of_equal_names_counts_even_when_it_has_less() {
        let error = at("/a/b", br#"{"a":{"b":1},"a":{}}"#);
        assert_eq!(error, Err(JsonError::Missing { pointer: "/a/b".to_owned() }));
    }

    #[test]
    fn what_is_no_scalar_is_refused() {
        let missing = || Err(JsonError::Missing { pointer: "/a".to_owned() });
        assert_eq!(at("/a", br#"{"a":null}"#), missing());
        assert_eq!(at("/a", b"17"), missing());
        assert_eq!(at("/a", br#""text""#), missing());
        let object = JsonError::NotScalar { pointer: "/a".to_owned(), kind: "object" };
        assert_eq!(at("/a", br#"{"a":{"b":1}}"#), Err(object));
        let array = JsonError::NotScalar { pointer: "/a".to_owned(), kind: "array" };
        assert_eq!(at("/a", br#"{"a":[1]}"#), Err(array));
    }

    #[test]
    fn bad_payloads_are_refused() {
        assert_eq!(at("/a", b""), Err(JsonError::Empty { pointer: "/a".to_owned() }));
        let large = vec![b' '; DOCUMENT_BYTES_MAX + 1];
        assert_eq!(at("/a", &large), Err(JsonError::TooLarge { bytes: large.len() }));
        let utf16: Vec<u8> = "{\"a\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for payload in [
            &b"{"[..],
            b"{\"a\":1",
            b"{\"a\":1}}",
            b"{\"a\":1} x",
            b"{\"a\":\"\xe9\"}",
            b"{\"\xe9\":1}",
            br#"{"a":"\ud800"}"#,
            b"{'a':1}",
            b"\x00\x9f\x92\x96",
            b"\x1f\x8b\x08\x00",
            &utf16,
            b"{\"a\":NaN}",
        ] {
            assert!(matches!(at("/a", payload), Err(JsonError::Invalid { .. })), "{payload:?}");
        }
    }

    #[test]
    fn deep_nesting_beside_the_path_is_skipped_and_on_it_is_bounded() {
        let deep = format!(r#"{{"x":{}1{},"a":7}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(at("/a", deep.as_bytes()).as_deref(), Ok("7"));
        assert!(Pointer::parse(&"/a".repeat(TOKENS_MAX)).is_ok());
        assert!(Pointer::parse(&"/a".repeat(TOKENS_MAX + 1)).is_err());
    }

    #[test]
    fn bad_pointers_are_named_with_their_place() {
        for (text, at) in [("a", 0..1), ("/a~", 2..3), ("/x/a~2b", 4..5), ("/~0~x", 3..4)] {
            assert_eq!(Pointer::parse(text).unwrap_err().at, at, "{text}");
        }
    }

    proptest! {
        /// serde_json's own document model is the slow, obvious answer.
        #[test]
        fn equals_the_document_model(
            payload in "[\\[{\"ab:,1 ]}]{0,24}|\\{\"a\":(1|\"x\"|\\[1,2\\]|\\{\"b\":2,\"b\":3\\}|null)(,\"a\":\\{\"b\":4\\})?\\}",
            pointer in "(/(a|b|0|1)){0,3}",
        ) {
            let expected = serde_json::from_str::<serde_json::Value>(&payload).ok().and_then(|document| {
                document.pointer(&pointer).and_then(|value| match value {
                    serde_json::Value::String(text) => Some(text.clone()),
                    serde_json::Value::Number(number) => Some(number.to_string()),
                    serde_json::Value::Bool(truth) => Some(truth.to_string()),
                    _ => None,
                })
            });
            prop_assert_eq!(at(&pointer, payload.as_bytes()).ok(), expected);
        }

        #[test]
        fn never_panics(payload in proptest::collection::vec(any::<u8>(), 0..64), pointer in "/?[a~01/é]{0,8}") {
            if let Ok(pointer) = Pointer::parse(&pointer) {
                let _ = pointer.scalar(&payload);
            }
        }
    }
}
