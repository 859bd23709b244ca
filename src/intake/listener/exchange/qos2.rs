//! QoS 2 messages of clients: stored once however often they come (4.3.3).
//!
//! Packet id and hash become durable in the commit that holds the reading, before PUBREC; PUBCOMP follows the commit
//! that deletes them. All of this belongs to the session: a message handed over on one connection may be answered on
//! the next.

use super::Exchange;
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::listener::facts;
use crate::intake::listener::session::{Inbound, Progress};
use crate::intake::{AckTicket, Change, Kind};

/// Most QoS 2 messages of all clients between PUBLISH and PUBCOMP. An honest client has a few dozen.
const OPEN_MAX: u64 = 131_072;

/// What a PUBLISH of QoS 2 is.
#[derive(Debug)]
pub(in crate::intake::listener) enum Arrived {
    /// To be stored.
    New,
    /// It is stored, PUBREC is due.
    Stored,
    /// The same message is on its way to the spool; it is answered when that has come there.
    Pending,
    /// Another message under an id whose fate is not decided: it has to wait.
    Wait,
    /// All clients together have too many open.
    TooMany,
}

impl Exchange {
    /// Looks what a PUBLISH is, without changing anything.
    pub(in crate::intake::listener) fn arrived(&mut self, number: u64, packet_id: u16, hash: &[u8; 16]) -> Arrived {
        let open = self.parts.counters.qos2_open.load(std::sync::atomic::Ordering::Relaxed);
        let Some(session) = self.sessions.get(&number) else { return Arrived::Wait };
        match session.inbound.get(&packet_id) {
            None if open >= OPEN_MAX => Arrived::TooMany,
            None => Arrived::New,
            Some(known) => match known.progress {
                // A deletion that is on its way would take the new row with it.
                Progress::Releasing => Arrived::Wait,
                Progress::Pending { .. } if known.hash == *hash => Arrived::Pending,
                Progress::Pending { .. } => Arrived::Wait,
                Progress::Stored if known.hash == *hash => {
                    ListenerCounters::add(&self.parts.counters.qos2_repeated, 1);
                    Arrived::Stored
                }
                // The client lost its state and uses the id anew: never dropped.
                Progress::Stored => {
                    ListenerCounters::add(&self.parts.counters.qos2_reused, 1);
                    Arrived::New
                }
            },
        }
    }

    /// Enters a message that is about to be handed over, with its [`Exchange::qos2_row`].
    pub(in crate::intake::listener) fn begin(&mut self, number: u64, packet_id: u16, hash: [u8; 16]) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let has_row = session.inbound.get(&packet_id).is_some_and(|older| older.row);
        let inbound = Inbound { hash, progress: Progress::Pending { again: None }, row: has_row };
        if session.inbound.insert(packet_id, inbound).is_none() {
            ListenerCounters::add(&self.parts.counters.qos2_open, 1);
        }
        session.pending += 1;
    }

    /// What has to become durable with the message.
    pub(in crate::intake::listener) fn qos2_row(&self, number: u64, packet_id: u16) -> Option<Change> {
        let session = self.sessions.get(&number)?;
        let value = session.inbound.get(&packet_id)?.hash.to_vec();
        let key = facts::qos2_key(&self.parts.config.name, &session.client, packet_id);
        Some(Change::Put { kind: Kind::Qos2, key, value })
    }

    pub(in crate::intake::listener) fn qos2_deletion(&self, number: u64, packet_id: u16) -> Option<Change> {
        let session = self.sessions.get(&number)?;
        let key = facts::qos2_key(&self.parts.config.name, &session.client, packet_id);
        Some(Change::Delete { kind: Kind::Qos2, key })
    }

    pub(in crate::intake::listener) fn is_pending(&self, number: u64, packet_id: u16) -> bool {
        let inbound = self.sessions.get(&number).and_then(|session| session.inbound.get(&packet_id));
        inbound.is_some_and(|inbound| matches!(inbound.progress, Progress::Pending { .. }))
    }

    /// The message that has begun travels with its row: a route wants it.
    pub(in crate::intake::listener) fn has_row(&mut self, number: u64, packet_id: u16) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.has_qos2_rows = true;
        if let Some(inbound) = session.inbound.get_mut(&packet_id) {
            inbound.row = true;
        }
    }

    /// The same message again, on another connection than the one that handed it over.
    pub(in crate::intake::listener) fn answer_too(&mut self, number: u64, packet_id: u16, ticket: AckTicket) {
        ListenerCounters::add(&self.parts.counters.qos2_repeated, 1);
        let inbound = self.sessions.get_mut(&number).and_then(|session| session.inbound.get_mut(&packet_id));
        if let Some(Inbound { progress: Progress::Pending { again }, .. }) = inbound {
            // A ticket that is replaced belongs to a connection that is gone; it must still free its place.
            if let Some(old) = again.replace(ticket) {
                old.fire();
            }
        } else {
            ticket.fire();
        }
    }

    /// The commit (or the route's refusal) has come for a message that had begun on connection `by`.
    pub(in crate::intake::listener) fn stored(&mut self, number: u64, packet_id: u16, by: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let Some(inbound) = session.inbound.get_mut(&packet_id) else { return };
        if let Progress::Pending { again } = &mut inbound.progress {
            let again = again.take();
            inbound.progress = Progress::Stored;
            session.pending -= 1;
            if let Some(ticket) = again {
                ticket.fire();
            }
        }
        // The present connection may wait for it, if it is another.
        if !session.is_attached_to(by) {
            session.wake();
        }
        if session.pending == 0 && session.wipe {
            self.progress(number);
        }
    }

    /// PUBREL has come.
    pub(in crate::intake::listener) fn release(&mut self, number: u64, packet_id: u16) -> Release {
        let Some(session) = self.sessions.get_mut(&number) else { return Release::Unknown };
        let Some(inbound) = session.inbound.get_mut(&packet_id) else { return Release::Unknown };
        match inbound.progress {
            Progress::Pending { .. } => Release::TooEarly,
            Progress::Releasing => Release::Asked,
            Progress::Stored if inbound.row => {
                inbound.progress = Progress::Releasing;
                Release::Delete
            }
            Progress::Stored => {
                self.forget(number, packet_id);
                Release::Done
            }
        }
    }

    /// The row of a message that was released on connection `by` is gone for good.
    pub(in crate::intake::listener) fn released(&mut self, number: u64, packet_id: u16, by: u64) {
        if self.is_releasing(number, packet_id) {
            self.forget(number, packet_id);
            if let Some(session) = self.sessions.get(&number).filter(|session| !session.is_attached_to(by)) {
                session.wake();
            }
        }
    }

    pub(in crate::intake::listener) fn is_releasing(&self, number: u64, packet_id: u16) -> bool {
        let inbound = self.sessions.get(&number).and_then(|session| session.inbound.get(&packet_id));
        inbound.is_some_and(|inbound| matches!(inbound.progress, Progress::Releasing))
    }

    fn forget(&mut self, number: u64, packet_id: u16) {
        let removed = self.sessions.get_mut(&number).and_then(|session| session.inbound.remove(&packet_id));
        if removed.is_some() {
            ListenerCounters::sub(&self.parts.counters.qos2_open, 1);
        }
    }
}

#[derive(Debug)]
pub(in crate::intake::listener) enum Release {
    /// PUBCOMP when [`Exchange::qos2_deletion`] is durable.
    Delete,
    /// That is under way for an earlier connection.
    Asked,
    /// PUBCOMP at once.
    Done,
    /// PUBCOMP at once, with a reason in v5.
    Unknown,
    /// PUBREL before PUBREC.
    TooEarly,
}
