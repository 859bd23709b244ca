//! The options of `forebay simulate`, as typed, and what they mean.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::SimulateError;
use super::devices::DeviceOptions;
use super::faults::FaultRates;
use super::kafka::KafkaTarget;
use super::load::{LoadOptions, Rate};
use super::modbus::ModbusArgs;
use super::mqtt::tls::{self, TlsFiles};
use super::mqtt::{Broker, Login, Qos, Version};
use super::payload::Field;
use super::run::{Limits, Target, random_u64};
use super::serial::SerialArgs;
use super::topic::TopicTemplate;

/// Plays edge devices: statuses at an interval, or with --rate numbered messages as fast as asked.
#[derive(Args)]
#[command(group(clap::ArgGroup::new("target").args(["mqtt", "kafka"])))]
#[command(args_conflicts_with_subcommands = true)]
pub struct SimulateArgs {
    #[command(subcommand)]
    pub play: Option<Play>,
    /// The gateway's listener or any MQTT broker, as host or host:port (port 1883, with TLS 8883) [default: 127.0.0.1]
    #[arg(long, value_name = "HOST:PORT")]
    mqtt: Option<String>,
    /// Straight to Kafka at these bootstrap servers instead, keyed by equipment
    #[arg(long, value_name = "BOOTSTRAP", conflicts_with = "rate")]
    kafka: Option<String>,
    /// Kafka topic
    #[arg(long, default_value = "EquipmentStatus", requires = "kafka")]
    kafka_topic: String,
    /// Property of librdkafka, such as security.protocol=SSL
    #[arg(long, value_name = "NAME=VALUE", value_parser = read_property, requires = "kafka")]
    kafka_property: Vec<(String, String)>,

    /// MQTT version
    #[arg(long, value_name = "VERSION", default_value = "3.1.1", value_parser = read_version)]
    mqtt_version: Version,
    /// MQTT user
    #[arg(long, requires = "password_file")]
    user: Option<String>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Use TLS with the authorities of this system
    #[arg(long)]
    tls: bool,
    /// Use TLS with the authorities in this PEM file
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Certificate of the devices (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the devices (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Quality of service
    #[arg(long, default_value = "1", value_parser = read_qos)]
    qos: Qos,
    /// Unacknowledged messages of one connection
    #[arg(long, default_value = "100")]
    window: NonZeroU16,
    /// MQTT topic; may contain {device}, {equipment}, {line} and {instance}
    #[arg(long, default_value = "plant/{line}/{equipment}/status")]
    topic: TopicTemplate,

    /// Edge devices, each with a connection of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    devices: u32,
    /// Equipments on each device; with --rate, topics of each connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    equipments: u32,
    /// Between two statuses of an equipment
    #[arg(long, default_value = "1s", value_parser = read_interval)]
    interval: Duration,
    /// One more field in each status: name=int|float|bool|string, with :min..max
    #[arg(long, value_name = "NAME=TYPE[:MIN..MAX]", conflicts_with = "rate")]
    field: Vec<Field>,
    /// Faults and their probabilities: doubles, disorder, late, malformed, burst, die
    #[arg(long, value_name = "NAME=P,...", default_value = "", hide_default_value = true, conflicts_with = "rate")]
    faults: FaultRates,
    /// Same seed, same jobs and faults; random and printed when not given
    #[arg(long)]
    seed: Option<u64>,

    /// Rate mode: numbered messages per second over all connections, or max
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<Rate>,
    /// Connections in rate mode
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Payload bytes in rate mode
    #[arg(long, default_value_t = 200, value_parser = read_size)]
    size: usize,
    /// Above 1000 messages/s to a machine that is not this one
    #[arg(long)]
    allow_remote_load: bool,

    /// Stop after this many readings (with --rate: messages) in all
    #[arg(long)]
    count: Option<u64>,
    /// Stop after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = read_duration)]
    duration: Option<Duration>,
    /// How long a stopped run waits for the last acknowledgements
    #[arg(long, default_value = "10s", value_parser = read_duration)]
    drain: Duration,
    /// Give up when a client had no connection for this long [default: never; with --rate 60s]
    #[arg(long, value_name = "DURATION", value_parser = read_duration)]
    give_up: Option<Duration>,
    /// The summary as JSON
    #[arg(long)]
    json: bool,
}

/// Devices that speak no MQTT.
#[derive(clap::Subcommand)]
pub enum Play {
    Serial(SerialArgs),
    Modbus(ModbusArgs),
}

/// What the options ask for.
pub enum Plan {
    Devices(Target, DeviceOptions),
    Load(Broker, LoadOptions),
}

/// Where a gateway listens if nothing else is said.
const GATEWAY: &str = "127.0.0.1";
/// Loads above this go to other machines only with consent.
const REMOTE_RATE_MAX: f64 = 1000.0;
const GIVE_UP_LOAD: Duration = Duration::from_secs(60);

impl SimulateArgs {
    pub fn wants_json(&self) -> bool {
        self.json
    }

    pub fn limits(&self) -> Limits {
        let give_up = self.rate.map(|_| GIVE_UP_LOAD);
        Limits {
            // Kafka acknowledges always.
            qos: if self.kafka.is_some() { Qos::AtLeastOnce } else { self.qos },
            window: self.window.get(),
            duration: self.duration,
            drain: self.drain,
            give_up: self.give_up.or(give_up),
            ..Limits::new()
        }
    }

    /// Reads the files that are named, and refuses what is asked for only by mistake.
    pub async fn plan(&self) -> Result<Plan, SimulateError> {
        if self.kafka.is_some() {
            return Ok(Plan::Devices(Target::Kafka(self.kafka_target()), self.device_options()));
        }
        let broker = self.broker(self.mqtt.as_deref().unwrap_or(GATEWAY))?;
        let Some(rate) = self.rate else {
            return Ok(Plan::Devices(Target::Mqtt(broker), self.device_options()));
        };
        if rate.exceeds(REMOTE_RATE_MAX) && !self.allow_remote_load && !broker.is_loopback().await {
            return Err(SimulateError::RemoteLoad { host: broker.host });
        }
        Ok(Plan::Load(broker, self.load_options(rate)))
    }

    fn kafka_target(&self) -> KafkaTarget {
        KafkaTarget {
            bootstrap: self.kafka.clone().unwrap_or_default(),
            topic: self.kafka_topic.clone(),
            properties: self.kafka_property.clone(),
        }
    }

    fn device_options(&self) -> DeviceOptions {
        DeviceOptions {
            devices: self.devices,
            equipments: self.equipments,
            interval: self.interval,
            topic: self.topic.clone(),
            fields: self.field.clone(),
            faults: self.faults,
            seed: self.seed.unwrap_or_else(random_u64),
            count: self.count,
        }
    }

    fn load_options(&self, rate: Rate) -> LoadOptions {
        LoadOptions {
            rate,
            count: self.count,
            connections: self.connections,
            equipments: self.equipments,
            size_bytes: self.size,
            topic: self.topic.clone(),
        }
    }

    fn broker(&self, address: &str) -> Result<Broker, SimulateError> {
        let with_tls = self.tls || self.tls_ca.is_some() || self.tls_cert.is_some();
        let identity = self.tls_cert.clone().zip(self.tls_key.clone());
        let files = TlsFiles { ca: self.tls_ca.clone(), identity };
        let tls = with_tls.then(|| tls::connector(&files)).transpose()?;
        let (host, port) = read_address(address, if with_tls { 8883 } else { 1883 })?;
        let login = match (&self.user, &self.password_file) {
            (Some(user), Some(file)) => Some(Login { user: user.clone(), password: read_password(file)? }),
            _ => None,
        };
        Ok(Broker { host, port, version: self.mqtt_version, login, tls })
    }
}

fn read_password(path: &Path) -> Result<String, SimulateError> {
    let unreadable = |source| SimulateError::ReadPassword { path: path.into(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// `host`, `host:port`, `[::1]:port` or a bare IPv6 address.
fn read_address(text: &str, default_port: u16) -> Result<(String, u16), SimulateError> {
    let bad = || SimulateError::Address(text.into());
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']').ok_or_else(bad)).transpose()? {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(bad)?)),
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (text, None),
        },
    };
    let port = port.map_or(Ok(default_port), |port| port.parse().map_err(|_| bad()))?;
    if host.is_empty() || port == 0 { Err(bad()) } else { Ok((host.into(), port)) }
}

fn read_version(text: &str) -> Result<Version, String> {
    match text {
        "3.1.1" | "4" => Ok(Version::V311),
        "5" | "5.0" => Ok(Version::V5),
        _ => Err("there are versions 3.1.1 and 5".into()),
    }
}

fn read_qos(text: &str) -> Result<Qos, String> {
    match text {
        "0" => Ok(Qos::AtMostOnce),
        "1" => Ok(Qos::AtLeastOnce),
        "2" => Ok(Qos::ExactlyOnce),
        _ => Err("there are 0, 1 and 2".into()),
    }
}

fn read_property(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    // The text may hold a secret and is not repeated.
    pair.map(|(name, value)| (name.into(), value.into())).ok_or_else(|| "a property is name=value".into())
}

/// A bare number is an error: nobody can see whether it is seconds.
fn read_duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let read = |(unit, ms): (&str, u64)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(ms);
    let ms = units.into_iter().find_map(read);
    ms.map(Duration::from_millis).ok_or_else(|| "a duration is a whole number with ms, s, m, h or d".into())
}

fn read_interval(text: &str) -> Result<Duration, String> {
    let interval = read_duration(text)?;
    if interval.is_zero() { Err("an interval is at least 1ms; for load there is --rate".into()) } else { Ok(interval) }
}

fn read_size(text: &str) -> Result<usize, String> {
    let valid = text.parse().ok().filter(|size| (1..=1024 * 1024).contains(size));
    valid.ok_or_else(|| "a payload has 1 to 1048576 bytes".into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn typed(line: &str) -> Result<SimulateArgs, String> {
        let words = std::iter::once("simulate").chain(line.split_whitespace());
        Typed::try_parse_from(words).map(|typed| typed.args).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_full_device_line_is_understood() {
        let line = "--mqtt broker:1884 --devices 3 --equipments 2 --interval 500ms --field t=float:1..2 --faults late=1 \
                    --seed 9 --qos 2 --mqtt-version 5 --topic a/{device} --for 2m";
        let args = typed(line).unwrap();
        assert_eq!((args.limits().qos, args.limits().duration), (Qos::ExactlyOnce, Some(Duration::from_secs(120))));
        let Ok(Plan::Devices(Target::Mqtt(broker), options)) = args.plan().await else { panic!("not devices") };
        assert_eq!((broker.host.as_str(), broker.port, broker.version), ("broker", 1884, Version::V5));
        assert_eq!((options.devices, options.equipments, options.seed), (3, 2, 9));
        assert_eq!((options.interval, options.faults.late), (Duration::from_millis(500), 1.0));
        assert_eq!(options.topic.fill("", 0, 0), "a/device-0001");
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let none = ["--mqtt a --kafka b", "--kafka b --rate 5", "--mqtt a --rate 5 --field a=int", "--mqtt a --user u"];
        let bad = ["--qos 3", "--interval 5", "--interval 0s", "--rate 0", "--size 0", "--topic a/#", "--window 0"];
        let bad = bad.map(|option| format!("--mqtt a {option}"));
        for line in none.into_iter().chain(bad.iter().map(String::as_str)) {
            assert!(typed(line).is_err(), "{line}");
        }
    }

    #[tokio::test]
    async fn without_a_target_it_is_the_gateway_on_this_machine() {
        for (line, port) in [("", 1883), ("--tls", 8883)] {
            let Ok(Plan::Devices(Target::Mqtt(server), _)) = typed(line).unwrap().plan().await else {
                panic!("not devices at a server: {line:?}");
            };
            assert_eq!((server.host.as_str(), server.port), ("127.0.0.1", port), "{line:?}");
        }
        let Ok(Plan::Load(server, _)) = typed("--rate max").unwrap().plan().await else { panic!("not a load") };
        assert!(server.is_loopback().await, "load needs no consent");
        assert!(matches!(typed("--kafka b").unwrap().plan().await, Ok(Plan::Devices(Target::Kafka(_), _))));
    }

    #[tokio::test]
    async fn load_on_another_machine_needs_consent() {
        let plan = async |line: &str| typed(line).unwrap().plan().await;
        for remote in ["--mqtt 192.0.2.1 --rate max", "--mqtt [2001:db8::1]:1883 --rate 1001"] {
            assert!(matches!(plan(remote).await, Err(SimulateError::RemoteLoad { .. })), "{remote}");
            assert!(plan(&format!("{remote} --allow-remote-load")).await.is_ok());
        }
        assert!(plan("--mqtt 192.0.2.1 --rate 1000").await.is_ok());
        assert!(plan("--mqtt 127.0.0.1 --rate max").await.is_ok());
        assert!(plan("--mqtt [::1] --rate max").await.is_ok());
    }

    #[test]
    fn reads_addresses() {
        let read = |text| read_address(text, 1883).ok();
        let is = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(read("broker"), is("broker", 1883));
        assert_eq!(read("10.0.0.1:99"), is("10.0.0.1", 99));
        assert_eq!(read("[::1]:99"), is("::1", 99));
        assert_eq!(read("[::1]"), is("::1", 1883));
        assert_eq!(read("::1"), is("::1", 1883));
        for bad in ["", ":1883", "a:0", "a:70000", "a:b", "[::1", "[::1]99"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_password_is_the_first_line_and_shows_nowhere() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        let args = typed(&format!("--mqtt a --user u --password-file {}", file.path().display())).unwrap();
        let broker = args.broker("a").unwrap();
        assert_eq!(broker.login.as_ref().unwrap().password, "s3cret");
        assert!(!format!("{broker:?}").contains("s3cret"));
    }
}
