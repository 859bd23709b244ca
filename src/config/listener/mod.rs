//! `[[source.listener]]`: the MQTT servers of our own. Pure.

mod acl;
mod endpoints;
pub mod file;
mod limits;

use super::listener_model::{Address, CertificateIdentity, Listener, ListenerLimits, MessageIdFrom, ServerTls};
use super::model::{Budget, Gateway, Spool};
use super::problem::Place;
use super::reader::At;
use super::resolve::Resolver;
use super::routes;
use super::sources::warn_of_slow;
use crate::route::json::Pointer;
use endpoints::{Placed, Proofs};
use file::{LimitsTable, ListenerTable, ServerTlsTable};

/// What a listener is called when there is only one and it has no name.
pub const NAME: &str = "listener";

/// What all listeners are made with.
pub struct Maker<'a> {
    pub gateway: &'a Gateway,
    pub memory: &'a Budget,
    pub spool: &'a Spool,
    /// Of the intake memory, for each source that says nothing.
    pub intake_share: u64,
    /// Of the fan-out memory, for each listener that says nothing.
    pub fan_out_share: u64,
}

/// What each listener without `fan_out_bytes_max` gets of the fan-out memory, its retained messages among it.
pub fn fan_out_share(tables: &[At<ListenerTable>], memory: &Budget) -> u64 {
    let given = |at: &At<ListenerTable>| {
        let queues = at.value.fan_out_bytes_max.value()?.0;
        let retained = at.value.limits.0.as_ref().and_then(|limits| limits.value.retained_bytes.value());
        Some(queues.saturating_add(retained.map_or(ListenerLimits::default().retained_bytes, |size| size.0)))
    };
    let others = tables.iter().filter(|at| given(at).is_none()).count() as u64;
    let taken = tables.iter().filter_map(given).fold(0, u64::saturating_add);
    memory.fan_out.saturating_sub(taken) / others.max(1)
}

impl Maker<'_> {
    pub fn listener(&self, at: &At<ListenerTable>, name: String, r: &mut Resolver<'_>) -> Listener {
        let table = &at.value;
        let tls = table.tls.0.as_ref().and_then(|section| server_tls(section, r));
        let certificates = tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
        let proofs = Proofs {
            passwords: table.password_file.place().is_some(),
            certificates_required: tls.as_ref().is_some_and(|tls| tls.require_certificate),
            insecure: table.insecure.or(false),
        };
        let endpoints = endpoints::resolve(at, &self.gateway.runtime_dir, proofs, r);
        check_tls_use(table, &endpoints, r);
        let no_limits = LimitsTable::default();
        let limits_table = table.limits.0.as_ref().map_or(&no_limits, |section| &section.value);
        let mut limits = limits::resolve(limits_table, r);
        if limits_table.retained_bytes.place().is_none() && table.fan_out_bytes_max.place().is_none() {
            // Where several listeners share little memory, half of it is for those who are there now.
            limits.retained_bytes = limits.retained_bytes.min(self.fan_out_share / 2);
        }
        limits::check(limits_table, &limits, self.memory.max, r);
        let slow = limits_table.receive_maximum.place().unwrap_or(at.place);
        warn_of_slow(limits.receive_maximum, slow, self.spool, r);
        Listener {
            acl: acl::resolve(at, &endpoints, proofs, certificates, r),
            endpoints: endpoints.into_iter().map(|placed| placed.endpoint).collect(),
            password_file: r.file(&table.password_file, "password_file"),
            message_id: message_id(table, r),
            unacked_bytes_max: table.unacked_bytes_max.value().map_or(self.intake_share, |size| size.0),
            fan_out_bytes_max: self.fan_out(at, &limits, r),
            limits,
            tls,
            name,
        }
    }

    /// Queues get what the retained messages leave of this listener's part of the fan-out memory.
    fn fan_out(&self, at: &At<ListenerTable>, limits: &ListenerLimits, r: &mut Resolver<'_>) -> u64 {
        let table = &at.value;
        if let Some(given) = table.fan_out_bytes_max.value() {
            return given.0;
        }
        let queues = self.fan_out_share.saturating_sub(limits.retained_bytes);
        if queues < limits.queued_bytes {
            let place = table.limits.0.as_ref().map_or(at.place, |section| section.place);
            let message =
                "`retained_bytes` and one subscriber's `queued_bytes` do not fit this listener's fan-out memory";
            r.found.error(place, message).help("lower them, or raise [memory] fan_out");
        }
        queues
    }
}

fn server_tls(section: &At<ServerTlsTable>, r: &mut Resolver<'_>) -> Option<ServerTls> {
    let At { value: table, place } = section;
    let help = "a server shows a certificate: give `cert_file` and `key_file`";
    r.required(&table.cert_file, "cert_file", *place, help);
    r.required(&table.key_file, "key_file", *place, help);
    let required = table.require_certificate.or(false);
    if let Some(place) =
        table.require_certificate.place().filter(|_| required && table.client_ca_file.place().is_none())
    {
        let help = "name the issuers of the devices' certificates";
        r.found.error(place, "`require_certificate` without `client_ca_file`").help(help);
    }
    if let Some(place) = table.identity.place().filter(|_| table.client_ca_file.place().is_none()) {
        let help = "add `client_ca_file`, or remove it";
        r.found.warning(place, "`identity` has no effect: no certificate is asked for").help(help);
    }
    let client_ca_file = r.file(&table.client_ca_file, "client_ca_file");
    let (cert_file, key_file) = (r.file(&table.cert_file, "cert_file"), r.file(&table.key_file, "key_file"));
    Some(ServerTls {
        cert_file: cert_file?,
        key_file: key_file?,
        client_ca_file,
        require_certificate: required,
        identity: table.identity.or(CertificateIdentity::CommonName),
    })
}

fn check_tls_use(table: &ListenerTable, endpoints: &[Placed], r: &mut Resolver<'_>) {
    let with_tls = endpoints.iter().find(|placed| placed.endpoint.tls);
    match (&table.tls.0, with_tls) {
        (None, Some(placed)) => {
            let help = "add [source.listener.tls] with `cert_file` and `key_file`";
            r.found.error(placed.place, "TLS needs a certificate").help(help);
        }
        (Some(section), None) => {
            let help = "use `listen_tls` or `listen_wss`, or remove the table";
            r.found.warning(section.place, "[source.listener.tls] has no effect: nothing listens with TLS").help(help);
        }
        _ => {}
    }
}

fn message_id(table: &ListenerTable, r: &mut Resolver<'_>) -> Option<MessageIdFrom> {
    let (property, pointer) = (&table.message_id_property, &table.message_id_pointer);
    if let (Some(first), Some(second)) = (property.place(), pointer.place()) {
        let finding = r.found.error(second, "both `message_id_property` and `message_id_pointer` are given");
        finding.note("the other is at", first).help("keep the one that your devices send");
    }
    if let Some(at) = property.get() {
        if at.value.is_empty() {
            r.found.error(at.place, "`message_id_property` is empty").help("name a user property of MQTT 5");
        }
        return Some(MessageIdFrom::Property(at.value.clone()));
    }
    let at = pointer.get()?;
    if let Err(error) = Pointer::parse(&at.value) {
        routes::report(at, 0, "JSON pointer", error, r);
    }
    Some(MessageIdFrom::Pointer(at.value.clone()))
}

/// Two endpoints at one address: the second would never be bound.
pub fn check_addresses(tables: &[At<ListenerTable>], listeners: &[Listener], r: &mut Resolver<'_>) {
    let mut seen: Vec<(&Address, Place)> = Vec::new();
    for (at, listener) in tables.iter().zip(listeners) {
        for endpoint in &listener.endpoints {
            if let Some((_, first)) = seen.iter().find(|(address, _)| *address == &endpoint.address) {
                let message = format!("two endpoints at one address: {}", show(&endpoint.address));
                let finding = r.found.error(at.place, message);
                finding.note("the listener of the other is at", *first).help("give each a port of its own");
            }
            seen.push((&endpoint.address, at.place));
        }
    }
}

fn show(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => path.display().to_string(),
    }
}
