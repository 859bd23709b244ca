//! `forebay serial sniff`: a line as it is, frame by frame.

use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep_until};

use crate::cli::ask::print_line;
use crate::cli::exit;
use crate::config::{self, FlowControl, Parity, PortSettings, SerialSource};
use crate::intake::serial::decode::Decoder;
use crate::intake::serial::device::PortName;
use crate::intake::serial::frame::{Deframer, Found, FrameSpec, Framing, LineEnd};
use crate::intake::serial::port;

#[derive(Debug, clap::Args)]
pub struct SniffArgs {
    /// A source of the configuration, or a port such as /dev/ttyUSB0
    port: String,
    /// Bits a second; only for a port
    #[arg(long, default_value_t = 9_600)]
    baud: u32,
    /// Parity: none, even or odd; only for a port
    #[arg(long, default_value = "none", value_parser = ["none", "even", "odd"])]
    parity: String,
    /// Cut at this silence instead of at line ends, in milliseconds; only for a port
    #[arg(long, value_name = "MS")]
    gap: Option<u64>,
    /// Stop after so many frames
    #[arg(long)]
    count: Option<u64>,
}

/// What to open and how to cut it.
struct Plan {
    port: PortName,
    settings: PortSettings,
    frame: FrameSpec,
    decoder: Decoder,
}

pub fn run(config: &Path, args: &SniffArgs) -> u8 {
    let plan = match plan(config, args) {
        Ok(plan) => plan,
        Err(problem) => {
            eprintln!("failed to {problem}");
            return exit::USAGE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(|error| error.to_string()).and_then(|r| r.block_on(sniff(plan, args.count))) {
        Ok(()) => exit::OK,
        Err(error) => {
            eprintln!("failed to {error}");
            exit::UNAVAILABLE
        }
    }
}

fn plan(config: &Path, args: &SniffArgs) -> Result<Plan, String> {
    if args.port.starts_with('/') {
        return Ok(of_port(args));
    }
    let loaded = config::load(config).map_err(|problems| format!("load the configuration:\n{problems}"))?;
    let found = loaded.config.serial_sources.into_iter().find(|source| source.name == args.port);
    let SerialSource { port, settings, frame, decoder, .. } =
        found.ok_or_else(|| format!("find the serial source {:?} in the configuration", args.port))?;
    Ok(Plan { port, settings, frame, decoder })
}

fn of_port(args: &SniffArgs) -> Plan {
    let framing = match args.gap {
        Some(gap) => Framing::Idle(Duration::from_millis(gap.max(1))),
        None => Framing::Lines(LineEnd::Any),
    };
    let parity = match args.parity.as_str() {
        "even" => Parity::Even,
        "odd" => Parity::Odd,
        _ => Parity::None,
    };
    Plan {
        port: PortName::Path(args.port.as_str().into()),
        settings: PortSettings {
            baud: args.baud,
            data_bits: 8,
            parity,
            stop_bits: 1,
            flow_control: FlowControl::None,
            exclusive: true,
            dtr: None,
            rs485: None,
        },
        frame: FrameSpec { framing, checksum: None, max: 4096, timeout: Some(Duration::from_secs(1)) },
        decoder: Decoder::Raw,
    }
}

/// Reads until the count is reached, the port is gone, or the user has seen enough.
async fn sniff(plan: Plan, count: Option<u64>) -> Result<(), String> {
    let mut port = port::open(&plan.port, plan.settings).await?;
    eprintln!("{} is open; end with Ctrl-C", port.device.display());
    let (mut deframer, started) = (Deframer::new(plan.frame), Instant::now());
    let (mut bytes, mut heard_at, mut seen) = ([0; 1024], started, 0);
    while count.is_none_or(|count| seen < count) {
        let patience = deframer.patience();
        let mut show = |found: Found<'_>| {
            seen += u64::from(matches!(found, Found::Frame(_)));
            shown(&found, &plan.decoder, started.elapsed()).iter().for_each(|line| print_line(line));
        };
        tokio::select! {
            read = port.stream.read(&mut bytes) => match read {
                Ok(read) if read > 0 => {
                    heard_at = Instant::now();
                    deframer.feed(&bytes[..read], &mut show);
                }
                Ok(_) => return Err("read on: the port has hung up".to_owned()),
                Err(error) => return Err(format!("read on: {error}")),
            },
            () = sleep_until(heard_at + patience.unwrap_or_default()), if patience.is_some() => {
                heard_at = Instant::now();
                deframer.idle(&mut show);
            }
        }
    }
    Ok(())
}

/// One frame: when, how long, as text, as bytes, and what the decoder makes of it.
fn shown(found: &Found<'_>, decoder: &Decoder, since: Duration) -> Vec<String> {
    let at = format!("{:>10.3}s", since.as_secs_f64());
    match found {
        Found::Noise(bytes) => vec![format!("{at}  noise: {bytes} bytes")],
        Found::Bad(why) => vec![format!("{at}  broken: {why}")],
        Found::Frame(frame) => {
            let mut lines = vec![format!("{at}  {:>4} bytes  {}", frame.len(), text(frame))];
            lines.extend(frame.chunks(16).map(|row| format!("             {}", hex(row))));
            if !matches!(decoder, Decoder::Raw) {
                let mut json = Vec::new();
                let decoded = decoder.decode(frame).map(|decoded| decoded.write(&mut json));
                let said = decoded.map_or_else(|e| format!("cannot be decoded: {e}"), |()| text(&json));
                lines.push(format!("             {said}"));
            }
            lines
        }
    }
}

/// What a terminal may show; everything else as a dot.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() || c == '\u{fffd}' { '.' } else { c }).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_shown_as_text_and_bytes_and_never_as_an_escape() {
        let lines = shown(&Found::Frame(b"T=1\x1b[2J"), &Decoder::Raw, Duration::from_millis(1_500));
        assert_eq!(lines, ["     1.500s     7 bytes  T=1.[2J", "             54 3d 31 1b 5b 32 4a"]);
        let decoder = Decoder::Text(crate::intake::serial::decode::Encoding::Utf8);
        let lines = shown(&Found::Frame(b"\xff"), &decoder, Duration::ZERO);
        assert_eq!(lines[2], "             cannot be decoded: decode the frame: it is not UTF-8");
    }
}
