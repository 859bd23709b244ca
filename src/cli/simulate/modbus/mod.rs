//! `forebay simulate modbus`: devices on a line or behind a TCP port, without hardware.

pub mod slave;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::pty::Pty;
use super::report::say;
use crate::config::{self, units};
use slave::{Memory, rtu_answer, rtu_request, tcp_answer, tcp_request};

/// Clients at a time: a person who tries things has few.
const CLIENTS_MAX: usize = 32;
/// What is heard without being a request is given up.
const HEARD_MAX: usize = 1024;

/// Plays Modbus devices: on a pseudo terminal (RTU), or behind a TCP port.
#[derive(Args)]
#[command(group(clap::ArgGroup::new("way").args(["link", "tcp"]).required(true)))]
pub struct ModbusArgs {
    /// A serial line: make a pseudo terminal and give its port this name
    #[arg(long, value_name = "PATH")]
    link: Option<PathBuf>,
    /// Modbus TCP: listen here
    #[arg(long, value_name = "ADDRESS:PORT")]
    tcp: Option<std::net::SocketAddr>,
    /// A device; any other one does not answer
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    unit: Vec<u8>,
    /// What the devices are: a ready-made map, such as sdm630
    #[arg(long, conflicts_with = "map_file")]
    map: Option<String>,
    /// What the devices are: a register map of your own. Without either each register holds its own address
    #[arg(long, value_name = "PATH")]
    map_file: Option<String>,
    /// How long a device takes to answer
    #[arg(long, default_value = "5ms", value_parser = units::duration)]
    delay: Duration,
}

struct Devices {
    units: Vec<u8>,
    memory: Memory,
    delay: Duration,
    started: Instant,
}

/// Runs until a signal comes.
pub fn run(args: &ModbusArgs) -> ExitCode {
    let map = args.map.as_deref().map(|name| (name, false)).or(args.map_file.as_deref().map(|path| (path, true)));
    let memory = match map.map(|(name, is_file)| config::load_map(name, is_file)) {
        None => Memory::Plain,
        Some(Ok((registers, _))) => Memory::Map(registers),
        Some(Err(problems)) => {
            say(&problems.to_string());
            return ExitCode::from(64);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(play(args, memory))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed to play Modbus devices: {error}"));
            ExitCode::from(71)
        }
    }
}

async fn play(args: &ModbusArgs, memory: Memory) -> std::io::Result<()> {
    let devices = Devices { units: args.unit.clone(), memory, delay: args.delay, started: Instant::now() };
    let devices = Arc::new(devices);
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        served = serve(args, &devices) => served?,
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}

async fn serve(args: &ModbusArgs, devices: &Arc<Devices>) -> std::io::Result<()> {
    if let Some(address) = args.tcp {
        let listener = TcpListener::bind(address).await?;
        say(&format!("Modbus devices answer on {}", listener.local_addr()?));
        return serve_tcp(&listener, devices).await;
    }
    let mut pty = Pty::open()?;
    if let Some(link) = &args.link {
        pty.link(link)?;
    }
    let name = args.link.as_deref().unwrap_or(pty.port()).display().to_string();
    say(&format!("Modbus devices answer on {name}"));
    serve_line(&pty, devices).await
}

async fn serve_tcp(listener: &TcpListener, devices: &Arc<Devices>) -> std::io::Result<()> {
    let mut clients = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        while clients.try_join_next().is_some() {}
        if clients.len() < CLIENTS_MAX {
            clients.spawn(serve_client(stream, Arc::clone(devices)));
        }
    }
}

/// A client that breaks off is no news.
async fn serve_client(mut stream: TcpStream, devices: Arc<Devices>) {
    let (mut heard, mut bytes) = (Vec::new(), [0; 256]);
    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
        heard.extend_from_slice(&bytes[..count]);
        while let Some((head, unit, request)) = tcp_request(&mut heard) {
            let Some(answer) = devices.answer(unit, &request).await else { continue };
            if stream.write_all(&tcp_answer(head, unit, &answer)).await.is_err() {
                return;
            }
        }
        if heard.len() > HEARD_MAX {
            return;
        }
    }
}

async fn serve_line(pty: &Pty, devices: &Devices) -> std::io::Result<()> {
    let (mut heard, mut bytes) = (Vec::new(), [0; 256]);
    loop {
        let count = pty.receive(&mut bytes).await;
        heard.extend_from_slice(&bytes[..count]);
        while let Some((unit, request)) = rtu_request(&mut heard) {
            if let Some(answer) = devices.answer(unit, &request).await {
                pty.send(&rtu_answer(unit, &answer)).await?;
            }
        }
        let kept = heard.len().saturating_sub(HEARD_MAX);
        heard.drain(..kept);
    }
}

impl Devices {
    /// `None`: there is no such device.
    async fn answer(&self, unit: u8, request: &[u8]) -> Option<Vec<u8>> {
        if !self.units.contains(&unit) {
            return None;
        }
        sleep(self.delay).await;
        Some(self.memory.at(unit, self.started.elapsed()).answer(request))
    }
}
