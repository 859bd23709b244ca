//! What librdkafka tells of a producer: delivery reports (step 8) and notes, on their way to the hub. Called from its
//! threads.

use std::sync::{Arc, Mutex};

pub use rdkafka::types::RDKafkaErrorCode as Code;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::config::Kafka;
use crate::forward::ProducerNote;
use crate::forward::client::kafka::{token, token_file};

/// Where reports and notes go. Called from librdkafka's threads: must not block.
pub trait Reports: Send + Sync + 'static {
    fn report(&self, cluster: usize, generation: u64, slot: usize, result: Result<Place, Code>);
    fn note(&self, note: ProducerNote);
}

/// Where a record is. The offset is negative when the broker knew the record already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub partition: i32,
    pub offset: i64,
}

pub struct Context {
    cluster: usize,
    generation: u64,
    name: String,
    token_file: Option<std::path::PathBuf>,
    reports: Arc<dyn Reports>,
    /// What a connection failed for last: librdkafka says only afterwards that all brokers are down, and not why.
    last_failure: Mutex<String>,
    /// Why there is no token, as it was logged.
    token_trouble: Mutex<String>,
}

impl Context {
    pub fn new(cluster: usize, generation: u64, config: &Kafka, reports: Arc<dyn Reports>) -> Self {
        let (name, token_file) = (config.name.clone(), token_file(config));
        let (last_failure, token_trouble) = (Mutex::default(), Mutex::default());
        Context { cluster, generation, name, token_file, reports, last_failure, token_trouble }
    }

    fn brokers_down(&self, reason: &str) {
        let last_failure = self.last_failure.lock().expect("no holder of this lock panics").clone();
        let cause = if last_failure.is_empty() { reason.to_owned() } else { last_failure };
        self.reports.note(ProducerNote::Reachable { cluster: self.cluster, up: false, cause });
    }

    /// librdkafka tries again every ten seconds, and connects to no broker meanwhile: nobody else would say why.
    fn tell_token(&self, trouble: &str) {
        let mut told = self.token_trouble.lock().expect("no holder of this lock panics");
        if *told != trouble && !trouble.is_empty() {
            tracing::warn!(cluster = self.name, "failed to {trouble}; readings are kept");
        }
        trouble.clone_into(&mut told);
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka repeats itself while a broker is away; the hub logs the change once.
        if matches!(level, RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical) {
            tracing::warn!(cluster = self.name, facility, "{message}");
        } else {
            tracing::debug!(cluster = self.name, facility, "{message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let (cluster, generation) = (self.cluster, self.generation);
        match error.rdkafka_error_code() {
            Some(Code::Fatal) => {
                self.reports.note(ProducerNote::Fatal { cluster, generation, cause: reason.to_owned() });
            }
            Some(Code::AllBrokersDown) => self.brokers_down(reason),
            _ => {
                reason.clone_into(&mut self.last_failure.lock().expect("no holder of this lock panics"));
                tracing::debug!(cluster = self.name, %error, reason, "librdkafka reports an error");
            }
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let token = token(self.token_file.as_deref());
        self.tell_token(&token.as_ref().err().map(ToString::to_string).unwrap_or_default());
        token
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: usize) {
        let result = match result {
            Ok(message) => Ok(Place { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        };
        self.reports.report(self.cluster, self.generation, slot, result);
    }
}
