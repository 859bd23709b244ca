//! What a Modbus line counts beyond what every line does, and the names under which `/metrics` shows it.

use std::sync::atomic::AtomicU64;

/// Of one source.
#[derive(Debug, Default)]
pub struct ModbusCounters {
    /// By code, the last one for all others.
    exceptions: [AtomicU64; 10],
    /// Turns of devices that rest because they do not answer.
    pub skipped: AtomicU64,
    pub stale: AtomicU64,
    pub bad: AtomicU64,
}

/// Codes of the specification, in the order of `exceptions`.
const CODES: [u8; 9] = [1, 2, 3, 4, 5, 6, 8, 10, 11];

impl ModbusCounters {
    pub fn exception(&self, code: u8) -> &AtomicU64 {
        let at = CODES.iter().position(|known| *known == code);
        &self.exceptions[at.unwrap_or(CODES.len())]
    }
}

type Metric = (&'static str, &'static str, fn(&ModbusCounters) -> &AtomicU64);

/// Name, help, and where it is counted: all of them only ever grow.
pub const METRICS: [Metric; 13] = [
    ("modbus_skipped", "Turns left out because the device does not answer", |c| &c.skipped),
    ("modbus_stale_readings", "Readings with values of an earlier round", |c| &c.stale),
    ("modbus_bad_readings", "Readings without some value", |c| &c.bad),
    ("modbus_illegal_function", "Exceptions 1", |c| c.exception(1)),
    ("modbus_illegal_data_address", "Exceptions 2", |c| c.exception(2)),
    ("modbus_illegal_data_value", "Exceptions 3", |c| c.exception(3)),
    ("modbus_server_device_failure", "Exceptions 4", |c| c.exception(4)),
    ("modbus_acknowledge", "Exceptions 5", |c| c.exception(5)),
    ("modbus_server_device_busy", "Exceptions 6", |c| c.exception(6)),
    ("modbus_memory_parity_error", "Exceptions 8", |c| c.exception(8)),
    ("modbus_gateway_path_unavailable", "Exceptions 10", |c| c.exception(10)),
    ("modbus_gateway_target_silent", "Exceptions 11", |c| c.exception(11)),
    ("modbus_other_exceptions", "Exceptions of other codes", |c| c.exception(0)),
];

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn every_code_is_counted_under_its_name() {
        let counters = ModbusCounters::default();
        for code in 0..=255 {
            counters.exception(code).fetch_add(1, Ordering::Relaxed);
        }
        let counts: Vec<u64> = METRICS[3..].iter().map(|(_, _, of)| of(&counters).load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [1, 1, 1, 1, 1, 1, 1, 1, 1, 247]);
    }
}
