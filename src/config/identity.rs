//! The name of a gateway that was given none: stable over restarts and updates, different on each machine.
//!
//! Never the hostname: a thousand boxes flashed from one image share it, and two MQTT sessions of one name throw each
//! other out. A cloned card keeps the machine-id, so the serial number of the hardware goes into the hash as well.

use std::fmt::Write as _;
use std::fs;

/// Where boards and PCs keep their serial number; the first that can be read counts. DMI's is readable by root only.
const SERIAL_FILES: [&str; 3] = [
    "/proc/device-tree/serial-number",
    "/sys/firmware/devicetree/base/serial-number",
    "/sys/class/dmi/id/product_uuid",
];

const NAME_BYTES: usize = 6;

/// `fb-` and 12 hex digits of the SHA-256 over machine-id and hardware serial.
pub fn gateway_name() -> String {
    let machine_id = fs::read("/etc/machine-id").unwrap_or_default();
    let serial = SERIAL_FILES.iter().find_map(|path| fs::read(path).ok()).unwrap_or_default();
    name_of(&machine_id, &serial)
}

fn name_of(machine_id: &[u8], serial: &[u8]) -> String {
    // The separator keeps ("ab", "c") and ("a", "bc") apart.
    let text = [machine_id.trim_ascii(), b"\0", trim_serial(serial)].concat();
    format!("fb-{}", &sha256_hex(&text)[..2 * NAME_BYTES])
}

/// A device tree string ends with NUL.
fn trim_serial(serial: &[u8]) -> &[u8] {
    serial.trim_ascii().strip_suffix(b"\0").unwrap_or(serial).trim_ascii()
}

/// SHA-256 in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_stable_and_differs_by_either_part() {
        let name = name_of(b"0123456789abcdef\n", b"10000000abcdef\0");
        assert_eq!(name, name_of(b"0123456789abcdef", b"10000000abcdef"));
        assert_eq!(name.len(), 15);
        assert!(name.starts_with("fb-"));
        assert_ne!(name, name_of(b"0123456789abcdef", b"10000000abcdee"));
        assert_ne!(name, name_of(b"0123456789abcdee", b"10000000abcdef"));
        assert_ne!(name_of(b"ab", b"c"), name_of(b"a", b"bc"));
    }

    #[test]
    fn sha256_agrees_with_the_standard() {
        // FIPS 180-4, the example of one block.
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
