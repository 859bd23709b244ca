//! What the demo stands on: a directory, a port or a broker, a Kafka, and the gateway's configuration that joins them.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::entry::{Entry, broker_at};
use super::kafka::Embedded;
use super::story::{Story, Verdict};
use super::{DemoArgs, DemoError};
use crate::cli::kafka::Cluster;
use crate::cli::simulate::mqtt::Broker;
use crate::cli::simulate::run::random_u64;
use crate::config::{self, Config};

pub const TOPIC: &str = "EquipmentStatus";
const EVENTS_TOPIC: &str = "forebay.events";
/// Name and partitions.
const TOPICS: [(&str, i32); 2] = [(TOPIC, 2), (EVENTS_TOPIC, 1)];

/// Everything but the gateway, the witness and the devices.
pub struct Stage {
    /// Eight hexadecimal digits that no other demo has: part of the gateway's name and of the MQTT topics, so that a
    /// broker or Kafka of one's own can serve other things as well.
    pub instance: String,
    pub config: Config,
    pub bootstrap_servers: String,
    /// Where the devices speak.
    pub entry: Entry,
    /// `None`: the person's own.
    pub kafka: Option<Embedded>,
    /// Holds the listener's port until the gateway takes it.
    reserved: Option<TcpListener>,
    place: Place,
}

/// The gateway's directory. Removed when dropped, unless it is kept.
struct Place {
    dir: PathBuf,
    keep: bool,
}

impl Stage {
    /// Starts the embedded parts and writes the configuration. Blocks; not for an async context.
    ///
    /// # Errors
    /// What cannot be had.
    pub fn set_up(args: &DemoArgs) -> Result<Self, DemoError> {
        let instance = format!("{:08x}", random_u64() as u32);
        let broker = args.mqtt.as_deref().map(broker_at).transpose()?;
        let kafka = if args.kafka.is_none() { Some(start_kafka()?) } else { None };
        let given = args.kafka.clone().unwrap_or_default();
        let bootstrap_servers = kafka.as_ref().map_or(given, Embedded::bootstrap_servers);
        let place = Place::make(&instance)?;
        let (entry, reserved) = match broker {
            Some(broker) => (Entry::Broker(broker), None),
            None if args.serial => (Entry::lines(&place.dir), None),
            None => {
                let reserved = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                (Entry::Listener(Broker::plain(reserved.local_addr()?)), Some(reserved))
            }
        };
        let text = config_text(&instance, &place.dir, &entry, &bootstrap_servers);
        let config = place.write_config(&text)?;
        if kafka.is_none() {
            create_missing_topics(&config)?;
        }
        Ok(Self { instance, config, bootstrap_servers, entry, kafka, reserved, place })
    }

    /// To be called right before the gateway listens.
    pub fn release_port(&mut self) {
        self.reserved = None;
    }

    pub fn config_path(&self) -> PathBuf {
        self.place.config_path()
    }

    /// The template of the devices' topics; the route of the configuration takes exactly these.
    pub fn device_topic() -> &'static str {
        "forebay-demo/{instance}/{line}/{equipment}/status"
    }

    /// Decides whether the directory stays. What the gateway has promised and not delivered is never thrown away.
    pub fn leave(&mut self, verdict: &Verdict, keep: bool, story: &mut Story) {
        if keep || verdict.in_spool > 0 {
            self.place.keep = true;
            story.kept(&self.place.dir, &self.config_path(), verdict.in_spool);
        }
    }
}

impl Place {
    fn make(instance: &str) -> Result<Self, DemoError> {
        let dir = std::env::temp_dir().join(format!("forebay-demo-{instance}"));
        // Others on this machine have no business with the readings.
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|source| DemoError::Directory { dir: dir.display().to_string(), source })?;
        Ok(Self { dir, keep: false })
    }

    fn config_path(&self) -> PathBuf {
        self.dir.join("gateway.toml")
    }

    fn write_config(&self, text: &str) -> Result<Config, DemoError> {
        let path = self.config_path();
        let written = fs::write(&path, text);
        written.map_err(|source| DemoError::Directory { dir: self.dir.display().to_string(), source })?;
        Ok(config::load(&path)?.config)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "failed to remove the demo's directory");
        }
    }
}

fn start_kafka() -> Result<Embedded, DemoError> {
    Embedded::start(&TOPICS).map_err(DemoError::Kafka)
}

/// Topics that are there stay as they are: they are not the demo's.
fn create_missing_topics(config: &Config) -> Result<(), DemoError> {
    let cluster = Cluster::open(&config.kafka[0])?;
    let existing = cluster.topics(&[])?;
    for topic in config.topics.iter().filter(|topic| !existing.contains_key(&topic.name)) {
        cluster.create(topic, &BTreeMap::new())?;
    }
    Ok(())
}

pub fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A configuration as a person would write it, with the least that is needed.
fn config_text(instance: &str, dir: &Path, entry: &Entry, bootstrap_servers: &str) -> String {
    let (sources, route) = (entry.sources(instance), entry.route(instance));
    let (lane, when) = if entry.is_serial() {
        ("# Committed first, and then to Kafka: no device on a serial line says anything twice.", "when = \"always\"")
    } else {
        ("# Straight to Kafka; through the spool only while Kafka does not answer.", "when = \"offline\"")
    };
    let topics = TOPICS.map(|(name, n)| format!("[[topic]]\nname = {}\npartitions = {n}\n", quoted(name))).join("\n");
    format!(
        r#"# Written by `forebay demo`.

[gateway]
name = "demo-{instance}"
state_dir = {dir}
runtime_dir = {dir}

{sources}
[[route]]
kafka_topic = "{TOPIC}"
{route}
{lane}
[[lane]]
name = "default"
{when}

[kafka.main]
bootstrap_servers = {servers}
# The outage of the demo is short; so is the patience of who watches it.
properties = {{ "reconnect.backoff.max.ms" = 1000 }}

{topics}
[http]
listen = "off"
"#,
        dir = quoted(&dir.to_string_lossy()),
        servers = quoted(bootstrap_servers),
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_configuration_is_valid_and_takes_what_the_devices_say() {
        let dir = Path::new("/tmp/it's \"here\"");
        let listener = Entry::Listener(Broker::plain(([127, 0, 0, 1], 1883).into()));
        for entry in [listener, Entry::Broker(broker_at("localhost").unwrap()), Entry::lines(dir)] {
            check_config(dir, &entry);
        }
    }

    fn check_config(dir: &Path, entry: &Entry) {
        let text = config_text("4f1c", dir, entry, "127.0.0.1:9092");
        let loaded = config::parse_str("demo.toml", &text).unwrap();
        // One Kafka broker is all that the demo has; nothing else about it may be unwise.
        let expected = |warning: &config::Problem| warning.message.contains("in one broker's memory");
        assert!(loaded.warnings.iter().all(expected), "{:?}", loaded.warnings);
        let config = loaded.config;
        let doors = config.mqtt_sources.len() + config.listeners.len() + config.serial_sources.len();
        assert_eq!(doors as u64, entry.doors());
        assert_eq!(config.gateway.state_dir, dir);
        assert!(config.http.listen.is_none());
        let names: Vec<&str> = config.topics.iter().map(|topic| topic.name.as_str()).collect();
        assert!(names.contains(&config.events.topic.as_str()), "{names:?}");
        let topic = Stage::device_topic().replace("{instance}", "4f1c");
        let route = config.routes[0].filter.as_str();
        assert!(route == topic || entry.is_serial() && route == "forebay-demo/4f1c/{line}", "{route}");
    }

    #[test]
    fn a_place_goes_unless_it_is_kept() {
        let mut place = Place::make(&format!("{:x}", random_u64())).unwrap();
        let dir = place.dir.clone();
        place.keep = true;
        drop(place);
        assert!(dir.is_dir());
        drop(Place { dir: dir.clone(), keep: false });
        assert!(!dir.exists());
    }
}
