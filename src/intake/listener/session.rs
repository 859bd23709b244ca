//! What outlives a connection (4.1): subscriptions, messages for the client, and QoS 2 messages of the client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::outgoing::Outgoing;
use super::packet::{Version, Will};
use super::router::Options;
use crate::intake::{AckQueue, AckTicket};

/// The connection that has a session.
#[derive(Debug, Clone)]
pub(super) struct Attached {
    /// Its number; no two connections of a listener have the same.
    pub(super) connection: u64,
    pub(super) queue: Arc<AckQueue>,
}

/// How far a QoS 2 message of the client has come. Between PUBREC and PUBREL its row is in the spool.
#[derive(Debug)]
pub(super) enum Progress {
    /// Handed over, not durable yet.
    Pending {
        /// The answer to the same PUBLISH sent again on a later connection.
        again: Option<AckTicket>,
    },
    /// PUBREC may have left.
    Stored,
    /// PUBREL has come; its row is being deleted.
    Releasing,
}

#[derive(Debug)]
pub(super) struct Inbound {
    /// Of topic and payload.
    pub(super) hash: [u8; 16],
    pub(super) progress: Progress,
    /// A row is or will be in the spool: not if no route wants the reading.
    pub(super) row: bool,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Arc<str>,
    pub(super) version: Version,
    pub(super) attached: Option<Attached>,
    /// How long it is kept without a connection. `None`: for ever; zero: it ends with its connection.
    pub(super) expiry: Option<Duration>,
    /// Without a connection: when it ends and when its will is published, since the listener's start.
    pub(super) expires_at: Option<Duration>,
    pub(super) will_at: Option<Duration>,
    pub(super) will: Option<Box<Will>>,
    pub(super) subscriptions: BTreeMap<Box<str>, Options>,
    pub(super) outgoing: Outgoing,
    /// Its connection has been told as present.
    pub(super) announced: bool,
    /// The connection has been woken for messages and has not looked yet.
    pub(super) woken: bool,
    pub(super) inbound: BTreeMap<u16, Inbound>,
    /// Of `inbound`, those that are [`Progress::Pending`].
    pub(super) pending: u32,
    /// There may be QoS 2 rows in the spool.
    pub(super) has_qos2_rows: bool,
    /// What its row holds or is about to hold.
    pub(super) row: Option<Vec<u8>>,
    /// What the client left is to be deleted, as soon as nothing is pending: a row that became durable later would
    /// survive its deletion.
    pub(super) wipe: bool,
    /// It is over, but for what is still to be deleted.
    pub(super) ending: bool,
    /// Writes asked for so far, and those of them that are not durable. They may become so in another order: what only
    /// deletes needs no room.
    pub(super) asked: u64,
    pub(super) unwritten: Vec<u64>,
    /// What CONNACK says.
    pub(super) present: bool,
}

impl Session {
    pub(super) fn new(client: Arc<str>, version: Version) -> Self {
        Session {
            client,
            version,
            attached: None,
            expiry: Some(Duration::ZERO),
            expires_at: None,
            will_at: None,
            will: None,
            subscriptions: BTreeMap::new(),
            outgoing: Outgoing::default(),
            announced: false,
            woken: false,
            inbound: BTreeMap::new(),
            pending: 0,
            has_qos2_rows: false,
            row: None,
            wipe: false,
            ending: false,
            asked: 0,
            unwritten: Vec::new(),
            present: false,
        }
    }

    pub(super) fn is_attached_to(&self, connection: u64) -> bool {
        self.attached.as_ref().is_some_and(|attached| attached.connection == connection)
    }

    pub(super) fn ends_with_connection(&self) -> bool {
        self.expiry == Some(Duration::ZERO)
    }

    pub(super) fn wake(&self) {
        if let Some(attached) = &self.attached {
            attached.queue.wake();
        }
    }

    /// When something is to be done although nothing happens.
    pub(super) fn due(&self) -> Option<Duration> {
        [self.expires_at, self.will_at].into_iter().flatten().min()
    }
}
