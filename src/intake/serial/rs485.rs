//! Has the driver switch an RS-485 transceiver between sending and receiving (TIOCSRS485). The only seam to the crate that
//! knows how.

use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use serial2::SerialPort;
use serial2::rs4xx::{Rs485Config, TransceiverMode};

use crate::config::Rs485;

/// A port whose driver has been told. As long as it is held, the driver does not start over.
pub(super) struct Switched {
    _port: SerialPort,
}

/// Tells the driver, before the port is opened for good: the port that is read from gives nobody its descriptor.
///
/// # Errors
/// In words for a person, without "failed to".
pub(super) fn switch(device: &Path, wanted: Rs485) -> Result<Switched, String> {
    let failed = |error: io::Error| format!("switch {} to RS-485: {error}{}", device.display(), help(&error));
    let port = open(device).map_err(failed)?;
    port.set_rs4xx_mode(config(wanted)).map_err(failed)?;
    // A driver may take the call and do otherwise.
    match port.get_rs4xx_mode().map_err(failed)? {
        TransceiverMode::Rs485(found) => tell_difference(device, wanted, &found),
        _ => return Err(format!("switch {} to RS-485: the driver took it and did not do it", device.display())),
    }
    Ok(Switched { _port: port })
}

fn help(error: &io::Error) -> &'static str {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        // What drivers say that have no such thing.
        Some(Errno::NOTTY | Errno::INVAL) => {
            "; this driver cannot switch: remove `rs485` where the adapter does it by itself"
        }
        Some(Errno::WOULDBLOCK | Errno::BUSY) => "; another program has it open",
        Some(Errno::ACCESS) => "; `forebay serial list` says who may open it",
        _ => "",
    }
}

fn open(device: &Path) -> io::Result<SerialPort> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let port = rustix::fs::open(device, flags, Mode::empty())?;
    // Whoever has the port open for itself must not find it changed. Not held: the opening for good takes it again.
    flock(&port, FlockOperation::NonBlockingLockExclusive)?;
    flock(&port, FlockOperation::Unlock)?;
    Ok(SerialPort::from(port))
}

fn config(wanted: Rs485) -> Rs485Config {
    let mut config = Rs485Config::new();
    config.set_invert_rts(!wanted.rts_on_send);
    config.set_delay_before_send(wanted.delay_before_send);
    config.set_delay_after_send(wanted.delay_after_send);
    config.set_full_duplex(wanted.receive_while_sending);
    config.set_bus_termination(wanted.termination);
    config
}

fn tell_difference(device: &Path, wanted: Rs485, found: &Rs485Config) {
    let found = Rs485 {
        rts_on_send: !found.get_invert_rts(),
        delay_before_send: found.get_delay_before_send(),
        delay_after_send: found.get_delay_after_send(),
        receive_while_sending: found.get_full_duplex(),
        termination: found.get_bus_termination(),
    };
    if found != wanted {
        tracing::warn!(device = %device.display(), ?wanted, ?found, "the driver switches RS-485 otherwise than asked");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::simulate::pty::Pty;

    fn wanted() -> Rs485 {
        Rs485 {
            rts_on_send: false,
            delay_before_send: Duration::from_millis(1),
            delay_after_send: Duration::from_millis(2),
            receive_while_sending: true,
            termination: false,
        }
    }

    #[tokio::test]
    async fn a_driver_that_cannot_is_told_with_the_way_out() {
        let pty = Pty::open().expect("a pseudo terminal");
        let refused = switch(pty.port(), wanted()).err().expect("a pseudo terminal has no transceiver");
        assert!(refused.starts_with(&format!("switch {} to RS-485: ", pty.port().display())), "{refused}");
        assert!(refused.contains("this driver cannot switch: remove `rs485`"), "{refused}");
        let held = rustix::fs::open(pty.port(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("it is there");
        flock(&held, FlockOperation::NonBlockingLockExclusive).expect("nobody else has it");
        let taken = switch(pty.port(), wanted()).err().expect("it is left alone");
        assert!(taken.ends_with("; another program has it open"), "{taken}");
        let missing = switch(Path::new("/dev/does-not-exist"), wanted()).err().expect("there is none");
        assert!(missing.contains("No such file") && !missing.contains("remove"), "{missing}");
    }

    #[test]
    fn each_setting_reaches_the_driver() {
        let config = config(wanted());
        assert!(config.get_invert_rts() && config.get_full_duplex() && !config.get_bus_termination());
        let delays = (config.get_delay_before_send(), config.get_delay_after_send());
        assert_eq!(delays, (Duration::from_millis(1), Duration::from_millis(2)));
    }
}
