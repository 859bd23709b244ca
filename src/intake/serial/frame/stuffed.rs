//! SLIP (RFC 1055) and COBS (Cheshire and Baker, 1997): delimiters that cannot occur within a frame. Pure.

pub const SLIP_END: u8 = 0xc0;
const SLIP_ESC: u8 = 0xdb;
const SLIP_ESC_END: u8 = 0xdc;
const SLIP_ESC_ESC: u8 = 0xdd;

/// `None`: an escape that RFC 1055 does not know.
pub fn unslip<'o>(stuffed: &[u8], out: &'o mut Vec<u8>) -> Option<&'o [u8]> {
    out.clear();
    let mut bytes = stuffed.iter();
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            SLIP_ESC => match *bytes.next()? {
                SLIP_ESC_END => SLIP_END,
                SLIP_ESC_ESC => SLIP_ESC,
                _ => return None,
            },
            plain => plain,
        });
    }
    Some(out)
}

/// With an END before, which ends whatever noise came, and one behind.
pub fn slip(frame: &[u8], out: &mut Vec<u8>) {
    out.push(SLIP_END);
    for &byte in frame {
        match byte {
            SLIP_END => out.extend_from_slice(&[SLIP_ESC, SLIP_ESC_END]),
            SLIP_ESC => out.extend_from_slice(&[SLIP_ESC, SLIP_ESC_ESC]),
            plain => out.push(plain),
        }
    }
    out.push(SLIP_END);
}

/// `stuffed` holds no zero. `None`: a group is shorter than it says.
pub fn uncobs<'o>(stuffed: &[u8], out: &'o mut Vec<u8>) -> Option<&'o [u8]> {
    out.clear();
    let mut rest = stuffed;
    while let Some((&code, tail)) = rest.split_first() {
        let group = usize::from(code).checked_sub(1)?;
        let (bytes, tail) = tail.split_at_checked(group)?;
        out.extend_from_slice(bytes);
        if code != 0xff && !tail.is_empty() {
            out.push(0);
        }
        rest = tail;
    }
    Some(out)
}

/// With the zero behind.
pub fn cobs(frame: &[u8], out: &mut Vec<u8>) {
    let mut groups = frame.split(|byte| *byte == 0).peekable();
    while let Some(group) = groups.next() {
        let mut chunks = group.chunks(254).peekable();
        if chunks.peek().is_none() {
            out.push(1);
        }
        while let Some(chunk) = chunks.next() {
            out.push(chunk.len() as u8 + 1);
            out.extend_from_slice(chunk);
            // A full group stands for no zero: one that ends exactly there needs an empty group more.
            if chunk.len() == 254 && chunks.peek().is_none() && groups.peek().is_some() {
                out.push(1);
            }
        }
    }
    out.push(0);
}
