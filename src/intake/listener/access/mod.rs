//! Who may come in, and what for.
//!
//! `passwords.rs` knows the file, `verifier.rs` checks passwords without holding anybody up, `throttle.rs` slows those
//! down who guess, `rights.rs` and `topics.rs` say what a client may do.

pub mod passwords;
mod rights;
mod throttle;
pub mod topics;
mod verifier;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use rights::{Rights, Who};

use super::counters::ListenerCounters;
use super::transport::Peer;
use crate::config;
use verifier::Verifier;

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
    /// Known, but no rule allows anything.
    NotAuthorized,
    /// Too many logins wait, or too many from this address have failed: try again later.
    Busy,
}

/// The passwords and rules of one listener.
pub struct Access {
    config: Arc<config::Listener>,
    counters: Arc<ListenerCounters>,
    passwords: Option<Verifier>,
}

impl Access {
    /// Reads the password file. What is wrong with it is logged: the listener starts, and lets in whom it can.
    pub fn new(config: Arc<config::Listener>, counters: Arc<ListenerCounters>) -> Self {
        let passwords = config.password_file.as_ref().map(|path| Verifier::new(path, Arc::clone(&counters)));
        Access { config, counters, passwords }
    }

    /// Waits where a password must be checked, and longer after failures from the same address. Cancel safe.
    ///
    /// # Errors
    /// [`Refusal`], already counted.
    pub async fn admit(&self, login: Login<'_>) -> Result<Rights, Refusal> {
        let found = self.user(&login).await.and_then(|user| self.rights(&login, user));
        let counter = match found {
            Ok(_) => &self.counters.logins,
            Err(Refusal::BadCredentials) => &self.counters.logins_failed,
            Err(Refusal::NotAuthorized) => &self.counters.logins_denied,
            Err(Refusal::Busy) => &self.counters.logins_busy,
        };
        ListenerCounters::add(counter, 1);
        found
    }

    fn rights(&self, login: &Login<'_>, user: Option<&str>) -> Result<Rights, Refusal> {
        if self.config.acl.is_empty() && login.peer.anonymous {
            return Ok(Rights::everything_as(user));
        }
        let certificate = login.peer.certificate.as_deref();
        let rights = Rights::of(&self.config.acl, &Who { client_id: login.client_id, user, certificate });
        if rights.is_nothing() { Err(Refusal::NotAuthorized) } else { Ok(rights) }
    }

    /// Who it is, as far as that is proved. A certificate goes before a user name; a password that comes with it must be
    /// that of the same user.
    async fn user<'a>(&self, login: &Login<'a>) -> Result<Option<&'a str>, Refusal> {
        let address = login.peer.address;
        let certificate = login.peer.certificate.as_deref();
        let user = match (certificate, login.user) {
            (Some(shown), Some(said)) if login.password.is_some() && self.passwords.is_some() && shown != said => {
                return self.refuse(address);
            }
            (Some(shown), _) => Some(shown),
            (None, said) => said,
        };
        match (&self.passwords, user, login.password) {
            (Some(passwords), Some(user), Some(password)) => {
                passwords.check(user, password, address).await.map(|()| Some(user))
            }
            _ if certificate.is_some() => Ok(certificate),
            // A name that nobody checks is no user.
            _ if login.peer.anonymous => Ok(None),
            _ => self.refuse(address),
        }
    }

    fn refuse<T>(&self, address: Option<std::net::IpAddr>) -> Result<T, Refusal> {
        if let Some(passwords) = &self.passwords {
            passwords.failed(address);
        }
        Err(Refusal::BadCredentials)
    }
}
