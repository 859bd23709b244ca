//! Where a listener listens, and who may come in there without saying who he is. Pure.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::file::ListenerTable;
use crate::config::fields::Opt;
use crate::config::listener_model::{Address, Endpoint};
use crate::config::problem::Place;
use crate::config::reader::At;
use crate::config::resolve::Resolver;
use crate::config::scalars::OneOrMany;

/// A socket's address has room for 108 bytes with the NUL; it is made beside its place, with four more.
const UNIX_PATH_MAX: usize = 103;

/// An endpoint and where it is written.
pub struct Placed {
    pub endpoint: Endpoint,
    pub place: Place,
    /// As it was typed.
    text: String,
}

/// How clients prove who they are, for a whole listener.
#[derive(Clone, Copy)]
pub struct Proofs {
    pub passwords: bool,
    pub certificates_required: bool,
    pub insecure: bool,
}

pub fn resolve(at: &At<ListenerTable>, runtime_dir: &Path, proofs: Proofs, r: &mut Resolver<'_>) -> Vec<Placed> {
    let table = &at.value;
    let mut list = Vec::new();
    for (key, name, tls, websocket) in [
        (&table.listen, "listen", false, false),
        (&table.listen_tls, "listen_tls", true, false),
        (&table.listen_ws, "listen_ws", false, true),
        (&table.listen_wss, "listen_wss", true, true),
    ] {
        for at in addresses(key) {
            let Some(address) = tcp(at, name, r) else { continue };
            push(&mut list, at, Endpoint { address, tls, websocket, anonymous: false });
        }
    }
    for at in addresses(&table.listen_unix) {
        let Some(address) = unix(at, runtime_dir, r) else { continue };
        push(&mut list, at, Endpoint { address, tls: false, websocket: false, anonymous: false });
    }
    if list.is_empty() && !is_any_given(table) {
        let help = "add listen_tls = \"0.0.0.0:8883\" for the plant, or listen = \"127.0.0.1:1883\" for this machine";
        r.found.error(at.place, "the listener listens nowhere").help(help);
    }
    for placed in &mut list {
        placed.endpoint.anonymous = is_anonymous(placed, proofs, r);
    }
    warn_of_open(&list, table, proofs, r);
    list
}

fn addresses(key: &Opt<OneOrMany>) -> &[At<String>] {
    key.value().map_or(&[], |list| &list.0)
}

/// A wrong one has been reported already.
fn is_any_given(table: &ListenerTable) -> bool {
    let keys = [&table.listen, &table.listen_tls, &table.listen_ws, &table.listen_wss, &table.listen_unix];
    keys.iter().any(|key| match key {
        Opt::Absent => false,
        Opt::Broken(_) => true,
        Opt::Given(at) => !at.value.0.is_empty(),
    })
}

fn push(list: &mut Vec<Placed>, at: &At<String>, endpoint: Endpoint) {
    list.push(Placed { endpoint, place: at.place, text: at.value.clone() });
}

fn tcp(at: &At<String>, name: &str, r: &mut Resolver<'_>) -> Option<Address> {
    let text = at.value.as_str();
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    if address.is_none() {
        let help = "write an IP address and a port: \"0.0.0.0:1883\", or \"127.0.0.1:1883\" for this machine alone";
        r.found.error(at.place, format!("`{name}` is not an address: {text:?}")).help(help);
    }
    address.map(Address::Tcp)
}

fn unix(at: &At<String>, runtime_dir: &Path, r: &mut Resolver<'_>) -> Option<Address> {
    let path = runtime_dir.join(&at.value);
    let bytes = path.as_os_str().len();
    if at.value.is_empty() || at.value.ends_with('/') || bytes > UNIX_PATH_MAX {
        let message = format!("`listen_unix` is not the path of a socket: {:?}", at.value);
        let help = format!("at most {UNIX_PATH_MAX} bytes; a relative path is below [gateway] runtime_dir");
        r.found.error(at.place, message).help(help);
        return None;
    }
    Some(Address::Unix(path))
}

fn is_local(endpoint: &Endpoint) -> bool {
    match endpoint.address {
        Address::Tcp(address) => is_loopback(address.ip()),
        Address::Unix(_) => true,
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether clients that show nothing come in here. Where nobody could come in otherwise, it must be written out.
fn is_anonymous(placed: &Placed, proofs: Proofs, r: &mut Resolver<'_>) -> bool {
    let Placed { endpoint, place, text } = placed;
    if proofs.passwords || endpoint.tls && proofs.certificates_required {
        return false;
    }
    if proofs.insecure || is_local(endpoint) && !proofs.certificates_required {
        return true;
    }
    if proofs.certificates_required {
        let message = format!("nobody can come in at {text}: certificates are required, and there is no TLS");
        r.found
            .error(*place, message)
            .help("remove it, add `password_file`, or write insecure = true to let everybody in");
        return false;
    }
    let certificates = if endpoint.tls {
        "or `client_ca_file` and require_certificate = true below [source.listener.tls]"
    } else {
        "or listen with TLS and require certificates"
    };
    let help = format!(
        "add `password_file` (`forebay passwd` writes it), {certificates}; insecure = true lets everybody in, if that is meant"
    );
    r.found.error(*place, format!("whoever reaches {text} could publish: nobody is asked who he is")).help(help);
    false
}

fn warn_of_open(list: &[Placed], table: &ListenerTable, proofs: Proofs, r: &mut Resolver<'_>) {
    let mut open = 0;
    for Placed { endpoint, place, text } in list.iter().filter(|placed| !is_local(&placed.endpoint)) {
        if endpoint.anonymous && proofs.insecure {
            open += 1;
            let message = format!("insecure: whoever reaches {text} may publish and subscribe");
            r.found.warning(*place, message).help("add `password_file` as soon as the devices have passwords");
        }
        if proofs.passwords && !endpoint.tls {
            let message = format!("passwords cross the network unencrypted at {text}");
            r.found.warning(*place, message).help("use `listen_tls` and [source.listener.tls]");
        }
    }
    let local = list.iter().any(|placed| placed.endpoint.anonymous && proofs.certificates_required);
    if let Some(place) = table.insecure.place().filter(|_| proofs.insecure && open == 0 && !local) {
        let message = "`insecure` has no effect: nobody comes in by it who would not come in without";
        r.found.warning(place, message).help("remove it");
    }
}
