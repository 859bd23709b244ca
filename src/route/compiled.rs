//! One route, compiled: from a reading that matched its filter to a record, or to the reason why there is none.

use std::borrow::Cow;

use super::error::{ParseError, Part, RenderError, RouteError, RouterError};
use super::filter::{Captures, Filter};
use super::headers::Headers;
use super::json::Pointer;
use super::kafka_name::{self, NameError};
use super::names::Names;
use super::render::{MARK, Renderer, Values};
use super::spec::{OnError, RouteSpec, TimestampFormat, TimestampSpec};
use super::template::Template;
use super::timestamp;
use crate::record::{Body, Reading, RecordView, TimestampKind};

#[derive(Debug)]
pub(super) struct Compiled {
    name: String,
    sources: Vec<String>,
    filter: Filter,
    lane: usize,
    topic: Topic,
    key: Key,
    headers: Headers,
    timestamp: Option<(Pointer, TimestampFormat)>,
    on_error: OnError,
}

/// A reading that became no record, and the Kafka topic it was meant for as far as that is known.
#[derive(Debug)]
pub(super) struct Refused {
    pub topic: Option<String>,
    pub error: RouteError,
}

#[derive(Debug)]
enum Topic {
    /// Registered when the router was built.
    Constant(String),
    Rendered {
        /// Place of the route: the registry tells routes apart by it.
        route: usize,
        renderer: Renderer,
        /// With two variable parts the seam between them matters, see `names.rs`.
        marked: bool,
    },
}

#[derive(Debug)]
enum Key {
    Null,
    MqttTopic,
    Rendered(Renderer),
}

impl Compiled {
    /// # Errors
    /// [`RouterError`] with the key of the `[[route]]` table and the place in its text.
    pub fn new(number: usize, spec: &RouteSpec, names: &Names) -> Result<Self, RouterError> {
        let wrong = |field: &str| {
            let (route, field) = (spec.name.clone(), field.to_owned());
            move |error| RouterError::Route { route, field, error }
        };
        let filter = Filter::parse(&spec.filter).map_err(wrong("filter"))?;
        let captures = filter.captures();
        let topic = Topic::compile(number, &spec.kafka_topic, captures, names).map_err(wrong("kafka_topic"))?;
        let key = Key::compile(&spec.key, captures).map_err(wrong("key"))?;
        let headers = Headers::compile(&spec.headers, captures)
            .map_err(|(name, error)| wrong(&format!("headers.{name}"))(error))?;
        let timestamp =
            spec.timestamp.as_ref().map(compile_timestamp).transpose().map_err(wrong("timestamp.pointer"))?;
        Ok(Compiled {
            name: spec.name.clone(),
            sources: spec.sources.clone(),
            lane: spec.lane,
            on_error: spec.on_error,
            filter,
            topic,
            key,
            headers,
            timestamp,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn lane(&self) -> usize {
        self.lane
    }

    pub fn on_error(&self) -> OnError {
        self.on_error
    }

    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    pub fn matches<'t>(&self, reading: &Reading<'t>) -> Option<Captures<'t>> {
        if !self.sources.is_empty() && !self.sources.iter().any(|source| source == reading.source) {
            return None;
        }
        self.filter.matches(reading.topic)
    }

    /// The record of a reading that matched. The payload goes on byte for byte.
    ///
    /// # Errors
    /// [`Refused`] when any part of it cannot be made.
    pub fn record(&self, values: &Values<'_>, names: &Names, scratch: &mut Vec<u8>) -> Result<Body, Refused> {
        let topic = self.topic.resolve(values, names).map_err(|error| Refused { topic: None, error })?;
        self.encode(&topic, values, scratch).map_err(|error| Refused { topic: Some(topic.into_owned()), error })
    }

    fn encode(&self, topic: &str, values: &Values<'_>, scratch: &mut Vec<u8>) -> Result<Body, RouteError> {
        let reading = values.reading;
        let key = self.key.render(values)?;
        let key = key.as_deref().map(str::as_bytes);
        let texts = self.headers.render(values)?;
        let (timestamp_ms, timestamp_kind) = self.timestamp(reading)?;
        let record = RecordView {
            topic,
            key,
            headers: self.headers.assemble(reading, key, &texts),
            payload: reading.payload,
            timestamp_ms,
            timestamp_kind,
            arrival: reading.arrival,
            old_id: None,
        };
        Ok(record.encode(scratch))
    }

    fn timestamp(&self, reading: &Reading<'_>) -> Result<(i64, TimestampKind), RouteError> {
        let Some((pointer, format)) = &self.timestamp else {
            return Ok((reading.arrival.wall_ms, TimestampKind::Arrival));
        };
        let value = pointer.scalar(reading.payload).map_err(|error| RenderError::from(error).of(Part::Timestamp))?;
        Ok((timestamp::millis(&value, *format)?, TimestampKind::Payload))
    }
}

impl Topic {
    fn compile(route: usize, text: &str, captures: &[String], names: &Names) -> Result<Self, ParseError> {
        let template = Template::parse(text)?;
        kafka_name::check_template(&template)?;
        if let Some(name) = template.constant() {
            names.claim(route, name, name).map_err(|error| ParseError::new(0..text.len(), error.to_string()))?;
            return Ok(Topic::Constant(name.to_owned()));
        }
        let renderer = Renderer::bind(&template, captures)?;
        Ok(Topic::Rendered { route, marked: renderer.variables() > 1, renderer })
    }

    fn resolve(&self, values: &Values<'_>, names: &Names) -> Result<Cow<'_, str>, RouteError> {
        let (route, renderer, marked) = match self {
            Topic::Constant(name) => return Ok(Cow::Borrowed(name)),
            Topic::Rendered { route, renderer, marked } => (*route, renderer, *marked),
        };
        let in_topic = |error: RenderError| error.of(Part::Topic);
        let mut source_name = String::new();
        if marked {
            renderer.append_marked(values, &mut source_name).map_err(in_topic)?;
        } else {
            renderer.append(values, &mut source_name).map_err(in_topic)?;
            if kafka_name::is_clean(&source_name) {
                names.claim(route, &source_name, &source_name)?;
                return Ok(Cow::Owned(source_name));
            }
            if source_name.contains(MARK) {
                return Err(NameError::Characters(source_name.replace(MARK, "\u{fffd}")).into());
            }
        }
        let mut name = String::with_capacity(source_name.len());
        kafka_name::sanitise(&source_name, &mut name);
        names.claim(route, &source_name, &name)?;
        Ok(Cow::Owned(name))
    }
}

impl Key {
    fn compile(text: &str, captures: &[String]) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Ok(Key::Null);
        }
        let renderer = Renderer::bind(&Template::parse(text)?, captures)?;
        Ok(if renderer.is_mqtt_topic() { Key::MqttTopic } else { Key::Rendered(renderer) })
    }

    fn render<'r>(&self, values: &Values<'r>) -> Result<Option<Cow<'r, str>>, RouteError> {
        match self {
            Key::Null => Ok(None),
            Key::MqttTopic => Ok(Some(Cow::Borrowed(values.reading.topic))),
            Key::Rendered(renderer) => {
                let mut key = String::new();
                renderer.append(values, &mut key).map_err(|error| error.of(Part::Key))?;
                if key.is_empty() { Err(RouteError::EmptyKey) } else { Ok(Some(Cow::Owned(key))) }
            }
        }
    }
}

fn compile_timestamp(spec: &TimestampSpec) -> Result<(Pointer, TimestampFormat), ParseError> {
    Ok((Pointer::parse(&spec.pointer)?, spec.format))
}
