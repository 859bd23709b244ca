//! Checksums at the end of a frame. Pure.

use crc::{Algorithm, Crc, Table};

use super::ByteOrder;

/// A checksum and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    pub kind: Kind,
    pub order: ByteOrder,
    /// Written as hexadecimal digits instead of as bytes.
    pub hex: bool,
    /// Bytes at the beginning of the frame that it does not cover.
    pub skip: usize,
}

/// The sums in use on serial lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Two's complement of the sum of all bytes (Modbus ASCII).
    Lrc,
    /// Sum of all bytes, modulo 256.
    Sum8,
    /// Exclusive or of all bytes.
    Xor8,
    /// A CRC by its name in [`CRC_NAMES`].
    Crc(&'static str),
}

type Named8 = (&'static str, &'static Algorithm<u8>);
type Named16 = (&'static str, &'static Algorithm<u16>);
type Named32 = (&'static str, &'static Algorithm<u32>);

const CRC8: [Named8; 5] = [
    ("crc-8", &crc::CRC_8_SMBUS),
    ("crc-8-maxim", &crc::CRC_8_MAXIM_DOW),
    ("crc-8-sae-j1850", &crc::CRC_8_SAE_J1850),
    ("crc-8-autosar", &crc::CRC_8_AUTOSAR),
    ("crc-8-bluetooth", &crc::CRC_8_BLUETOOTH),
];
const CRC16: [Named16; 7] = [
    ("crc-16-modbus", &crc::CRC_16_MODBUS),
    ("crc-16-arc", &crc::CRC_16_ARC),
    ("crc-16-ccitt-false", &crc::CRC_16_IBM_3740),
    ("crc-16-xmodem", &crc::CRC_16_XMODEM),
    ("crc-16-kermit", &crc::CRC_16_KERMIT),
    ("crc-16-x25", &crc::CRC_16_IBM_SDLC),
    ("crc-16-dnp", &crc::CRC_16_DNP),
];
const CRC32: [Named32; 4] = [
    ("crc-32", &crc::CRC_32_ISO_HDLC),
    ("crc-32c", &crc::CRC_32_ISCSI),
    ("crc-32-mpeg-2", &crc::CRC_32_MPEG_2),
    ("crc-32-bzip2", &crc::CRC_32_BZIP2),
];

/// Every kind by the name that a person types.
pub fn names() -> Vec<(&'static str, Kind)> {
    let sums = [("lrc", Kind::Lrc), ("sum-8", Kind::Sum8), ("xor-8", Kind::Xor8)];
    let crcs = CRC8.iter().map(|(name, _)| *name);
    let crcs = crcs.chain(CRC16.iter().map(|(name, _)| *name)).chain(CRC32.iter().map(|(name, _)| *name));
    sums.into_iter().chain(crcs.map(|name| (name, Kind::Crc(name)))).collect()
}

impl Kind {
    fn width(self) -> usize {
        match self {
            Kind::Crc(name) if name.starts_with("crc-16") => 2,
            Kind::Crc(name) if name.starts_with("crc-32") => 4,
            _ => 1,
        }
    }

    fn of(self, bytes: &[u8]) -> u32 {
        let sum = || bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        match self {
            Kind::Sum8 => sum().into(),
            Kind::Lrc => sum().wrapping_neg().into(),
            Kind::Xor8 => bytes.iter().fold(0u8, |sum, byte| sum ^ byte).into(),
            Kind::Crc(name) => crc_of(name, bytes),
        }
    }
}

/// Without tables: a serial line is slow, and a table for each algorithm would be larger than the code.
fn crc_of(name: &str, bytes: &[u8]) -> u32 {
    if let Some((_, algorithm)) = CRC8.iter().find(|(known, _)| *known == name) {
        return Crc::<u8, Table<0>>::new(algorithm).checksum(bytes).into();
    }
    if let Some((_, algorithm)) = CRC16.iter().find(|(known, _)| *known == name) {
        return Crc::<u16, Table<0>>::new(algorithm).checksum(bytes).into();
    }
    let found = CRC32.iter().find(|(known, _)| *known == name);
    found.map_or(0, |(_, algorithm)| Crc::<u32, Table<0>>::new(algorithm).checksum(bytes))
}

impl Checksum {
    /// Bytes that it takes in the frame.
    pub fn width(&self) -> usize {
        self.kind.width() * if self.hex { 2 } else { 1 }
    }

    /// The frame without its checksum; `None` when that is wrong or missing.
    pub fn strip<'b>(&self, frame: &'b [u8]) -> Option<&'b [u8]> {
        let (covered, said) = frame.split_at_checked(frame.len().checked_sub(self.width())?)?;
        let sum = self.written(self.kind.of(covered.get(self.skip..)?));
        said.eq_ignore_ascii_case(&sum).then_some(covered)
    }

    /// Writes the checksum of `frame` behind it.
    pub fn append(&self, frame: &mut Vec<u8>) {
        let sum = self.written(self.kind.of(frame.get(self.skip..).unwrap_or_default()));
        frame.extend_from_slice(&sum);
    }

    fn written(&self, sum: u32) -> Vec<u8> {
        let mut bytes = sum.to_be_bytes()[4 - self.kind.width()..].to_vec();
        if self.order == ByteOrder::Little {
            bytes.reverse();
        }
        if !self.hex {
            return bytes;
        }
        bytes.iter().flat_map(|byte| format!("{byte:02X}").into_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check values of the catalogue of parametrised CRC algorithms: the sum over "123456789".
    #[test]
    fn each_crc_has_its_check_value() {
        let expected = [
            ("crc-8", 0xf4),
            ("crc-8-maxim", 0xa1),
            ("crc-8-sae-j1850", 0x4b),
            ("crc-8-autosar", 0xdf),
            ("crc-8-bluetooth", 0x26),
            ("crc-16-modbus", 0x4b37),
            ("crc-16-arc", 0xbb3d),
            ("crc-16-ccitt-false", 0x29b1),
            ("crc-16-xmodem", 0x31c3),
            ("crc-16-kermit", 0x2189),
            ("crc-16-x25", 0x906e),
            ("crc-16-dnp", 0xea82),
            ("crc-32", 0xcbf4_3926),
            ("crc-32c", 0xe306_9283),
            ("crc-32-mpeg-2", 0x0376_e6e7),
            ("crc-32-bzip2", 0xfc89_1918),
        ];
        for (name, check) in expected {
            assert_eq!(Kind::Crc(name).of(b"123456789"), check, "{name}");
        }
        let crcs = names().into_iter().filter(|(_, kind)| matches!(kind, Kind::Crc(_))).count();
        assert_eq!(crcs, expected.len(), "each is checked");
    }

    #[test]
    fn sums_are_as_the_protocols_say() {
        // The example of the Modbus over serial line guide: the LRC makes the sum of all bytes zero.
        assert_eq!(Kind::Lrc.of(&[0x02, 0x07]), 0xf7);
        assert_eq!(Kind::Sum8.of(&[0xff, 0x02]), 0x01);
        assert_eq!(Kind::Xor8.of(b"AB"), 0x03);
    }

    #[test]
    fn order_hex_and_skipped_bytes() {
        let modbus = Checksum { kind: Kind::Crc("crc-16-modbus"), order: ByteOrder::Little, hex: false, skip: 0 };
        // A request of the Modbus guide: read holding register 0 of slave 1.
        assert_eq!(modbus.strip(&[1, 3, 0, 0, 0, 1, 0x84, 0x0a]), Some(&[1, 3, 0, 0, 0, 1][..]));
        assert_eq!(modbus.strip(&[1, 3, 0, 0, 0, 1, 0x0a, 0x84]), None);
        let hex = Checksum { kind: Kind::Xor8, order: ByteOrder::Big, hex: true, skip: 1 };
        let mut frame = b"$AB".to_vec();
        hex.append(&mut frame);
        assert_eq!(frame, b"$AB03");
        assert_eq!(hex.strip(&frame), Some(&b"$AB"[..]));
        assert_eq!(hex.strip(b"3"), None, "too short for a checksum");
    }
}
