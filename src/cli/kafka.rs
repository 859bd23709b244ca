//! The administrator's side of a Kafka cluster: which topics there are, and making or changing them.
//!
//! Blocks; for commands, never for the running gateway. Owns one librdkafka admin client with its threads. It never
//! creates a topic by asking for it.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewPartitions, NewTopic,
    OwnedResourceSpecifier, ResourceSpecifier, TopicReplication, TopicResult,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use tokio::runtime::Runtime;

use super::exit;
use super::topics::Actual;
use crate::config::{Kafka, Sasl, Topic};
use crate::forward::client::kafka::base_config;

/// Long enough for a cluster behind LTE that has just elected a controller.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a cluster could not be asked or changed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("set up a client for [kafka.{cluster}]: {reason}")]
    Client { cluster: String, reason: String },
    #[error("reach [kafka.{cluster}] at {servers}: {reason}")]
    Unreachable { cluster: String, servers: String, reason: String },
    #[error("{action} topic \"{topic}\": {code}")]
    Refused { action: &'static str, topic: String, code: RDKafkaErrorCode },
    #[error("{action} topic \"{topic}\": {reason}")]
    Unanswered { action: &'static str, topic: String, reason: String },
}

impl ClusterError {
    /// One of [`super::exit`].
    pub fn exit_code(&self) -> u8 {
        use RDKafkaErrorCode::{ClusterAuthorizationFailed, TopicAuthorizationFailed};
        match self {
            ClusterError::Client { .. } => exit::CONFIG,
            ClusterError::Refused { code: TopicAuthorizationFailed | ClusterAuthorizationFailed, .. } => exit::NOPERM,
            _ => exit::UNAVAILABLE,
        }
    }
}

/// One `[kafka.NAME]`, connected.
pub struct Cluster {
    admin: AdminClient<DefaultClientContext>,
    /// Drives the futures of `admin`; they need no reactor.
    runtime: Runtime,
    name: String,
    servers: String,
}

impl Cluster {
    /// # Errors
    /// [`ClusterError::Client`] when librdkafka refuses the settings. Does not wait for the cluster.
    pub fn open(kafka: &Kafka) -> Result<Self, ClusterError> {
        let wrong = |reason: String| ClusterError::Client { cluster: kafka.name.clone(), reason };
        let admin = admin_config(kafka).map_err(wrong)?.create().map_err(|error| wrong(error.to_string()))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().build().map_err(|error| wrong(error.to_string()))?;
        Ok(Cluster { admin, runtime, name: kafka.name.clone(), servers: kafka.bootstrap_servers.clone() })
    }

    /// Of the table `[kafka.NAME]`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All topics that this user may see; those in `with_properties` also with their properties.
    ///
    /// # Errors
    /// [`ClusterError`] when the cluster does not answer or refuses.
    pub fn topics(&self, with_properties: &[&str]) -> Result<BTreeMap<String, Actual>, ClusterError> {
        // The list of all topics: a question for one by its name could create it.
        let metadata = self.admin.inner().fetch_metadata(None, TIMEOUT).map_err(|error| self.unreachable(&error))?;
        let mut topics: BTreeMap<String, Actual> =
            metadata.topics().iter().map(|topic| (topic.name().to_owned(), shape(topic))).collect();
        let known: Vec<&str> = with_properties.iter().copied().filter(|name| topics.contains_key(*name)).collect();
        for resource in self.describe(&known)? {
            if let OwnedResourceSpecifier::Topic(name) = &resource.specifier
                && let Some(topic) = topics.get_mut(name)
            {
                topic.properties = effective(&resource);
            }
        }
        Ok(topics)
    }

    /// # Errors
    /// [`ClusterError`] when the cluster refuses. A topic that exists by now is as good as created.
    pub fn create(&self, topic: &Topic, properties: &BTreeMap<String, String>) -> Result<(), ClusterError> {
        let replication = TopicReplication::Fixed(topic.replication_factor);
        let mut new = NewTopic::new(&topic.name, topic.partitions, replication);
        for (name, value) in properties {
            new = new.set(name, value);
        }
        let answer = self.runtime.block_on(self.admin.create_topics([&new], &options()));
        match outcome("create", &topic.name, answer) {
            Err(ClusterError::Refused { code: RDKafkaErrorCode::TopicAlreadyExists, .. }) => Ok(()),
            other => other,
        }
    }

    /// `total` partitions from now on.
    ///
    /// # Errors
    /// [`ClusterError`] when the cluster refuses.
    pub fn add_partitions(&self, topic: &str, total: i32) -> Result<(), ClusterError> {
        let new = NewPartitions::new(topic, usize::try_from(total).unwrap_or(0));
        let answer = self.runtime.block_on(self.admin.create_partitions([&new], &options()));
        outcome("add partitions to", topic, answer)
    }

    /// Sets one property and keeps the others that were set for this topic. librdkafka knows only the request that
    /// replaces *all* of them, so they are read first; a change made by someone else in between would be lost.
    ///
    /// # Errors
    /// [`ClusterError`] when the cluster refuses.
    pub fn set_property(&self, topic: &str, name: &str, value: &str) -> Result<(), ClusterError> {
        const ACTION: &str = "set a property of";
        let described = self.describe(&[topic])?;
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for entry in described.iter().flat_map(|resource| &resource.entries) {
            if let (ConfigSource::DynamicTopic, Some(value)) = (&entry.source, &entry.value) {
                change = change.set(&entry.name, value);
            }
        }
        change = change.set(name, value);
        let answer = self.runtime.block_on(self.admin.alter_configs([&change], &options()));
        let answers = answer.map_err(|error| unanswered(ACTION, topic, &error))?;
        match answers.into_iter().next() {
            Some(Ok(_)) => Ok(()),
            Some(Err((_, code))) => Err(ClusterError::Refused { action: ACTION, topic: topic.to_owned(), code }),
            None => Err(silent(ACTION, topic)),
        }
    }

    fn describe(&self, topics: &[&str]) -> Result<Vec<ConfigResource>, ClusterError> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let resources: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let answers = self
            .runtime
            .block_on(self.admin.describe_configs(&resources, &options()))
            .map_err(|error| self.unreachable(&error))?;
        let refused = |code, topic: &str| ClusterError::Refused { action: "describe", topic: topic.to_owned(), code };
        answers.into_iter().zip(topics).map(|(answer, topic)| answer.map_err(|code| refused(code, topic))).collect()
    }

    fn unreachable(&self, error: &KafkaError) -> ClusterError {
        ClusterError::Unreachable {
            cluster: self.name.clone(),
            servers: self.servers.clone(),
            reason: error.to_string(),
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

fn shape(topic: &MetadataTopic) -> Actual {
    let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
    Actual {
        partitions: i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX),
        replication_factor: i32::try_from(replicas).unwrap_or(i32::MAX),
        properties: BTreeMap::new(),
    }
}

fn effective(resource: &ConfigResource) -> BTreeMap<String, String> {
    let entries = resource.entries.iter();
    entries.filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?))).collect()
}

fn outcome(
    action: &'static str,
    topic: &str,
    answer: Result<Vec<TopicResult>, KafkaError>,
) -> Result<(), ClusterError> {
    match answer.map_err(|error| unanswered(action, topic, &error))?.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => Err(ClusterError::Refused { action, topic: topic.to_owned(), code }),
        None => Err(silent(action, topic)),
    }
}

fn unanswered(action: &'static str, topic: &str, error: &KafkaError) -> ClusterError {
    ClusterError::Unanswered { action, topic: topic.to_owned(), reason: error.to_string() }
}

fn silent(action: &'static str, topic: &str) -> ClusterError {
    ClusterError::Unanswered { action, topic: topic.to_owned(), reason: "the answer names no topic".to_owned() }
}

/// As the producers connect.
fn admin_config(kafka: &Kafka) -> Result<ClientConfig, String> {
    if matches!(kafka.security.sasl, Some(Sasl::OauthBearer { .. })) {
        // librdkafka asks for a token on a queue that an admin client does not serve.
        return Err("the topics command has no OAUTHBEARER: use a user with PLAIN, SCRAM or a certificate".to_owned());
    }
    Ok(base_config(kafka))
}
