//! `[kafka.NAME]`: the clusters, how to reach them, and which properties may be added by hand. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fields::{Opt, Pairs, Section};
use super::file::{KafkaTable, Mechanism, SaslTable, TlsTable};
use super::model::{Compression, Gateway, Kafka, KafkaSecurity, Sasl, Secret, Tls};
use super::problem::{Place, nearest, one_of};
use super::properties;
use super::reader::At;
use super::resolve::Resolver;

pub struct Clusters {
    pub list: Vec<Kafka>,
    places: Vec<Place>,
}

impl Clusters {
    /// The index of a cluster that is asked for by name.
    pub fn find(&self, name: &At<String>, r: &mut Resolver<'_>) -> Option<usize> {
        let found = self.list.iter().position(|cluster| cluster.name == name.value);
        if found.is_none() {
            let known = self.list.iter().map(|cluster| cluster.name.as_str());
            let help = match nearest(&name.value, known.clone()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there is {}", one_of(known)),
            };
            r.found.error(name.place, format!("there is no [kafka.{}]", name.value)).help(help);
        }
        found
    }

    /// The cluster of a table that may leave it out where there is only one.
    pub fn of(&self, key: &Opt<String>, table: Place, r: &mut Resolver<'_>) -> usize {
        match key {
            Opt::Given(name) => self.find(name, r).unwrap_or(0),
            Opt::Absent if self.list.len() > 1 => {
                let help = format!("add kafka = {}", one_of(self.list.iter().map(|cluster| cluster.name.as_str())));
                r.found.error(table, "`kafka` is missing: there are several clusters").help(help);
                0
            }
            Opt::Absent | Opt::Broken(_) => 0,
        }
    }

    pub fn place(&self, index: usize) -> Option<Place> {
        self.places.get(index).copied()
    }
}

pub fn resolve(tables: Vec<(At<String>, KafkaTable)>, gateway: &Gateway, r: &mut Resolver<'_>) -> Clusters {
    if tables.is_empty() {
        let help = "add [kafka.main] with bootstrap_servers = \"host:9092\"";
        r.found.error(None, "no Kafka cluster is configured").help(help);
    }
    let places = tables.iter().map(|(name, _)| name.place).collect();
    let list = tables.into_iter().map(|(name, table)| cluster(&name, table, gateway, r)).collect();
    Clusters { list, places }
}

fn cluster(name: &At<String>, mut table: KafkaTable, gateway: &Gateway, r: &mut Resolver<'_>) -> Kafka {
    refuse_server_name(&table.tls, r);
    let tls = tls(&table.tls, r);
    let sasl = table.sasl.0.take().and_then(|at| sasl(&at.value, at.place, r));
    warn_of_open_password(tls.is_some(), sasl.as_ref(), name.place, r);
    let linger_max = Duration::from_secs(60);
    Kafka {
        name: name.value.clone(),
        bootstrap_servers: bootstrap_servers(&table.bootstrap_servers, name, r),
        client_id: table.client_id.or(gateway.name.clone()),
        compression: table.compression.or(Compression::Zstd),
        linger: r.duration(&table.linger, "linger", Duration::ZERO..=linger_max, Duration::from_millis(2)),
        security: KafkaSecurity { tls, sasl },
        properties: hand_set(&table.properties, r),
    }
}

/// librdkafka checks a broker's certificate against the host it connects to, and has no other name to offer.
fn refuse_server_name(section: &Section<TlsTable>, r: &mut Resolver<'_>) {
    if let Some(place) = section.0.as_ref().and_then(|at| at.value.server_name.place()) {
        let help = "remove it; the brokers' certificates must name the hosts of `advertised.listeners`";
        r.found.error(place, "`server_name` is for MQTT only: a Kafka broker is checked by its host name").help(help);
    }
}

fn bootstrap_servers(key: &Opt<String>, name: &At<String>, r: &mut Resolver<'_>) -> String {
    let help = "name one broker or more: bootstrap_servers = \"kafka1:9092,kafka2:9092\"";
    let Some(at) = r.required(key, "bootstrap_servers", name.place, help) else { return String::new() };
    let mut start = 0;
    for server in at.value.split(',') {
        if let Err(message) = server_address(server.trim()) {
            let place = r.texts.inside(at.place, &at.value, &(start..start + server.len()));
            r.found.error(place, message).help("write host:port, several separated by commas");
        }
        start += server.len() + 1;
    }
    at.value.clone()
}

fn server_address(server: &str) -> Result<(), String> {
    let Some((host, port)) = server.rsplit_once(':') else {
        return Err(format!("{server:?} has no port"));
    };
    if host.contains("://") || host.contains('/') {
        return Err(format!("{server:?} is a URL, not host:port"));
    }
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(format!("{server:?} has no host"));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(format!("{port:?} is not a port from 1 to 65535")),
    }
}

/// The PEM files of a client. The table's presence alone switches TLS on.
pub fn tls(section: &Section<TlsTable>, r: &mut Resolver<'_>) -> Option<Tls> {
    let At { value: table, place } = section.0.as_ref()?;
    if table.cert_file.place().is_some() != table.key_file.place().is_some() {
        let place = table.cert_file.place().or(table.key_file.place()).unwrap_or(*place);
        let message = "a client certificate needs both `cert_file` and `key_file`";
        r.found.error(place, message).help("give both, or neither when the broker asks for no certificate");
    }
    Some(Tls {
        ca_file: r.file(&table.ca_file, "ca_file"),
        cert_file: r.file(&table.cert_file, "cert_file"),
        key_file: r.file(&table.key_file, "key_file"),
        server_name: table.server_name.value().cloned(),
    })
}

fn sasl(table: &SaslTable, place: Place, r: &mut Resolver<'_>) -> Option<Sasl> {
    let help = "`mechanism` is \"PLAIN\", \"SCRAM-SHA-256\", \"SCRAM-SHA-512\" or \"OAUTHBEARER\"";
    let mechanism = r.required(&table.mechanism, "mechanism", place, help)?.value;
    if mechanism == Mechanism::OauthBearer {
        r.required(&table.token_file, "token_file", place, "name the file that holds the current token (a JWT)")?;
        return r.file(&table.token_file, "token_file").map(|token_file| Sasl::OauthBearer { token_file });
    }
    let user = r.required(&table.user, "user", place, "SASL needs a user and a password");
    let password = r.secret(&table.password, &table.password_file, "password");
    if table.password.place().is_none() && table.password_file.place().is_none() {
        r.found.error(place, "`password_file` is missing").help("SASL needs a user and a password");
    }
    let (user, password) = (user?.value.clone(), password?);
    Some(match mechanism {
        Mechanism::Scram256 => Sasl::Scram { mechanism: "SCRAM-SHA-256", user, password },
        Mechanism::Scram512 => Sasl::Scram { mechanism: "SCRAM-SHA-512", user, password },
        Mechanism::Plain | Mechanism::OauthBearer => Sasl::Plain { user, password },
    })
}

fn warn_of_open_password(tls: bool, sasl: Option<&Sasl>, place: Place, r: &mut Resolver<'_>) {
    let sends = match sasl {
        Some(Sasl::Plain { .. }) => "the password",
        Some(Sasl::OauthBearer { .. }) => "the token",
        Some(Sasl::Scram { .. }) | None => return,
    };
    if !tls {
        let help = "add a [kafka.NAME.tls] table; an empty one checks against the system's roots";
        r.found.warning(place, format!("{sends} crosses the network unencrypted")).help(help);
    }
}

fn hand_set(pairs: &Pairs, r: &mut Resolver<'_>) -> BTreeMap<String, Secret> {
    for (name, value) in &pairs.0 {
        if let Some(refusal) = properties::refusal(&name.value, &value.value) {
            let message = format!("the property `{}` is not taken: {}", name.value, refusal.reason);
            r.found.error(name.place, message).help(refusal.help);
        } else if let Err(why) = r.surroundings.kafka_property(&name.value, &value.value) {
            // The client quotes the value in what it says.
            let why = if properties::is_secret(&name.value) { "its value is wrong" } else { &why };
            let message = format!("the property `{}` is not taken: {why}", name.value);
            r.found.error(name.place, message).help("librdkafka's CONFIGURATION.md lists all names and values");
        }
    }
    pairs.0.iter().map(|(name, value)| (name.value.clone(), Secret::new(value.value.clone()))).collect()
}
