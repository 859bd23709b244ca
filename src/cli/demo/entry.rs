//! How readings come to the gateway: what its configuration says of that, and how many doors are to be open.

use std::path::{Path, PathBuf};

use super::DemoError;
use super::play::DEVICES;
use super::stage::{Stage, quoted};
use crate::cli::simulate::mqtt::{Broker, Version};

const MQTT_PORT: u16 = 1883;

/// Where the devices speak.
#[derive(Debug, Clone)]
pub enum Entry {
    /// To the gateway itself, here.
    Listener(Broker),
    /// To the person's own broker.
    Broker(Broker),
    /// On a serial line each; these are their ports.
    Lines(Vec<PathBuf>),
}

impl Entry {
    /// A line for each device, with its port in this directory.
    pub fn lines(dir: &Path) -> Self {
        Entry::Lines((1..=DEVICES).map(|n| dir.join(format!("line-{n}"))).collect())
    }

    /// What must be open before the devices begin: what they said before would be nobody's.
    pub fn doors(&self) -> u64 {
        if let Entry::Lines(ports) = self { ports.len() as u64 } else { 1 }
    }

    pub fn has_broker(&self) -> bool {
        matches!(self, Entry::Broker(_))
    }

    pub fn is_serial(&self) -> bool {
        matches!(self, Entry::Lines(_))
    }

    /// What it says to whoever waits for the doors in vain.
    pub fn closed(&self, seconds: u64) -> DemoError {
        let of = |server: &Broker| (server.host.clone(), server.port);
        match self {
            Entry::Listener(server) => {
                let (host, port) = of(server);
                DemoError::NotListening { host, port, seconds }
            }
            Entry::Broker(server) => {
                let (host, port) = of(server);
                DemoError::NoBroker { host, port, seconds }
            }
            Entry::Lines(_) => DemoError::NoLines { seconds },
        }
    }

    /// The tables of the sources.
    pub fn sources(&self, instance: &str) -> String {
        match self {
            Entry::Listener(server) => {
                format!("[[source.listener]]\nname = \"plant\"\nlisten = \"{}:{}\"\n", server.host, server.port)
            }
            Entry::Broker(server) => {
                let (host, port) = (quoted(&server.host), server.port);
                format!(
                    "[[source.mqtt]]\nname = \"plant\"\nhost = {host}\nport = {port}\nversion = \"3.1.1\"\n\
                     backoff_min = \"50ms\"\n"
                )
            }
            Entry::Lines(ports) => ports.iter().map(|port| line(port, instance)).collect::<Vec<_>>().join("\n"),
        }
    }

    /// What of the route depends on where the readings come from.
    pub fn route(&self, instance: &str) -> String {
        if self.is_serial() {
            return format!("filter = \"forebay-demo/{instance}/{{line}}\"\nkey = \"{{/equipment}}\"\n");
        }
        let filter = Stage::device_topic().replace("{instance}", instance);
        format!(
            "filter = {}\nkey = \"{{equipment}}\"\ntimestamp = {{ pointer = \"/timestamp\", format = \"rfc3339\" }}\n",
            quoted(&filter)
        )
    }
}

/// A device that writes what [`super::lines`] says, a line for each reading.
fn line(port: &Path, instance: &str) -> String {
    let name = port.file_name().unwrap_or_default().to_string_lossy();
    let fields = [
        "name = \"equipment\"",
        "name = \"jobPercentFinished\", kind = \"int\", unit = \"%\"",
        "name = \"producing\", kind = \"bool\"",
        "name = \"id\"",
    ];
    let fields: Vec<String> = fields.iter().map(|field| format!("    {{ {field} }},\n")).collect();
    format!(
        "[[source.serial]]\nname = \"{name}\"\nport = {}\nbaud = 115200\ntopic = \"forebay-demo/{instance}/{{source}}\"\n\
         decode = {{ kind = \"csv\", fields = [\n{}] }}\n",
        quoted(&port.to_string_lossy()),
        fields.concat(),
    )
}

/// `host`, `host:port` or `[v6]:port`.
pub fn broker_at(address: &str) -> Result<Broker, DemoError> {
    let wrong = || DemoError::Address(address.to_owned());
    let is_alone = !address.contains(':') || address.ends_with(']');
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !is_alone => (host, port.parse().map_err(|_| wrong())?),
        _ => (address, MQTT_PORT),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    // An IPv6 address without brackets could be cut in two ways.
    if host.is_empty() || bare.is_none() && host.contains(':') {
        return Err(wrong());
    }
    let host = bare.unwrap_or(host);
    Ok(Broker { host: host.to_owned(), port, version: Version::V311, login: None, tls: None })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn addresses_are_read() {
        let check = |text: &str, host: &str, port: u16| {
            let broker = broker_at(text).unwrap();
            assert_eq!((broker.host.as_str(), broker.port), (host, port), "{text}");
        };
        check("plant-broker", "plant-broker", 1883);
        check("10.0.0.7:11883", "10.0.0.7", 11883);
        check("[::1]:1884", "::1", 1884);
        check("[::1]", "::1", 1883);
        for bad in ["", ":1883", "host:port", "host:70000", "fe80::1"] {
            assert!(broker_at(bad).is_err(), "{bad}");
        }
    }
}
