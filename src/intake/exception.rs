//! Report by exception: which readings say nothing new and need not be sent. Pure; times are since any fixed moment.
//!
//! A reading is compared with the one that was *sent* last, not with the one before it, so that a value that creeps is
//! sent once it has crept far enough. What changes too early waits: the newest such reading is sent when its interval
//! ends, so that whoever reads always comes to know where a value has stopped. The first reading of a series is always
//! sent, and nothing outlives the process: after a start all are first ones.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::{Map, Value};

/// Series that are watched at once, for each source.
const SERIES_MAX: usize = 256;
/// What a kept field costs beside its text.
const FIELD_BYTES: usize = 64;

/// When a reading is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Of every field that has none of its own.
    pub rule: Rule,
    /// By the names of fields.
    pub fields: BTreeMap<String, Rule>,
    /// Fields whose changes say nothing: clocks, counters of frames.
    pub ignore: Vec<String>,
    /// Fields whose values tell one series from another: a station's number, the name of a sentence.
    pub per: Vec<String>,
    /// A reading that comes so long after the last one sent is sent though it says nothing new.
    pub max_interval: Duration,
    /// Of all that is kept to compare with, and of what waits.
    pub bytes_max: usize,
}

/// How much a field must change, and how soon that may be said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    pub deadband: Deadband,
    /// A change that comes sooner after the last reading sent waits until then.
    pub min_interval: Duration,
}

/// A number that differs by more than this has changed. Everything else has changed when it is not the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Deadband {
    Absolute(f64),
    /// Of what was sent last.
    Percent(f64),
}

impl Deadband {
    fn leaves(self, old: &Value, new: &Value) -> bool {
        if old == new {
            return false;
        }
        let (Some(from), Some(to)) = (old.as_f64(), new.as_f64()) else { return true };
        let band = match self {
            Deadband::Absolute(band) => band,
            Deadband::Percent(percent) => from.abs() * percent / 100.0,
        };
        // Without a band every difference counts, also one that a float cannot show.
        band == 0.0 || (to - from).abs() > band
    }
}

/// What a reading says.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Fields(Map<String, Value>),
    /// Compared byte by byte.
    Bytes(Vec<u8>),
}

impl Content {
    /// Bytes in memory, roughly.
    fn weight(&self) -> usize {
        match self {
            Content::Fields(fields) => fields.iter().map(|(name, value)| name.len() + weight(value)).sum(),
            Content::Bytes(bytes) => bytes.len() + FIELD_BYTES,
        }
    }
}

fn weight(value: &Value) -> usize {
    FIELD_BYTES
        + match value {
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(weight).sum(),
            Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + weight(value)).sum(),
            _ => 0,
        }
}

/// A reading as it is offered.
#[derive(Debug)]
pub struct Offer<'a, T> {
    pub topic: &'a str,
    /// Whether the values can be trusted. A change of it is sent at once, whatever the intervals say.
    pub quality: &'a str,
    pub content: Content,
    /// What is sent.
    pub item: T,
    /// Its bytes in memory.
    pub bytes: usize,
}

/// Watches the series of one source.
pub struct Exceptions<T> {
    report: Report,
    series: HashMap<String, Series<T>>,
    bytes: usize,
}

struct Series<T> {
    sent: Content,
    sent_at: Duration,
    quality: String,
    heard_at: Duration,
    waiting: Option<Waiting<T>>,
    /// Of key, `sent` and `waiting`.
    bytes: usize,
}

/// A change that came too early.
struct Waiting<T> {
    item: T,
    content: Content,
    bytes: usize,
    due: Duration,
}

/// What a reading says beside the last one sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    None,
    /// Not before this.
    From(Duration),
}

impl<T> Exceptions<T> {
    pub fn new(report: Report) -> Self {
        Exceptions { report, series: HashMap::new(), bytes: 0 }
    }

    /// Takes a reading. What is to be sent now is appended to `out`, in order. Returns how many were found to say nothing
    /// new; each reading is either sent, waits, or is counted so, once.
    pub fn offer(&mut self, now: Duration, offer: Offer<'_, T>, out: &mut Vec<T>) -> u64 {
        let key = self.key(&offer);
        let Some(series) = self.series.get_mut(&key) else {
            out.push(offer.item);
            self.watch(&key, offer.quality, offer.content, now, out);
            return 0;
        };
        series.heard_at = now;
        if series.quality != offer.quality {
            // What waited is the last that was known before: nothing that comes later makes up for it.
            out.extend(series.waiting.take().map(|waiting| waiting.item));
            offer.quality.clone_into(&mut series.quality);
            self.send(&key, offer.content, offer.item, now, out);
            return 0;
        }
        let superseded = u64::from(series.waiting.take().is_some());
        let news = self.report.news(&series.sent, series.sent_at, &offer.content, now);
        match news {
            News::From(due) if due > now => {
                let (item, content) = (offer.item, offer.content);
                let bytes = offer.bytes + content.weight();
                series.waiting = Some(Waiting { item, content, bytes, due });
                self.weigh(&key, out);
                superseded
            }
            News::From(_) => {
                self.send(&key, offer.content, offer.item, now, out);
                superseded
            }
            News::None => {
                self.weigh(&key, out);
                superseded + 1
            }
        }
    }

    /// When something that waits is to be sent. `None`: nothing waits.
    pub fn due_at(&self) -> Option<Duration> {
        self.series.values().filter_map(|series| Some(series.waiting.as_ref()?.due)).min()
    }

    /// Takes what has waited long enough, each series once.
    pub fn take_due(&mut self, now: Duration, out: &mut Vec<T>) {
        self.take_until(now, now, out);
    }

    /// What is due until then goes in that order.
    fn take_until(&mut self, until: Duration, now: Duration, out: &mut Vec<T>) {
        let due = |(key, series): (&String, &Series<T>)| Some((series.waiting.as_ref()?.due, key.clone()));
        let mut due: Vec<_> = self.series.iter().filter_map(due).filter(|(at, _)| *at <= until).collect();
        due.sort();
        for (_, key) in due {
            let waiting = self.series.get_mut(&key).and_then(|series| series.waiting.take());
            if let Some(waiting) = waiting {
                self.send(&key, waiting.content, waiting.item, now, out);
            }
        }
    }

    /// Takes all that waits: nobody will ask again.
    pub fn take_all(&mut self, now: Duration, out: &mut Vec<T>) {
        self.take_until(Duration::MAX, now, out);
    }

    /// A topic may hold what several devices say.
    fn key(&self, offer: &Offer<'_, T>) -> String {
        let mut key = offer.topic.to_owned();
        if let Content::Fields(fields) = &offer.content {
            for name in &self.report.per {
                key.push('\n');
                // Text and number are told apart: "1" is not 1.
                fields.get(name).into_iter().for_each(|value| key.push_str(&value.to_string()));
            }
        }
        key
    }

    fn watch(&mut self, key: &str, quality: &str, sent: Content, now: Duration, out: &mut Vec<T>) {
        if self.series.len() >= SERIES_MAX {
            self.forget_oldest(out);
        }
        let quality = quality.to_owned();
        self.series
            .insert(key.to_owned(), Series { sent, sent_at: now, quality, heard_at: now, waiting: None, bytes: 0 });
        self.weigh(key, out);
    }

    fn send(&mut self, key: &str, content: Content, item: T, now: Duration, out: &mut Vec<T>) {
        out.push(item);
        if let Some(series) = self.series.get_mut(key) {
            series.sent = content;
            series.sent_at = now;
            self.weigh(key, out);
        }
    }

    /// Takes note of what a series now holds, and makes room where that is too much.
    fn weigh(&mut self, key: &str, out: &mut Vec<T>) {
        let Some(series) = self.series.get_mut(key) else { return };
        let waiting = series.waiting.as_ref().map_or(0, |waiting| waiting.bytes);
        let bytes = key.len() + series.sent.weight() + waiting;
        self.bytes = self.bytes - series.bytes + bytes;
        series.bytes = bytes;
        while self.bytes > self.report.bytes_max {
            self.forget_oldest(out);
        }
    }

    /// The series that has not been heard of for the longest is forgotten: its next reading is sent as a first one, and
    /// what waits of it now.
    fn forget_oldest(&mut self, out: &mut Vec<T>) {
        let oldest = self.series.iter().min_by_key(|(_, series)| series.heard_at).map(|(key, _)| key.clone());
        if let Some(series) = oldest.and_then(|key| self.series.remove(&key)) {
            self.bytes -= series.bytes;
            out.extend(series.waiting.map(|waiting| waiting.item));
        }
    }
}

impl Report {
    fn news(&self, sent: &Content, sent_at: Duration, new: &Content, now: Duration) -> News {
        if now >= sent_at + self.max_interval {
            return News::From(now);
        }
        let (Content::Fields(old), Content::Fields(new)) = (sent, new) else {
            return if sent == new { News::None } else { News::From(sent_at + self.rule.min_interval) };
        };
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        let changed = |(name, value): &(&String, &Value)| {
            old.get(*name).is_none_or(|old| self.rule_of(name).deadband.leaves(old, value))
        };
        let names = new.iter().filter(changed).map(|(name, _)| name).chain(gone);
        let from = names.filter(|name| !self.is_beside_the_point(name)).map(|name| self.rule_of(name).min_interval);
        from.min().map_or(News::None, |least| News::From(sent_at + least))
    }

    fn rule_of(&self, field: &str) -> Rule {
        self.fields.get(field).copied().unwrap_or(self.rule)
    }

    fn is_beside_the_point(&self, field: &str) -> bool {
        self.ignore.iter().any(|name| name == field)
    }
}

#[cfg(test)]
mod tests;
