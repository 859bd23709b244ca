//! Timestamps when the clock was wrong. Pure.
//!
//! Every record keeps the boot time of its arrival beside the wall clock's. Once the clock is right, wall minus boot
//! time is known for this boot, and with it the true arrival of every record of this boot.

use std::collections::HashMap;

use crate::clock;
use crate::record::{RecordView, TimestampKind};

/// A clock that was closer than this is left alone: NTP slews, it does not lie.
const TOLERANCE_MS: i64 = 2_000;

#[derive(Debug, Default)]
pub struct Times {
    /// Wall minus boot time (ms) per run, where known to be right.
    offsets: HashMap<u64, i64>,
}

/// What a record is sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    AsRecorded(i64),
    Corrected(i64),
    /// The clock was never set in that boot: the time is a guess and says so.
    Doubtful(i64),
}

impl Times {
    /// `offset_ms`: wall minus boot time of the boot in which `run` was.
    pub fn learn(&mut self, run: u64, offset_ms: i64) {
        self.offsets.insert(run, offset_ms);
    }

    pub fn stamp(&self, run: u64, record: &RecordView<'_>) -> Stamp {
        if record.timestamp_kind == TimestampKind::Payload {
            return Stamp::AsRecorded(record.timestamp_ms);
        }
        match self.offsets.get(&run) {
            Some(offset) => {
                let arrived = record.arrival.boot_ms as i64 + offset;
                if (arrived - record.timestamp_ms).abs() > TOLERANCE_MS {
                    Stamp::Corrected(arrived)
                } else {
                    Stamp::AsRecorded(record.timestamp_ms)
                }
            }
            None if clock::plausible(record.timestamp_ms) => Stamp::AsRecorded(record.timestamp_ms),
            None => Stamp::Doubtful(record.timestamp_ms.max(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Arrival;

    fn record(timestamp_ms: i64, boot_ms: u64, timestamp_kind: TimestampKind) -> RecordView<'static> {
        let arrival = Arrival { wall_ms: timestamp_ms, boot_ms };
        RecordView {
            topic: "t",
            key: None,
            headers: vec![],
            payload: b"",
            timestamp_ms,
            timestamp_kind,
            arrival,
            old_id: None,
        }
    }

    #[test]
    fn arrival_in_1970_is_corrected_once_the_boot_s_offset_is_known() {
        let now = 1_790_000_000_000;
        let mut times = Times::default();
        let early = record(5_000, 5_000, TimestampKind::Arrival);
        assert_eq!(times.stamp(1, &early), Stamp::Doubtful(5_000));
        times.learn(1, now);
        assert_eq!(times.stamp(1, &early), Stamp::Corrected(now + 5_000));
        assert_eq!(times.stamp(2, &early), Stamp::Doubtful(5_000), "another boot is another clock");
        let payload = record(5_000, 5_000, TimestampKind::Payload);
        assert_eq!(times.stamp(1, &payload), Stamp::AsRecorded(5_000));
        let slewed = record(now + 5_900, 5_000, TimestampKind::Arrival);
        assert_eq!(times.stamp(1, &slewed), Stamp::AsRecorded(now + 5_900));
        let ten_years_ahead = record(now + 315_000_000_000, 9_000, TimestampKind::Arrival);
        assert_eq!(times.stamp(1, &ten_years_ahead), Stamp::Corrected(now + 9_000));
    }
}
