//! How much may be unacknowledged: of one connection, and of all together. Pure.
//!
//! No connection takes more than a quarter of the room, and the last quarter is for connections that have nothing
//! unacknowledged: a greedy device cannot shut the others out.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::intake::AckQueue;

/// Memory of a reading beside its packet: delivery, ticket, slot, allocations.
const OVERHEAD_BYTES: u64 = 128;
/// Connections woken for each reading that is acknowledged, while there is little room.
const WOKEN: usize = 4;

/// The room of all connections.
#[derive(Debug)]
pub(super) struct Gate {
    bytes_max: u64,
    bytes: u64,
    /// Connections that found no room, by number; at most one entry each.
    waiting: BTreeMap<u64, Arc<AckQueue>>,
    /// The last one that was woken.
    turn: u64,
}

/// What one connection takes of it.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) bytes: u64,
    /// Readings of QoS 1 and 2.
    pub(super) count: u32,
    closed: bool,
}

/// Who asks for room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) connection: u64,
    pub(super) queue: &'a Arc<AckQueue>,
    /// Readings of QoS 1 and 2 that one connection may have unacknowledged; `None` for one of QoS 0, which does not wait.
    pub(super) count_max: Option<u32>,
}

impl Gate {
    pub(super) fn new(bytes_max: u64) -> Self {
        Gate { bytes_max: bytes_max.max(4), bytes: 0, waiting: BTreeMap::new(), turn: 0 }
    }

    /// What a packet counts for. At most the share of one connection: what is larger must still come in, alone.
    pub(super) fn cost(&self, packet_bytes: usize) -> u64 {
        (packet_bytes as u64 + OVERHEAD_BYTES).min(self.bytes_max / 4)
    }

    /// Whether `cost` more may come in. If not, and others are in the way, `asking` is woken when there is room.
    pub(super) fn admits(&mut self, share: &mut Share, asking: Asking<'_>, cost: u64) -> bool {
        let own_max = self.bytes_max / 4;
        let own = match asking.count_max {
            _ if share.bytes == 0 => true,
            None => share.bytes + cost <= own_max,
            // Open again at half, so that it does not flutter.
            Some(count_max) if share.closed => share.count <= count_max / 2 && share.bytes <= own_max / 2,
            Some(count_max) => share.count < count_max && share.bytes + cost <= own_max,
        };
        let max = if share.bytes == 0 { self.bytes_max } else { self.bytes_max - own_max };
        let all = self.bytes + cost <= max;
        if asking.count_max.is_some() {
            share.closed = !(own && all);
            if own && !all {
                self.waiting.insert(asking.connection, Arc::clone(asking.queue));
            }
        }
        own && all
    }

    pub(super) fn take(&mut self, share: &mut Share, cost: u64) {
        share.bytes += cost;
        self.bytes += cost;
    }

    pub(super) fn free(&mut self, share: &mut Share, cost: u64) {
        share.bytes -= cost;
        self.bytes -= cost;
        if self.waiting.is_empty() {
            return;
        }
        if self.bytes <= self.bytes_max / 2 {
            for queue in std::mem::take(&mut self.waiting).into_values() {
                queue.wake();
            }
            return;
        }
        for _ in 0..WOKEN {
            let next = self.waiting.range(self.turn + 1..).next().or_else(|| self.waiting.iter().next());
            let Some((&connection, _)) = next else { return };
            self.turn = connection;
            if let Some(queue) = self.waiting.remove(&connection) {
                queue.wake();
            }
        }
    }

    /// A connection has ended.
    pub(super) fn forget(&mut self, connection: u64) {
        self.waiting.remove(&connection);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether more than half is free: then connections may read far ahead.
    pub(super) fn is_roomy(&self) -> bool {
        self.bytes <= self.bytes_max / 2
    }
}

#[cfg(test)]
impl Share {
    fn is_closed(&self) -> bool {
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        gate: Gate,
        queue: Arc<AckQueue>,
    }

    impl Rig {
        fn new(bytes_max: u64) -> Self {
            Rig { gate: Gate::new(bytes_max), queue: Arc::default() }
        }

        fn take(&mut self, connection: u64, share: &mut Share, count_max: Option<u32>, cost: u64) -> bool {
            let asking = Asking { connection, queue: &self.queue, count_max };
            let admitted = self.gate.admits(share, asking, cost);
            if admitted {
                self.gate.take(share, cost);
                share.count += u32::from(count_max.is_some());
            }
            admitted
        }
    }

    #[test]
    fn a_greedy_connection_gets_a_quarter_and_opens_again_at_half_of_it() {
        let mut rig = Rig::new(4000);
        let mut greedy = Share::default();
        while rig.take(1, &mut greedy, Some(1000), 100) {}
        assert_eq!(greedy.bytes, 1000);
        for open in [false, false, false, false, true] {
            rig.gate.free(&mut greedy, 100);
            assert_eq!(
                rig.gate.admits(&mut greedy, Asking { connection: 1, queue: &rig.queue, count_max: Some(1000) }, 100),
                open
            );
        }
    }

    #[test]
    fn the_last_quarter_is_for_those_who_have_nothing() {
        let mut rig = Rig::new(4000);
        let mut greedy: Vec<Share> = (0..4).map(|_| Share::default()).collect();
        for (number, share) in greedy.iter_mut().enumerate() {
            while rig.take(number as u64, share, Some(1000), 100) {}
        }
        assert!(rig.gate.bytes() <= 3100, "{}", rig.gate.bytes());
        let mut modest = Share::default();
        assert!(rig.take(9, &mut modest, Some(1000), 100));
        assert!(!rig.take(9, &mut modest, Some(1000), 100), "one reading");
        assert!(rig.gate.waiting.contains_key(&9));
        rig.gate.free(&mut greedy[0], 100);
        assert!(!rig.gate.waiting.contains_key(&9), "it has been woken");
    }

    #[test]
    fn a_count_closes_it_too_but_not_for_qos_0() {
        let mut rig = Rig::new(1 << 20);
        let mut share = Share::default();
        assert!(rig.take(1, &mut share, Some(2), 100));
        assert!(rig.take(1, &mut share, Some(2), 100));
        assert!(!rig.take(1, &mut share, Some(2), 100));
        assert!(share.is_closed());
        assert!(rig.take(1, &mut share, None, 100));
    }

    #[test]
    fn a_packet_larger_than_the_share_comes_in_alone() {
        let mut rig = Rig::new(4000);
        let mut share = Share::default();
        let cost = rig.gate.cost(1 << 20);
        assert!(rig.take(1, &mut share, Some(10), cost));
        assert!(!rig.take(1, &mut share, Some(10), 1));
    }
}
