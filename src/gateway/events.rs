//! The gateway's own records: what happened, as JSON on the events topic, key = gateway name. Pure.

use serde_json::{Map, Value, json};

use crate::clock;
use crate::record::{Body, OldId, RecordView, TimestampKind};
use crate::spool::{DeadLetter, Loss};

/// Makes the records of `forebay.events`.
pub struct EventWriter {
    pub topic: String,
    pub gateway: String,
    scratch: Vec<u8>,
}

impl EventWriter {
    pub fn new(topic: String, gateway: String) -> Self {
        EventWriter { topic, gateway, scratch: Vec::new() }
    }

    /// `fields` must be an object; `event`, `gateway` and `at` (ms since 1970) are added.
    pub fn write(&mut self, event: &str, fields: Value) -> Body {
        let arrival = clock::arrival();
        let mut object = Map::new();
        object.insert("event".into(), event.into());
        object.insert("gateway".into(), self.gateway.as_str().into());
        object.insert("at".into(), arrival.wall_ms.into());
        if let Value::Object(fields) = fields {
            object.extend(fields);
        }
        let payload = Value::Object(object).to_string();
        RecordView {
            topic: &self.topic,
            key: Some(self.gateway.as_bytes()),
            headers: vec![("content-type", b"application/json")],
            payload: payload.as_bytes(),
            timestamp_ms: arrival.wall_ms,
            timestamp_kind: TimestampKind::Arrival,
            arrival,
            old_id: None,
        }
        .encode(&mut self.scratch)
    }

    pub fn loss(&mut self, loss: &Loss, lane: &str) -> Body {
        self.write(
            "loss",
            json!({
                "entry": loss.id, "lane": lane, "run": format!("{:016x}", loss.run), "first": loss.first,
                "last": loss.last, "n": loss.n, "exact": loss.exact, "reason": loss.reason, "lostAt": loss.at,
            }),
        )
    }

    /// A copy of a dead letter for the dead-letter topic, with its cause and where it was going.
    pub fn dead_letter(&mut self, letter: &DeadLetter, topic: &str) -> Option<Body> {
        let view = letter.body.view().ok()?;
        let mut headers = vec![("forebay-cause", letter.cause.as_bytes()), ("forebay-topic", view.topic.as_bytes())];
        headers.extend(view.headers.iter().copied());
        // The copy is the same record: it keeps the id.
        let own = OldId { run: letter.run, lane: letter.lane, sequence: letter.sequence, requeues: 0 };
        let old_id = Some(view.old_id.unwrap_or(own));
        Some(RecordView { topic, headers, old_id, ..view }.encode(&mut self.scratch))
    }
}
