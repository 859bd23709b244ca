//! How many connections there may be, in all and from one address, and how fast they may come. Pure but for its lock:
//! the time is passed in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::ListenerLimits;

/// Why a connection is closed before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// `connections` are there.
    Full,
    /// `connections_per_address` of this address are there.
    Address,
    /// More than `connect_rate` in this second.
    Rate,
}

/// The places of a listener, for all its endpoints together.
#[derive(Debug)]
pub struct Admission {
    connections_max: u32,
    per_address_max: u32,
    rate: u32,
    connect_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    connections: u32,
    /// Bounded by `connections`: an address without a connection has no entry.
    by_address: HashMap<IpAddr, u32>,
    /// Connections that may still come at once, in thousandths.
    tokens: u64,
    filled_at: Option<Instant>,
}

/// One place of a listener; free again when dropped.
#[derive(Debug)]
pub struct Admitted {
    /// By when CONNECT must be complete: handshake, upgrade and CONNECT share `connect_timeout`.
    pub deadline: Instant,
    gate: Arc<Admission>,
    address: Option<IpAddr>,
}

const TOKEN: u64 = 1_000;

impl Admission {
    pub fn new(limits: &ListenerLimits) -> Arc<Self> {
        let tokens = u64::from(limits.connect_rate) * TOKEN;
        let state = State { connections: 0, by_address: HashMap::new(), tokens, filled_at: None };
        Arc::new(Admission {
            connections_max: limits.connections,
            per_address_max: limits.connections_per_address,
            rate: limits.connect_rate,
            connect_timeout: limits.connect_timeout,
            state: Mutex::new(state),
        })
    }

    /// Takes a place for a connection from `address`; `None` for a Unix socket. Loopback and Unix sockets do not count
    /// for the limit of one address.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>, now: Instant) -> Result<Admitted, Closed> {
        let address = address.map(|address| address.to_canonical()).filter(|address| !address.is_loopback());
        let mut state = self.lock();
        state.fill(self.rate, now);
        if state.tokens < TOKEN {
            return Err(Closed::Rate);
        }
        if state.connections >= self.connections_max {
            return Err(Closed::Full);
        }
        if let Some(address) = address {
            let count = state.by_address.get(&address).copied().unwrap_or(0);
            if count >= self.per_address_max {
                return Err(Closed::Address);
            }
            state.by_address.insert(address, count + 1);
        }
        state.tokens -= TOKEN;
        state.connections += 1;
        drop(state);
        Ok(Admitted { deadline: now + self.connect_timeout, gate: Arc::clone(self), address })
    }

    /// Connections there are.
    pub fn connections(&self) -> u32 {
        self.lock().connections
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    /// At most one second's worth is saved up.
    fn fill(&mut self, rate: u32, now: Instant) {
        let most = u64::from(rate) * TOKEN;
        let since = self.filled_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let gained = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_mul(u64::from(rate));
        // A time too short to gain anything is not forgotten.
        if gained > 0 || self.filled_at.is_none() {
            self.tokens = self.tokens.saturating_add(gained).min(most);
            self.filled_at = Some(now);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.connections -= 1;
        let Some(address) = self.address else { return };
        if let Some(count) = state.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                state.by_address.remove(&address);
            }
        }
    }
}
