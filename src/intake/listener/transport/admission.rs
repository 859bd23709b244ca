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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gate(connections: u32, per_address: u32, rate: u32) -> Arc<Admission> {
        Admission::new(&ListenerLimits {
            connections,
            connections_per_address: per_address,
            connect_rate: rate,
            ..ListenerLimits::default()
        })
    }

    fn address(n: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, n]))
    }

    #[test]
    fn a_second_brings_as_many_as_the_rate_says() {
        let (gate, start) = (gate(1_000, 1_000, 10), Instant::now());
        let come = |at: Duration| (0..100).filter(|_| gate.admit(address(1), start + at).is_ok()).count();
        assert_eq!(come(Duration::ZERO), 10);
        assert_eq!(come(Duration::from_millis(99)), 0);
        assert_eq!(come(Duration::from_millis(350)), 3);
        assert_eq!(come(Duration::from_secs(60)), 10);
        assert_eq!(gate.admit(address(1), start).err(), Some(Closed::Rate));
    }

    #[test]
    fn loopback_and_unix_sockets_count_for_no_address() {
        let (gate, now) = (gate(10, 1, 100), Instant::now());
        let local = [None, Some("127.0.0.1".parse().expect("an address")), Some("::1".parse().expect("an address"))];
        let kept: Vec<_> = local.into_iter().cycle().take(6).map(|address| gate.admit(address, now)).collect();
        assert!(kept.iter().all(Result::is_ok));
        let mapped = Some("::ffff:10.0.0.1".parse().expect("an address"));
        let one = gate.admit(mapped, now);
        assert!(one.is_ok());
        assert_eq!(gate.admit(address(1), now).err(), Some(Closed::Address));
        assert!(gate.admit(address(2), now).is_ok());
    }

    proptest! {
        #[test]
        fn no_limit_is_passed_and_every_place_comes_back(
            steps in prop::collection::vec((0_u8..6, any::<bool>(), 0_u64..300), 1..300),
        ) {
            let (gate, mut now) = (gate(8, 3, 20), Instant::now());
            let mut inside: Vec<(u8, Admitted)> = Vec::new();
            for (n, leaves, millis) in steps {
                now += Duration::from_millis(millis);
                if leaves && !inside.is_empty() {
                    inside.swap_remove(usize::from(n) % inside.len());
                } else if let Ok(admitted) = gate.admit(address(n), now) {
                    inside.push((n, admitted));
                }
                prop_assert_eq!(gate.connections() as usize, inside.len());
                prop_assert!(inside.len() <= 8);
                for n in 0..6 {
                    prop_assert!(inside.iter().filter(|(other, _)| *other == n).count() <= 3);
                }
            }
            inside.clear();
            prop_assert_eq!(gate.connections(), 0);
            prop_assert!(gate.lock().by_address.is_empty());
        }
    }
}
