//! From what was typed to what the program needs: defaults, bounds, secrets, references between tables.
//!
//! Pure apart from the questions to [`Surroundings`]. Every part yields a value even where it found an error, so that
//! the parts behind it are checked too; the caller throws the result away when there was any error.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::budget;
use super::clusters;
use super::fields::Opt;
use super::file::{ConfigFile, DeadLettersTable, EventsTable, GatewayTable, HttpTable, Level, LogTable, SpoolTable};
use super::identity::sha256_hex;
use super::lanes;
use super::lines;
use super::modbus;
use super::modbus_map::Maps;
use super::model::{Config, DeadLetters, Events, Gateway, Http, Log, LogFormat, MessageIds, Secret, Spool};
use super::problem::{Findings, Place, Texts};
use super::properties;
use super::reader::At;
use super::routes;
use super::scalars::ByteSize;
use super::serial;
use super::sources;
use super::surroundings::{Surroundings, named_file};
use super::topics;
use super::units::{show_duration, show_size};

pub const STATE_DIR: &str = "/var/lib/forebay";
pub const RUNTIME_DIR: &str = "/run/forebay";
const HTTP_LISTEN: &str = "127.0.0.1:9464";
/// A gateway's name goes into client ids, record ids and metric labels.
const NAME_CHARS_MAX: usize = 64;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const DAY: Duration = Duration::from_secs(86_400);

/// What every resolving function needs at hand.
pub struct Resolver<'a> {
    pub found: Findings,
    pub texts: &'a Texts,
    pub surroundings: &'a dyn Surroundings,
}

impl Resolver<'_> {
    /// The value of a key that must be there.
    pub fn required<'t, T>(&mut self, key: &'t Opt<T>, name: &str, table: Place, help: &str) -> Option<&'t At<T>> {
        if matches!(key, Opt::Absent) {
            self.found.error(table, format!("`{name}` is missing")).help(help);
        }
        key.get()
    }

    pub fn number(&mut self, key: &Opt<i64>, name: &str, bounds: RangeInclusive<i64>, default: i64) -> i64 {
        let Some(at) = key.get() else { return default };
        if !bounds.contains(&at.value) {
            let help = format!("choose a number from {} to {}", bounds.start(), bounds.end());
            self.found.error(at.place, format!("`{name}` is out of bounds: {}", at.value)).help(help);
            return default;
        }
        at.value
    }

    pub fn duration(
        &mut self,
        key: &Opt<Duration>,
        name: &str,
        bounds: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let Some(at) = key.get() else { return default };
        if !bounds.contains(&at.value) {
            let (low, high) = (show_duration(*bounds.start()), show_duration(*bounds.end()));
            let message = format!("`{name}` is out of bounds: {}", show_duration(at.value));
            self.found.error(at.place, message).help(format!("choose a duration from {low} to {high}"));
            return default;
        }
        at.value
    }

    pub fn size(&mut self, key: &Opt<ByteSize>, name: &str, bounds: RangeInclusive<u64>, default: u64) -> u64 {
        let Some(at) = key.get() else { return default };
        if !bounds.contains(&at.value.0) {
            let (low, high) = (show_size(*bounds.start()), show_size(*bounds.end()));
            let message = format!("`{name}` is out of bounds: {}", show_size(at.value.0));
            self.found.error(at.place, message).help(format!("choose a size from {low} to {high}"));
            return default;
        }
        at.value.0
    }

    /// The path of a `*_file` key, looked up and opened once, so that a mistyped path is found now and not at night.
    pub fn file(&mut self, key: &Opt<String>, name: &str) -> Option<PathBuf> {
        let at = key.get()?;
        let path = self.named(at);
        if let Err(why) = self.surroundings.readable(&path) {
            self.unreadable(name, at.place, &path, &why);
        }
        Some(path)
    }

    /// A secret given as itself, as `${VAR}`, or by the path of a file that holds it.
    pub fn secret(&mut self, value: &Opt<Secret>, file: &Opt<String>, name: &str) -> Option<Secret> {
        if let (Some(first), Some(second)) = (value.place(), file.place()) {
            let finding = self.found.error(second, format!("both `{name}` and `{name}_file` are given"));
            finding.note("the other is at", first).help("keep the file");
        }
        if let Some(at) = value.get() {
            self.warn_of_plain_secret(at.place, name);
            return Some(at.value.clone());
        }
        let at = file.get()?;
        let path = self.named(at);
        match self.surroundings.secret_file(&path) {
            Ok(text) => Some(Secret::new(text)),
            Err(why) => {
                self.unreadable(&format!("{name}_file"), at.place, &path, &why);
                None
            }
        }
    }

    fn named(&self, at: &At<String>) -> PathBuf {
        named_file(self.surroundings, self.texts.folder(at.place.file), &at.value)
    }

    fn unreadable(&mut self, name: &str, place: Place, path: &std::path::Path, why: &str) {
        let help = "a relative path is looked up below $CREDENTIALS_DIRECTORY, without it beside this file";
        self.found.error(place, format!("`{name}`: {} {why}", path.display())).help(help);
    }

    fn warn_of_plain_secret(&mut self, place: Place, name: &str) {
        if !self.texts.slice(place).contains("${") {
            let help = format!("use `{name}_file`, a systemd credential or ${{VAR}}");
            self.found.warning(place, format!("`{name}` stands in the file for everyone who may read it")).help(help);
        }
    }
}

/// Resolves the merged file. The configuration is valid only where the findings hold no error.
pub fn resolve(mut file: ConfigFile, maps: &Maps, mut r: Resolver<'_>) -> (Config, Findings) {
    let gateway = gateway(&file.gateway.take(), &mut r);
    let mut source = file.source.take();
    let spool = spool(&file.spool.take(), &gateway, &mut r);
    let memory = budget::resolve(&file.memory.take(), &source.listener.0, &spool, &mut r);
    let clusters = clusters::resolve(file.kafka.0, &gateway, &mut r);
    let serial_sources = serial::resolve(&source.serial.0, &mut r);
    let modbus_sources = modbus::resolve(&mut source.modbus.0, maps, &mut r);
    let mut feeds = serial::feeds(&serial_sources, &source.serial.0);
    feeds.extend(modbus::feeds(&modbus_sources, &source.modbus.0));
    let rest = lines::take_share(&feeds, &memory, &mut r);
    let names = feeds.iter().map(|feed| feed.name.clone()).collect();
    let mut sources = sources::resolve(&source, &gateway, &rest, &spool, names, &mut r);
    lines::check_twins(&feeds, &sources, &mut r);
    let window = lanes::InFlight::of(&memory, clusters.list.len(), &sources);
    let mut lanes = lanes::resolve(&file.lane.0, &clusters, &spool, &window, &mut r);
    let policy = topics::policy(&file.topic_policy.take(), &mut r);
    let topics = topics::resolve(&file.topic.0, &clusters, &mut r);
    let events = events(&file.events.take(), &mut r);
    let dead_letters = dead_letters(&file.dead_letters.take(), &mut r);
    let routes = routes::resolve(&file.route.0, &file.unmatched.take(), &lanes, &sources, &mut r);
    sources.subscribe_to(&routes, &mut r);
    lines::imply_always(&feeds, &routes, &mut lanes, &mut r);
    topics::check_use(&routes, &topics, &policy, &lanes, &mut r);
    budget::check_fit(&rest, &sources, &clusters, &spool, &mut r);
    let mut config = Config {
        http: http(&file.http.take(), &mut r),
        log: log(&file.log.take()),
        events_lane: lanes.events,
        lanes: lanes.list,
        kafka: clusters.list,
        topics: topics.list,
        topic_policy: policy,
        mqtt_sources: sources.list,
        listeners: sources.listeners,
        serial_sources,
        modbus_sources,
        routes: routes.list,
        unmatched: routes.unmatched,
        hash: String::new(),
        gateway,
        memory,
        spool,
        events,
        dead_letters,
    };
    config.hash = hash(&config);
    (config, r.found)
}

fn gateway(table: &GatewayTable, r: &mut Resolver<'_>) -> Gateway {
    let second = Duration::from_secs(1);
    Gateway {
        name: table.name.get().map_or_else(|| r.surroundings.gateway_name(), |name| gateway_name(name, r)),
        state_dir: folder(&table.state_dir, "state_dir", STATE_DIR, r),
        runtime_dir: folder(&table.runtime_dir, "runtime_dir", RUNTIME_DIR, r),
        stop_timeout: r.duration(&table.stop_timeout, "stop_timeout", Duration::ZERO..=600 * second, 5 * second),
    }
}

fn gateway_name(name: &At<String>, r: &mut Resolver<'_>) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.value.is_empty() || name.value.len() > NAME_CHARS_MAX || !name.value.chars().all(legal) {
        let help = format!("use 1 to {NAME_CHARS_MAX} letters, digits, `.`, `_` or `-`");
        r.found.error(name.place, format!("the gateway's name {:?} cannot be part of ids", name.value)).help(help);
    }
    name.value.clone()
}

/// An absolute path: the service's working directory is nobody's expectation.
fn folder(key: &Opt<String>, name: &str, default: &str, r: &mut Resolver<'_>) -> PathBuf {
    let path = PathBuf::from(key.or(default.to_owned()));
    if let (false, Some(place)) = (path.is_absolute(), key.place()) {
        let message = format!("`{name}` must be an absolute path");
        r.found.error(place, message).help(format!("for instance {default:?}"));
    }
    path
}

fn spool(table: &SpoolTable, gateway: &Gateway, r: &mut Resolver<'_>) -> Spool {
    let ack_delay_max = Duration::from_millis(500);
    let path = table.path.get().map(|at| at.value.clone());
    Spool {
        path: path.map_or_else(|| gateway.state_dir.join("spool.db"), |path| gateway.state_dir.join(path)),
        max_bytes: r.size(&table.max_bytes, "max_bytes", MIB..=1 << 44, 1 << 30),
        ack_delay: r.duration(&table.ack_delay, "ack_delay", Duration::ZERO..=ack_delay_max, Duration::from_millis(5)),
        settle: settle(table, r),
        reserve_bytes: r.size(&table.reserve_bytes, "reserve_bytes", 0..=1 << 40, 64 * MIB),
        ballast_bytes: r.size(&table.ballast_bytes, "ballast_bytes", 64 * KIB..=1 << 30, 4 * MIB),
        wear_budget_per_day: table.wear_budget_per_day.value().map(|size| size.0),
        message_ids: message_ids(table, r),
    }
}

/// An operating system writes what it has in memory to disk after some 30 s.
const WRITE_BACK: Duration = Duration::from_secs(35);

fn settle(table: &SpoolTable, r: &mut Resolver<'_>) -> Option<Duration> {
    let at = table.settle.get().filter(|at| !at.value.is_zero())?;
    let settle = r.duration(&table.settle, "settle", Duration::from_secs(1)..=DAY, Duration::from_secs(60));
    if settle < WRITE_BACK {
        let message = "`settle` is shorter than a broker's system may take to write to its disk";
        r.found.warning(at.place, message).help("\"60s\", unless the broker's `vm.dirty_expire_centisecs` is lower");
    }
    Some(settle)
}

fn message_ids(table: &SpoolTable, r: &mut Resolver<'_>) -> MessageIds {
    let MessageIds { window, max_age } = MessageIds::default();
    let ages = Duration::from_secs(60)..=30 * DAY;
    MessageIds {
        window: r.number(&table.message_id_window, "message_id_window", 1_000..=5_000_000, window as i64) as usize,
        max_age: r.duration(&table.message_id_max_age, "message_id_max_age", ages, max_age),
    }
}

fn events(table: &EventsTable, r: &mut Resolver<'_>) -> Events {
    Events {
        enabled: table.enabled.or(true),
        topic: topics::named(&table.topic, r).unwrap_or_else(|| "forebay.events".to_owned()),
        heartbeat: r.duration(&table.heartbeat, "heartbeat", Duration::from_secs(1)..=DAY, Duration::from_secs(60)),
    }
}

fn dead_letters(table: &DeadLettersTable, r: &mut Resolver<'_>) -> DeadLetters {
    DeadLetters {
        topic: topics::named(&table.topic, r),
        max_bytes: r.size(&table.max_bytes, "max_bytes", 64 * KIB..=1 << 40, 64 * MIB),
    }
}

fn http(table: &HttpTable, r: &mut Resolver<'_>) -> Http {
    let text = table.listen.or(HTTP_LISTEN.to_owned());
    if text == "off" {
        return Http { listen: None };
    }
    let listen = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    match (listen, table.listen.place()) {
        (None, Some(place)) => {
            let help = format!("write an IP address and a port from 1 to 65535, such as {HTTP_LISTEN:?}, or \"off\"");
            r.found.error(place, format!("`listen` is not an address: {text:?}")).help(help);
        }
        (Some(address), Some(place)) if !address.ip().is_loopback() => {
            let message = "the metrics port is open to the network and asks for no password";
            r.found.warning(place, message).help("listen on 127.0.0.1 and let an agent on this machine collect");
        }
        _ => {}
    }
    Http { listen }
}

fn log(table: &LogTable) -> Log {
    Log { format: table.format.or(LogFormat::Text), level: table.level.or(Level("info")).0.to_owned() }
}

/// The debug form holds every value and prints secrets as `***`; properties are secret as a whole, so those that are
/// known to be harmless are added by hand.
fn hash(config: &Config) -> String {
    let mut text = format!("{config:?}");
    for cluster in &config.kafka {
        let open = cluster.properties.iter().filter(|(name, _)| !properties::is_secret(name));
        text.extend(open.map(|(name, value)| format!("\n{}.{name}={}", cluster.name, value.expose())));
    }
    sha256_hex(text.as_bytes())[..16].to_owned()
}
