//! `forebay modbus read`: each value once, with what lies in its registers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::ask::print_line;
use crate::cli::exit;
use crate::config::{self, FlowControl, Link, ModbusDevice, ModbusGroup, Parity, PortSettings, units};
use crate::intake::modbus::answer::{Framing, exception};
use crate::intake::modbus::plan::{Limits, Request, plan, split};
use crate::intake::modbus::register::{Cells, Kind, Orders, Register, Table};
use crate::intake::modbus::wire::{self, Fault, Wire};
use crate::intake::serial::decode::{Scaling, packed};
use crate::intake::serial::device::PortName;
use crate::intake::serial::frame::ByteOrder;

#[derive(Debug, clap::Args)]
pub struct ReadArgs {
    /// A source of the configuration; without it the options below say what to read
    source: Option<String>,
    /// Only this device of the source
    #[arg(long, requires = "source")]
    device: Option<String>,
    /// A device or gateway that is reached by TCP
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["source", "port"])]
    tcp: Option<String>,
    /// RTU frames over that TCP connection, as serial device servers do
    #[arg(long, requires = "tcp")]
    rtu_over_tcp: bool,
    /// A serial port, such as /dev/ttyUSB0
    #[arg(long, value_name = "PATH", conflicts_with = "source")]
    port: Option<PathBuf>,
    /// Bits a second of the port
    #[arg(long, default_value_t = 9_600)]
    baud: u32,
    /// Parity of the port: none, even or odd
    #[arg(long, default_value = "none", value_parser = ["none", "even", "odd"])]
    parity: String,
    /// Stop bits of the port
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    stop_bits: u8,
    /// The device's number on its line
    #[arg(long, default_value_t = 1)]
    unit: u8,
    /// What the device is: a ready-made map, see `forebay modbus maps`
    #[arg(long, conflicts_with_all = ["source", "map_file"])]
    map: Option<String>,
    /// What the device is: a register map of your own
    #[arg(long, value_name = "PATH", conflicts_with = "source")]
    map_file: Option<String>,
    /// Without a map: the table, as coil, discrete, input or holding
    #[arg(long, default_value = "holding", value_parser = read_table)]
    table: Table,
    /// Without a map: the first address, from 0 (40001 of a manual is --table holding --address 0)
    #[arg(long, default_value_t = 0)]
    address: u16,
    /// Without a map: how many values
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    count: u16,
    /// Without a map: u16, i16, u32, i32, u64, i64, f32 or f64
    #[arg(long, default_value = "u16", value_parser = read_kind)]
    kind: packed::Kind,
    /// Without a map: the register with the lowest part comes first
    #[arg(long)]
    words_little: bool,
    /// How long to wait for an answer
    #[arg(long, default_value = "1s", value_parser = units::duration)]
    timeout: Duration,
    /// Print one JSON document for scripts
    #[arg(long)]
    json: bool,
}

/// What to read, and over which line.
struct Plan {
    link: Link,
    pause: Duration,
    devices: Vec<ModbusDevice>,
}

/// One value, or why there is none.
struct Row<'p> {
    device: &'p str,
    register: &'p Register,
    raw: String,
    value: Result<Value, String>,
}

pub fn maps() -> u8 {
    for name in config::map_names() {
        let values = config::load_map(name, false).map_or(0, |(registers, _)| registers.len());
        print_line(&format!("{name}  {values} values"));
    }
    exit::OK
}

pub fn run(config: &Path, args: &ReadArgs) -> u8 {
    let plan = match plan_of(config, args) {
        Ok(plan) => plan,
        Err(problem) => {
            eprintln!("failed to {problem}");
            return exit::USAGE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let rows = runtime.map_err(|e| e.to_string()).and_then(|r| r.block_on(read(&plan, args.timeout)));
    match rows {
        Ok(rows) => {
            print(&rows, args.json);
            if rows.iter().all(|row| row.value.is_ok()) { exit::OK } else { exit::DATAERR }
        }
        Err(error) => {
            eprintln!("failed to {error}");
            exit::UNAVAILABLE
        }
    }
}

fn plan_of(config: &Path, args: &ReadArgs) -> Result<Plan, String> {
    let Some(name) = &args.source else { return typed(args) };
    let loaded = config::load(config).map_err(|problems| format!("load the configuration:\n{problems}"))?;
    let found = loaded.config.modbus_sources.into_iter().find(|source| source.name == *name);
    let mut source = found.ok_or_else(|| format!("find the Modbus source {name:?} in the configuration"))?;
    source.devices.retain(|device| args.device.as_ref().is_none_or(|name| device.name == *name));
    if source.devices.is_empty() {
        return Err(format!("find that device in the source {name:?}"));
    }
    Ok(Plan { link: source.link, pause: source.pause, devices: source.devices })
}

fn typed(args: &ReadArgs) -> Result<Plan, String> {
    let link = match (&args.tcp, &args.port) {
        (Some(tcp), _) => {
            let parsed = config::modbus_address(tcp).ok_or_else(|| format!("read {tcp:?} as host:port"))?;
            let framing = if args.rtu_over_tcp { Framing::Rtu } else { Framing::Tcp };
            Link::Tcp { host: parsed.0, port: parsed.1, framing }
        }
        (None, Some(port)) => Link::Serial { port: PortName::Path(port.clone()), settings: settings(args) },
        (None, None) => return Err("choose what to read: name a source, or give --tcp or --port".to_owned()),
    };
    let map = args.map.as_deref().map(|name| (name, false)).or(args.map_file.as_deref().map(|path| (path, true)));
    let (registers, limits) = match map {
        Some((name, is_file)) => {
            config::load_map(name, is_file).map_err(|problems| format!("read the register map:\n{problems}"))?
        }
        None => (plain(args)?, Limits { registers: 125, bits: 2_000, gap: 0 }),
    };
    let group = ModbusGroup { name: None, interval: Duration::from_secs(1), registers };
    let device = ModbusDevice { name: format!("unit {}", args.unit), unit: args.unit, limits, groups: vec![group] };
    Ok(Plan { link, pause: Duration::from_millis(5), devices: vec![device] })
}

fn settings(args: &ReadArgs) -> PortSettings {
    PortSettings {
        baud: args.baud,
        data_bits: 8,
        parity: match args.parity.as_str() {
            "even" => Parity::Even,
            "odd" => Parity::Odd,
            _ => Parity::None,
        },
        stop_bits: args.stop_bits,
        flow_control: FlowControl::None,
        exclusive: true,
        dtr: None,
        rs485: None,
    }
}

/// Values one behind the other.
fn plain(args: &ReadArgs) -> Result<Vec<Register>, String> {
    let kind = if args.table.is_bits() { Kind::Bit } else { Kind::Words(args.kind) };
    let words = if args.words_little { ByteOrder::Little } else { ByteOrder::Big };
    let one = |at: u16| {
        let address = at.checked_mul(kind.width()).and_then(|offset| args.address.checked_add(offset));
        let address = address.ok_or("read beyond the last address, 65535")?;
        Ok(Register {
            name: address.to_string(),
            table: args.table,
            address,
            kind,
            orders: Orders { bytes: ByteOrder::Big, words },
            unit: None,
            scaling: Scaling::default(),
            invalid: None,
        })
    };
    (0..args.count).map(one).collect()
}

async fn read(plan: &Plan, timeout: Duration) -> Result<Vec<Row<'_>>, String> {
    let (mut wire, at) = wire::open(&plan.link, plan.pause).await?;
    eprintln!("{at} is open");
    let mut rows = Vec::new();
    for device in &plan.devices {
        let registers: Vec<&Register> = device.groups.iter().flat_map(|group| &group.registers).collect();
        match read_device(&mut wire, device, &registers, timeout).await {
            Ok(read) => rows.extend(read),
            // One that is dead does not keep the others from being shown.
            Err(Fault::Timeout { noise }) if plan.devices.len() > 1 => {
                let row =
                    |register| Row { device: &device.name, register, raw: String::new(), value: Err(silence(noise)) };
                rows.extend(registers.into_iter().map(row));
            }
            Err(Fault::Timeout { noise }) => return Err(format!("read {}: {}", device.name, silence(noise))),
            Err(Fault::Gone(why) | Fault::Misfit(why)) => return Err(format!("read {}: {why}", device.name)),
            Err(Fault::Exception(code)) => return Err(format!("read {}: {}", device.name, exception(code))),
        }
    }
    Ok(rows)
}

async fn read_device<'p>(
    wire: &mut Wire,
    device: &'p ModbusDevice,
    registers: &[&'p Register],
    timeout: Duration,
) -> Result<Vec<Row<'p>>, Fault> {
    let wanted = || registers.iter().map(|register| register.request());
    let mut open = plan(wanted(), device.limits);
    open.reverse();
    let mut answers: Vec<(Request, Result<Cells, String>)> = Vec::new();
    while let Some(request) = open.pop() {
        let answer = match wire.ask(device.unit, request, timeout).await {
            Ok(cells) => Ok(cells),
            Err(Fault::Exception(2 | 3)) if split(&request, wanted()).is_some() => {
                open.extend(split(&request, wanted()).into_iter().flatten().rev());
                continue;
            }
            Err(Fault::Exception(code)) => Err(exception(code)),
            Err(Fault::Misfit(why)) => Err(why),
            Err(fault) => return Err(fault),
        };
        answers.push((request, answer));
    }
    Ok(registers.iter().map(|register| row(&device.name, register, &answers)).collect())
}

fn silence(noise: usize) -> String {
    let heard = if noise > 0 { format!(", {noise} bytes that are none") } else { String::new() };
    format!("no answer{heard}")
}

fn row<'p>(device: &'p str, register: &'p Register, answers: &[(Request, Result<Cells, String>)]) -> Row<'p> {
    let found = answers.iter().find(|(request, _)| request.holds(&register.request()));
    let (raw, value) = match found {
        Some((request, Ok(cells))) => {
            (raw(register, request, cells), register.read(cells, request.address).map_err(str::to_owned))
        }
        Some((_, Err(why))) => (String::new(), Err(why.clone())),
        None => (String::new(), Err("it was not asked for".to_owned())),
    };
    Row { device, register, raw, value }
}

/// The registers as they came, in hexadecimal digits.
fn raw(register: &Register, request: &Request, cells: &Cells) -> String {
    let start = usize::from(register.address - request.address);
    let words = match cells {
        Cells::Words(words) => words.get(start..start + usize::from(register.width())).unwrap_or_default(),
        Cells::Bits(_) => return String::new(),
    };
    words.iter().map(|word| format!("{word:04x}")).collect::<Vec<_>>().join(" ")
}

fn print(rows: &[Row<'_>], json: bool) {
    if json {
        let list: Vec<Value> = rows.iter().map(document).collect();
        print_line(&serde_json::to_string_pretty(&list).unwrap_or_default());
        return;
    }
    let mut device = "";
    for row in rows {
        if std::mem::replace(&mut device, row.device) != row.device {
            print_line(row.device);
        }
        let place = format!("{} {}", row.register.table.name(), row.register.address);
        let said = match &row.value {
            Ok(value) => format!("{value} {}", row.register.unit.as_deref().unwrap_or_default()),
            Err(why) => format!("failed: {why}"),
        };
        print_line(format!("  {:<20} {said:<20} {place:<16} {}", row.register.name, row.raw).trim_end());
    }
}

fn document(row: &Row<'_>) -> Value {
    json!({
        "device": row.device,
        "name": row.register.name,
        "table": row.register.table.name(),
        "address": row.register.address,
        "raw": row.raw,
        "value": row.value.as_ref().ok(),
        "unit": row.register.unit,
        "cause": row.value.as_ref().err(),
    })
}

fn read_table(text: &str) -> Result<Table, String> {
    let tables = [Table::Coil, Table::Discrete, Table::Input, Table::Holding];
    let found = tables.into_iter().find(|table| table.name() == text);
    found.ok_or_else(|| "it is coil, discrete, input or holding".to_owned())
}

fn read_kind(text: &str) -> Result<packed::Kind, String> {
    Ok(match text {
        "u16" => packed::Kind::Unsigned(2),
        "i16" => packed::Kind::Signed(2),
        "u32" => packed::Kind::Unsigned(4),
        "i32" => packed::Kind::Signed(4),
        "u64" => packed::Kind::Unsigned(8),
        "i64" => packed::Kind::Signed(8),
        "f32" => packed::Kind::F32,
        "f64" => packed::Kind::F64,
        _ => return Err("it is u16, i16, u32, i32, u64, i64, f32 or f64".to_owned()),
    })
}
