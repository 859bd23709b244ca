//! The MQTT side of the simulator: how to reach a broker, and the connection that publishes a feed to it.
//!
//! Its own loop over the codec rather than a client library's event loop: many messages go out in one write, many
//! acknowledgements come in with one read, and the loader stays cheap beside what it measures. It never subscribes.

mod connection;
mod session;
#[cfg(test)]
mod tests;
pub mod tls;
mod window;
mod wire;

use std::fmt;
use std::net::SocketAddr;

pub use connection::Publisher;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

/// How to reach a broker, and as whom.
#[derive(Clone)]
pub struct Broker {
    /// A name or an address without brackets.
    pub host: String,
    pub port: u16,
    pub version: Version,
    pub login: Option<Login>,
    pub tls: Option<TlsConnector>,
}

#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, version, login, tls } = self;
        let user = login.as_ref().map(|login| &login.user);
        write!(f, "Broker {{ {host}:{port}, {version:?}, user: {user:?}, tls: {} }}", tls.is_some())
    }
}

impl Broker {
    /// A broker without login and TLS, spoken to in version 3.1.1.
    pub fn plain(address: SocketAddr) -> Self {
        let (host, port) = (address.ip().to_string(), address.port());
        Self { host, port, version: Version::V311, login: None, tls: None }
    }

    /// User name and password.
    fn login(&self) -> Option<(&str, &str)> {
        self.login.as_ref().map(|login| (login.user.as_str(), login.password.as_str()))
    }

    /// Whether every address of the host is of this machine. What cannot be resolved is not.
    pub async fn is_loopback(&self) -> bool {
        let Ok(addresses) = tokio::net::lookup_host((self.host.as_str(), self.port)).await else { return false };
        let mut addresses = addresses.peekable();
        addresses.peek().is_some() && addresses.all(|address| address.ip().to_canonical().is_loopback())
    }

    /// A connection that may carry MQTT: TCP, and TLS where asked.
    async fn open(&self) -> std::io::Result<Box<dyn Duplex>> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        // Small packets must not wait for acknowledgements of earlier ones: the latencies would be Nagle's.
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
        Ok(Box::new(tls.connect(name, tcp).await?))
    }
}

/// Either kind of connection.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
