//! The producer of `spool replay`.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use crate::config::Kafka;
use crate::forward::client::kafka::{producer_config, token, token_file};
use crate::forward::kafka::{Code, write_id};
use crate::record::Body;

const BYTES_MAX: u64 = 4 << 20;
/// Each waits up to 100 ms while the producer is full.
const SEND_TRIES: u32 = 600;

/// A producer apart, for `spool replay`: what it sends has been delivered before, so nothing hangs on it.
pub struct Replayer {
    producer: ThreadedProducer<ReplayContext>,
    gateway: String,
    job: String,
    topic: Option<String>,
}

struct ReplayContext {
    token_file: Option<PathBuf>,
    failed: Mutex<Option<String>>,
}

impl ClientContext for ReplayContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        token(self.token_file.as_deref())
    }
}

impl ProducerContext for ReplayContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.lock().expect("no holder of this lock panics").get_or_insert(error.to_string());
        }
    }
}

impl Replayer {
    /// # Errors
    /// librdkafka's words when the configuration does not make a producer.
    pub fn new(kafka: &Kafka, gateway: &str, job: &str, topic: Option<String>) -> Result<Self, String> {
        let config = producer_config(kafka, BYTES_MAX, false);
        let context = ReplayContext { token_file: token_file(kafka), failed: Mutex::new(None) };
        let producer = config.create_with_context(context).map_err(|e| e.to_string())?;
        Ok(Replayer { producer, gateway: gateway.to_owned(), job: job.to_owned(), topic })
    }

    /// Hands a record over; waits while the producer is full.
    ///
    /// # Errors
    /// The first failed delivery so far, in librdkafka's words, or that the record does not decode.
    pub fn send(&self, run: u64, lane: u32, sequence: u64, body: &Body) -> Result<(), String> {
        let view = body.view().map_err(|e| e.to_string())?;
        let mut id = String::new();
        write_id(&mut id, &self.gateway, (run, lane, sequence), &view);
        let mut headers = OwnedHeaders::new_with_capacity(view.headers.len() + 2)
            .insert(Header { key: "forebay-id", value: Some(id.as_bytes()) })
            .insert(Header { key: "forebay-replay", value: Some(self.job.as_bytes()) });
        for (name, value) in &view.headers {
            headers = headers.insert(Header { key: name, value: Some(*value) });
        }
        let topic = self.topic.as_deref().unwrap_or(view.topic);
        let mut message = BaseRecord::<[u8], [u8]>::to(topic).payload(view.payload).headers(headers);
        message = message.timestamp(view.timestamp_ms);
        if let Some(key) = view.key {
            message = message.key(key);
        }
        for _ in 0..SEND_TRIES {
            self.check()?;
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((error, back)) if error.rdkafka_error_code() == Some(Code::QueueFull) => {
                    message = back;
                    // Its own thread polls; this waits until something has been delivered.
                    let _ = self.producer.flush(Duration::from_millis(100));
                }
                Err((error, _)) => return Err(error.to_string()),
            }
        }
        Err("Kafka has taken nothing for a minute".into())
    }

    fn check(&self) -> Result<(), String> {
        let failed = self.producer.context().failed.lock().expect("no holder of this lock panics").clone();
        failed.map_or(Ok(()), Err)
    }

    /// Waits until everything has been delivered.
    ///
    /// # Errors
    /// The first failed delivery, or that `patience` was not enough.
    pub fn finish(&self, patience: Duration) -> Result<(), String> {
        let flushed = self.producer.flush(patience).map_err(|e| e.to_string());
        self.check().and(flushed)
    }
}
