//! The embedded MQTT broker: rumqttd in threads of its own, on a free port of this machine.
//!
//! It acknowledges before it has stored anything (see the design, section 4.1), which is why the gateway never stands on
//! it; here it only plays the broker that a plant has already. It cannot be stopped: its threads end with the process.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Readings that the gateway has not taken yet wait in the broker's memory. Far more than any demo can publish while the
/// gateway starts or rests, as the broker drops the oldest without a word.
const SEGMENT_BYTES: usize = 16 << 20;
const SEGMENTS_MAX: usize = 16;
/// Another program may take the free port before the broker does.
const ATTEMPTS: u32 = 3;
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether the port is open: the broker tells nobody.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Starts a broker and waits until it accepts connections.
///
/// # Errors
/// No free port, or the broker did not come up; in words.
pub fn start() -> Result<SocketAddr, String> {
    let mut reason = String::new();
    for _ in 0..ATTEMPTS {
        let address = free_address().map_err(|error| error.to_string())?;
        match start_at(address) {
            Ok(()) => return Ok(address),
            Err(error) => reason = error,
        }
    }
    Err(reason)
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn start_at(address: SocketAddr) -> Result<(), String> {
    let serve = move || Broker::new(config(address)).start().map_err(|error| error.to_string());
    let thread = std::thread::Builder::new().name("demo-broker".into()).spawn(serve);
    wait_for(address, thread.map_err(|error| error.to_string())?)
}

fn wait_for(address: SocketAddr, broker: JoinHandle<Result<(), String>>) -> Result<(), String> {
    let started = Instant::now();
    while started.elapsed() < START_PATIENCE {
        if broker.is_finished() {
            let ended = broker.join().unwrap_or_else(|_| Err("it panicked".into()));
            return Err(ended.err().unwrap_or_else(|| format!("it could not listen on {address}")));
        }
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    Err(format!("it does not listen on {address} after {} s", START_PATIENCE.as_secs()))
}

fn config(listen: SocketAddr) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 60_000,
        max_payload_size: 1 << 20,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings { name: "demo".into(), listen, tls: None, next_connection_delay_ms: 1, connections };
    let router = RouterConfig {
        max_connections: 32,
        max_outgoing_packet_count: 200,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS_MAX,
        ..RouterConfig::default()
    };
    Config { router, v4: Some(HashMap::from([("demo".into(), server)])), ..Config::default() }
}
