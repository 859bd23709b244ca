//! An open line to Modbus devices. The only seam to the protocol's crate.
//!
//! tokio-modbus writes the requests and reads the answers; between it and the line stands the doorkeeper of `answer.rs`,
//! which hands it the one answer to its request and nothing else. On its own the crate takes whatever comes first for
//! the answer: see docs/decisions/0015-modbus-crate.md.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_modbus::client::{Client as _, Context, rtu, tcp};
use tokio_modbus::slave::SlaveContext as _;
use tokio_modbus::{Response, Slave};

use super::answer::{Answers, Expected, Found, Framing};
use super::plan::Request;
use super::register::{Cells, Table};
use crate::config::Link;
use crate::intake::serial::port;

/// A TCP connection that takes longer to open is tried again.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// A request that cannot be written for so long is stuck.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);
/// After so many requests in a row without a single byte from the peer, a TCP connection is taken for a dead one.
const UNHEARD_MAX: u32 = 3;
/// Requests of either framing, between the crate and the doorkeeper.
const INNER_BYTES: usize = 512;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Why a request brought no values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The device said no.
    Exception(u8),
    /// No answer in time.
    Timeout { noise: usize },
    /// It answered something else.
    Misfit(String),
    /// The line is gone.
    Gone(String),
}

pub struct Wire {
    stream: Box<dyn Stream>,
    framing: Framing,
    /// The crate and our end of what it believes to be the line. Made anew after a request that did not end well.
    client: Option<(Context, DuplexStream)>,
    answers: Answers,
    pause: Duration,
    /// The time that a byte takes on a serial line.
    byte_time: Duration,
    /// Of the last byte written or read.
    used_at: Instant,
    number: u16,
    /// Requests in a row without a byte from the peer.
    unheard: u32,
    /// Where an answer without a number may come late: to which device, to which request, until when.
    doubts: Vec<(u8, Request, Instant)>,
    noise: u64,
}

/// Opens a line.
///
/// # Errors
/// In words for a person, without "failed to".
pub async fn open(link: &Link, pause: Duration) -> Result<(Wire, String), String> {
    match link {
        Link::Serial { port: name, settings } => {
            let opened = port::open(name, *settings).await?;
            opened.clear_input();
            // Start, data, parity and stop bits: 11 at most.
            let byte_time = Duration::from_secs(11) / settings.baud.max(1);
            let device = opened.device.display().to_string();
            Ok((Wire::new(Box::new(opened.stream), Framing::Rtu, pause, byte_time), device))
        }
        Link::Tcp { host, port, framing } => {
            let peer = format!("{host}:{port}");
            let opened = timeout(CONNECT_PATIENCE, TcpStream::connect((host.as_str(), *port))).await;
            let opened = opened.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")));
            let stream = opened.map_err(|error| format!("connect to {peer}: {error}"))?;
            // A request is one small packet that nothing follows until it is answered.
            let _ = stream.set_nodelay(true);
            Ok((Wire::new(Box::new(stream), *framing, pause, Duration::ZERO), peer))
        }
    }
}

impl Wire {
    fn new(stream: Box<dyn Stream>, framing: Framing, pause: Duration, byte_time: Duration) -> Self {
        Wire {
            stream,
            framing,
            client: None,
            answers: Answers::new(framing),
            pause,
            byte_time,
            used_at: Instant::now(),
            number: 0,
            unheard: 0,
            doubts: Vec::new(),
            noise: 0,
        }
    }

    /// Asks one device, and waits for its answer as long as `patience` and the answer's own length allow.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn ask(&mut self, unit: u8, request: Request, patience: Duration) -> Result<Cells, Fault> {
        self.settle(unit, &request).await?;
        sleep_until(self.used_at + self.pause).await;
        self.drain().await?;
        self.number = self.number.wrapping_add(1);
        let expected = expected(unit, &request, self.number);
        let (mut context, mut inner) = self.client.take().unwrap_or_else(|| client(self.framing));
        context.set_slave(Slave(unit));
        let asked_at = Instant::now();
        let call = async { Ok(context.call(call_of(&request)).await) };
        let (answered, ()) = match tokio::try_join!(call, self.relay(&mut inner, &expected, patience)) {
            Ok(both) => both,
            Err(fault) => {
                self.doubt(unit, request, asked_at + 2 * patience);
                return Err(fault);
            }
        };
        // What `settle` has waited for is past, and counts for nothing any more.
        let open = |(of, asked, until): &(u8, Request, Instant)| *of == unit && *asked == request && *until > asked_at;
        if self.doubts.iter().any(open) {
            // This may have been the late answer to the first try: the one to the second is still to come.
            self.doubt(unit, request, asked_at + 2 * patience);
        }
        // What the crate does not understand may have left something behind in it.
        let answered = answered.map_err(|error| Fault::Misfit(error.to_string()))?;
        self.client = Some((context, inner));
        let response = answered.map_err(|exception| Fault::Exception(exception.into()))?;
        cells(response, &request).ok_or_else(|| Fault::Misfit("the answer does not fit the request".to_owned()))
    }

    /// Reads what nobody asked for. Returns when the line is gone. Cancel safe.
    pub async fn listen(&mut self) -> String {
        let mut bytes = [0; 256];
        loop {
            match self.stream.read(&mut bytes).await {
                Ok(0) => return hung_up(),
                Ok(count) => {
                    self.used_at = Instant::now();
                    self.unheard = 0;
                    if let Found::Garbage(why) = self.answers.ignore(&bytes[..count]) {
                        return why.to_owned();
                    }
                }
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Nothing has come from the peer for so long that the connection is a dead one. A serial line has no such thing.
    pub fn is_dead(&self) -> bool {
        self.byte_time.is_zero() && self.unheard >= UNHEARD_MAX
    }

    /// Bytes that answered nothing, since this was last asked.
    pub fn noise(&mut self) -> u64 {
        std::mem::take(&mut self.noise) + self.answers.noise() as u64
    }

    /// An answer without a number can come late. Until that is past, its device is asked nothing but the same again.
    async fn settle(&mut self, unit: u8, request: &Request) -> Result<(), Fault> {
        let now = Instant::now();
        self.doubts.retain(|(_, _, until)| *until > now);
        let doubted = |(of, asked, _): &&(u8, Request, Instant)| *of == unit && asked != request;
        let Some(until) = self.doubts.iter().filter(doubted).map(|(_, _, until)| *until).max() else { return Ok(()) };
        match timeout_at(until, self.listen()).await {
            Ok(reason) => Err(Fault::Gone(reason)),
            Err(_) => Ok(()),
        }
    }

    /// What lies there before a request is sent does not answer it.
    async fn drain(&mut self) -> Result<(), Fault> {
        match timeout(Duration::ZERO, self.listen()).await {
            Ok(reason) => Err(Fault::Gone(reason)),
            Err(_) => {
                self.answers.ignore(&[]);
                Ok(())
            }
        }
    }

    /// An answer to `request` may come until then.
    fn doubt(&mut self, unit: u8, request: Request, until: Instant) {
        if self.framing == Framing::Rtu {
            self.doubts.push((unit, request, until));
        }
    }

    /// Takes the crate's request to the line, and the answer back to the crate.
    async fn relay(&mut self, inner: &mut DuplexStream, expected: &Expected, patience: Duration) -> Result<(), Fault> {
        let mut request = [0; 12];
        let request = if self.framing == Framing::Tcp { &mut request[..] } else { &mut request[..8] };
        inner.read_exact(request).await.map_err(|error| Fault::Misfit(error.to_string()))?;
        // The crate numbers from 0 each time that it is made: ours never come twice on a connection.
        let theirs = [request[0], request[1]];
        if self.framing == Framing::Tcp {
            request[..2].copy_from_slice(&expected.number.to_be_bytes());
        }
        self.write(request).await?;
        let mut answer = self.answer(expected, patience).await?;
        if self.framing == Framing::Tcp {
            answer[..2].copy_from_slice(&theirs);
        }
        inner.write_all(&answer).await.map_err(|error| Fault::Misfit(error.to_string()))
    }

    async fn write(&mut self, request: &[u8]) -> Result<(), Fault> {
        let written = async {
            self.stream.write_all(request).await?;
            self.stream.flush().await
        };
        let written = timeout(WRITE_PATIENCE, written).await;
        self.used_at = Instant::now();
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Fault::Gone(error.to_string())),
            Err(_) => Err(Fault::Gone("the request could not be written".to_owned())),
        }
    }

    async fn answer(&mut self, expected: &Expected, patience: Duration) -> Result<Vec<u8>, Fault> {
        // The request's own way over the line, and the answer's.
        let bytes = 8 + 5 + u32::from(expected.bytes);
        let until = Instant::now() + patience + self.byte_time * bytes;
        let mut bytes = [0; 256];
        let mut heard = 0;
        self.unheard = self.unheard.saturating_add(1);
        loop {
            let read = match timeout_at(until, self.stream.read(&mut bytes)).await {
                Err(_) => return Err(Fault::Timeout { noise: heard }),
                Ok(Err(error)) => return Err(Fault::Gone(error.to_string())),
                Ok(Ok(0)) => return Err(Fault::Gone(hung_up())),
                Ok(Ok(count)) => count,
            };
            self.used_at = Instant::now();
            self.unheard = 0;
            heard += read;
            match self.answers.take(&bytes[..read], expected) {
                Found::Nothing => {}
                Found::Answer(frame) => return Ok(frame),
                Found::Misfit(why) => return Err(Fault::Misfit(why.to_owned())),
                Found::Garbage(why) => return Err(Fault::Gone(why.to_owned())),
            }
        }
    }
}

fn hung_up() -> String {
    "the line has hung up".to_owned()
}

fn client(framing: Framing) -> (Context, DuplexStream) {
    let (theirs, ours) = tokio::io::duplex(INNER_BYTES);
    match framing {
        Framing::Rtu => (rtu::attach(theirs), ours),
        Framing::Tcp => (tcp::attach(theirs), ours),
    }
}

fn expected(unit: u8, request: &Request, number: u16) -> Expected {
    let bytes = if request.table.is_bits() { request.count.div_ceil(8) } else { request.count * 2 };
    Expected { unit, function: request.table.function(), bytes: u8::try_from(bytes).unwrap_or(u8::MAX), number }
}

fn call_of(request: &Request) -> tokio_modbus::Request<'static> {
    let Request { table, address, count } = *request;
    match table {
        Table::Coil => tokio_modbus::Request::ReadCoils(address, count),
        Table::Discrete => tokio_modbus::Request::ReadDiscreteInputs(address, count),
        Table::Input => tokio_modbus::Request::ReadInputRegisters(address, count),
        Table::Holding => tokio_modbus::Request::ReadHoldingRegisters(address, count),
    }
}

fn cells(response: Response, request: &Request) -> Option<Cells> {
    let count = usize::from(request.count);
    match response {
        // The last byte is filled up with zeros.
        Response::ReadCoils(mut bits) | Response::ReadDiscreteInputs(mut bits) if bits.len() >= count => {
            bits.truncate(count);
            Some(Cells::Bits(bits))
        }
        Response::ReadInputRegisters(words) | Response::ReadHoldingRegisters(words) if words.len() == count => {
            Some(Cells::Words(words))
        }
        _ => None,
    }
}
