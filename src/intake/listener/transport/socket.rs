//! The listening sockets: TCP and Unix.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::stream::Stream;
use crate::config::Address;

/// Owner and group may connect.
const MODE: u32 = 0o660;

#[derive(Debug)]
pub enum Socket {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

/// A socket file, removed when dropped.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // A file that has gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// # Errors
/// Why the address cannot be used: another program has it, no right to it, no such interface.
pub async fn bind(address: &Address) -> io::Result<Socket> {
    match address {
        Address::Tcp(address) => TcpListener::bind(address).await.map(Socket::Tcp),
        Address::Unix(path) => bind_unix(path).await.map(Socket::Unix),
    }
}

/// Makes the socket beside its place and moves it there, so that it never stands there with other rights, and takes the
/// place of a stale one in one step.
async fn bind_unix(path: &Path) -> io::Result<UnixSocket> {
    match fs::symlink_metadata(path) {
        Ok(about) if !about.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file is no socket"));
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        _ => {}
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(MODE))?;
    fs::rename(&beside, path)?;
    Ok(UnixSocket { listener, path: path.to_owned() })
}

impl Socket {
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// The next connection and the address it comes from.
    ///
    /// # Errors
    /// What the system says; [`is_passing`] tells whether it concerns this connection alone.
    pub async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Socket::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                // A PUBACK must not wait for the next one. A socket that does not know the option works without it.
                let _ = stream.set_nodelay(true);
                Ok((stream.into(), Some(from.ip().to_canonical())))
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                Ok((stream.into(), None))
            }
        }
    }
}

/// The connection went away before it was taken; the next may be there already.
pub fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
