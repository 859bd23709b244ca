//! Problems of a configuration: what is wrong, where it stands, and the way out.
//!
//! Owns the texts that were read, the list of findings and their rendering with a caret. It never reads a file and
//! never prints. Values of secret keys are masked in the quoted source line, because reports end up in logs.

use std::fmt;
use std::path::{Path, PathBuf};

/// More findings than anyone reads at once: a megabyte of garbage must not become a gigabyte of report.
const FINDINGS_MAX: usize = 100;

/// Widest quoted source line in characters; a longer one is cut around the caret.
const LINE_WIDTH_MAX: usize = 100;

/// A range of bytes in one of the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: usize,
    pub start: usize,
    pub end: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceText {
    pub path: PathBuf,
    pub text: String,
}

/// The configuration files in the order they are merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts(pub Vec<SourceText>);

impl Texts {
    /// The place of `range` inside a string value, or the whole value where escapes or `${VAR}` hide the mapping.
    pub fn inside(&self, whole: Place, value: &str, range: &std::ops::Range<usize>) -> Place {
        let quoted = self.slice(whole);
        let verbatim = quoted.len() == value.len() + 2 && quoted.get(1..=value.len()) == Some(value);
        if !verbatim || range.end > value.len() || range.start > range.end {
            return whole;
        }
        let start = whole.start + 1 + range.start;
        Place { start, end: (whole.start + 1 + range.end).max(start + 1), ..whole }
    }

    /// The folder against which relative paths in that file are meant.
    pub fn folder(&self, file: usize) -> &Path {
        self.0.get(file).and_then(|source| source.path.parent()).unwrap_or_else(|| Path::new(""))
    }

    pub fn slice(&self, place: Place) -> &str {
        self.0.get(place.file).and_then(|source| source.text.get(place.start..place.end)).unwrap_or("")
    }

    fn spot(&self, place: Place) -> Option<Spot> {
        let source = self.0.get(place.file)?;
        let text = source.text.as_str();
        let start = text.floor_char_boundary(place.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = text.floor_char_boundary(place.end.clamp(start, line_end));
        let line = text[line_start..line_end].trim_end_matches('\r');
        let column = text[line_start..start].chars().count();
        let (quote, caret) = quote(line, column, text[start..end].trim_end_matches('\r').chars().count());
        Some(Spot {
            file: source.path.display().to_string(),
            line: text[..line_start].matches('\n').count() + 1,
            column: column + 1,
            quote,
            caret,
        })
    }
}

/// Makes a line fit for a terminal: secrets masked, tabs and control characters replaced, cut around the caret.
fn quote(line: &str, column: usize, width: usize) -> (String, Caret) {
    let clean: Vec<char> = mask_secrets(line).chars().map(|c| if c == '\t' { ' ' } else { c }).map(visible).collect();
    let from = if clean.len() > LINE_WIDTH_MAX { column.saturating_sub(LINE_WIDTH_MAX / 2) } else { 0 };
    let quote: String = clean.iter().skip(from).take(LINE_WIDTH_MAX).collect();
    let start = column - from;
    (quote, Caret { start, width: width.clamp(1, LINE_WIDTH_MAX.saturating_sub(start).max(1)) })
}

/// A configuration may hold terminal escapes; a report must not replay them.
fn visible(c: char) -> char {
    if c.is_control() { '\u{FFFD}' } else { c }
}

/// Replaces the text behind the `=` of a secret key, character by character so that columns stay true.
/// It works on the bare line, because a file that does not parse has no keys to ask.
fn mask_secrets(line: &str) -> String {
    let mut masked = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(equals) = rest.find('=') {
        let (key, value) = rest.split_at(equals + 1);
        masked.push_str(key);
        let end = value_end(value);
        let secret = is_secret_key(&key[..equals]);
        masked.extend(value[..end].chars().map(|c| if secret && !"\"' ".contains(c) { '*' } else { c }));
        rest = &value[end..];
    }
    masked.push_str(rest);
    masked
}

/// Where the value that begins `text` ends: after its closing quote, else before a comma, else at the line's end.
fn value_end(text: &str) -> usize {
    let start = text.len() - text.trim_start().len();
    let Some(quote) = text[start..].chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return text.find(',').unwrap_or(text.len());
    };
    let mut escaped = false;
    for (at, c) in text[start + 1..].char_indices() {
        if c == quote && !escaped {
            return start + 1 + at + 1;
        }
        escaped = c == '\\' && !escaped && quote == '"';
    }
    text.len()
}

fn is_secret_key(before_equals: &str) -> bool {
    let word = before_equals.trim_end().to_ascii_lowercase();
    let key = word.rsplit([' ', '{', ',', '\t']).next().unwrap_or(&word).trim_matches(['"', '\'']);
    let named = ["password", "secret", "passphrase", "token", "credential"].iter().any(|hint| key.contains(hint));
    named && !key.ends_with("_file")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    /// Legal, but unwise.
    Warning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Caret {
    start: usize,
    width: usize,
}

/// A place as a person reads it: line and column count from 1, the column in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    pub file: String,
    pub line: usize,
    pub column: usize,
    /// The source line with secrets masked.
    pub quote: String,
    caret: Caret,
}

/// One thing that is wrong or unwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub message: String,
    /// `None` where the problem is the lack of something, or lies in no file.
    pub spot: Option<Spot>,
    /// A second place that belongs to it, with what it is: "first defined here".
    pub note: Option<(String, Spot)>,
    /// The way out.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.severity == Severity::Warning { "warning: " } else { "" };
        let Some(spot) = &self.spot else {
            writeln!(f, "{prefix}{}", self.message)?;
            return self.tail(f, 0);
        };
        let digits = spot.line.to_string().len();
        let Caret { start, width } = spot.caret;
        writeln!(f, "{}:{}:{}: {prefix}{}", spot.file, spot.line, spot.column, self.message)?;
        writeln!(f, "{:digits$} |", "")?;
        writeln!(f, "{} | {}", spot.line, spot.quote.trim_end())?;
        writeln!(f, "{:digits$} | {:start$}{}", "", "", "^".repeat(width))?;
        self.tail(f, digits)
    }
}

impl Problem {
    fn tail(&self, f: &mut fmt::Formatter<'_>, digits: usize) -> fmt::Result {
        if let Some((what, spot)) = &self.note {
            writeln!(f, "{:digits$} = note: {what} {}:{}:{}", "", spot.file, spot.line, spot.column)?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "{:digits$} = help: {help}", "")?;
        }
        Ok(())
    }
}

/// Whether the configuration could be read at all: the exit code differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The main file does not exist.
    Missing,
    /// The main file may not be read by this user.
    Denied,
    /// The main file was read; its content is wrong.
    Content,
}

/// Everything that is wrong with a configuration, in the order of the files. `Display` is the full report.
#[derive(Debug, Clone)]
pub struct Problems {
    pub list: Vec<Problem>,
    /// Further errors behind the bound of the list.
    pub omitted: usize,
    pub cause: Cause,
    /// The state directory, as far as it could be made out: there lies the last good configuration.
    pub state_dir: PathBuf,
    /// Of the same: there a running gateway can be asked.
    pub runtime_dir: PathBuf,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            writeln!(f, "{problem}")?;
        }
        let errors = self.omitted + self.list.iter().filter(|p| p.severity == Severity::Error).count();
        let plural = if errors == 1 { "" } else { "s" };
        write!(f, "{errors} error{plural} in the configuration")?;
        if self.omitted > 0 { write!(f, " ({} not shown)", self.omitted) } else { Ok(()) }
    }
}

impl std::error::Error for Problems {}

/// A problem before its places are turned into lines.
#[derive(Debug)]
pub struct Finding {
    severity: Severity,
    message: String,
    place: Option<Place>,
    note: Option<(String, Place)>,
    help: Option<String>,
}

impl Finding {
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    pub fn note(&mut self, what: &str, place: Place) -> &mut Self {
        self.note = Some((what.to_owned(), place));
        self
    }
}

/// Collects findings, so that none hides the next one.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    omitted: usize,
    errors: usize,
}

impl Findings {
    pub fn error(&mut self, place: impl Into<Option<Place>>, message: impl Into<String>) -> &mut Finding {
        self.errors += 1;
        self.push(Severity::Error, place.into(), message.into())
    }

    pub fn warning(&mut self, place: impl Into<Option<Place>>, message: impl Into<String>) -> &mut Finding {
        self.push(Severity::Warning, place.into(), message.into())
    }

    fn push(&mut self, severity: Severity, place: Option<Place>, message: String) -> &mut Finding {
        if self.list.len() > FINDINGS_MAX {
            self.omitted += 1;
            self.list.pop();
        }
        self.list.push(Finding { severity, message, place, note: None, help: None });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Drops what was found at a place on one of these lines: follow-on errors of a broken line only confuse.
    pub fn forget_lines(&mut self, texts: &Texts, broken: &[Place], from: usize) {
        let line_of = |place: Place| {
            let text = texts.0[place.file].text.as_bytes();
            text[..place.start.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
        };
        let lines: Vec<(usize, usize)> = broken.iter().map(|place| (place.file, line_of(*place))).collect();
        let mut at = 0;
        self.list.retain(|finding| {
            at += 1;
            at <= from || !finding.place.is_some_and(|place| lines.contains(&(place.file, line_of(place))))
        });
    }

    /// Where this file is already known to be wrong.
    pub fn places_in(&self, file: usize) -> impl Iterator<Item = Place> {
        self.list.iter().filter_map(|finding| finding.place).filter(move |place| place.file == file)
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The problems in the order of the files, those without a place last, and the number left out.
    pub fn into_problems(mut self, texts: &Texts) -> (Vec<Problem>, usize) {
        self.list.sort_by_key(|finding| (finding.place.is_none(), finding.place));
        let omitted = self.omitted + self.list.len().saturating_sub(FINDINGS_MAX);
        let shown = self.list.into_iter().take(FINDINGS_MAX).map(|finding| Problem {
            severity: finding.severity,
            message: finding.message,
            spot: finding.place.and_then(|place| texts.spot(place)),
            note: finding.note.and_then(|(what, place)| Some((what, texts.spot(place)?))),
            help: finding.help,
        });
        (shown.collect(), omitted)
    }
}

/// The nearest of `known`, when it is near enough to be what was meant.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let bound = (word.chars().count() / 3).max(2);
    known.into_iter().map(|name| (distance(word, name), name)).filter(|(d, _)| *d <= bound).min().map(|(_, name)| name)
}

/// Levenshtein distance, case ignored.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// `"a", "b" or "c"`: a list of names for a help line.
pub fn one_of<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("{name:?}")).collect();
    match quoted.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}
