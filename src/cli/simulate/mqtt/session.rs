//! What belongs to one connection of a device: the stream and its buffers.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::time::{Sleep, timeout};

use super::wire::{Incoming, WireError};
use super::{Broker, Duplex};

/// A broker forgets us after one and a half of these (MQTT-3.1.2-24); we ask for a sign of life after half of one.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// One read takes this much: some thousand acknowledgements.
const IN_BYTES: usize = 4 * 1024;
/// How long a broker may take to close after our DISCONNECT before we do.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection is no longer driven.
pub(super) enum End {
    /// All is sent and acknowledged.
    Finished,
    /// The feed said so.
    Died(Duration),
    Lost(String),
    /// The same would happen again.
    Lasting(String),
    /// The time for the last acknowledgements is over, or we were told to stop while connecting.
    Stopped,
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        Self::Lost(error.to_string())
    }
}

/// What belongs to one connection.
pub(super) struct Session {
    pub(super) stream: Box<dyn Duplex>,
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
    pub(super) unflushed: bool,
    pub(super) packet_bytes_max: Option<u32>,
    /// Whether the publisher waits for all output to be written.
    pub(super) wants_room: bool,
    /// When the broker last said anything.
    pub(super) heard_at: Duration,
    /// When we last wrote anything.
    pub(super) spoke_at: Duration,
}

impl Session {
    pub(super) async fn open(broker: &Broker) -> Result<Self, End> {
        Ok(Self {
            stream: broker.open().await?,
            input: BytesMut::new(),
            output: BytesMut::new(),
            unflushed: false,
            packet_bytes_max: None,
            wants_room: false,
            heard_at: Duration::ZERO,
            spoke_at: Duration::ZERO,
        })
    }

    /// Writes the CONNECT that waits in the output, and waits for one packet.
    pub(super) async fn first_answer(&mut self, broker: &Broker) -> Result<Incoming, End> {
        self.stream.write_all_buf(&mut self.output).await?;
        self.stream.flush().await?;
        loop {
            if let Some(incoming) = broker.version.read(&mut self.input)? {
                return Ok(incoming);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(End::Lost("the broker closed without a CONNACK".into()));
            }
        }
    }

    /// DISCONNECT, and wait for the broker's close: it reads everything before.
    pub(super) async fn close(mut self, broker: &Broker) {
        let close = async {
            broker.version.disconnect(&mut self.output)?;
            self.stream.write_all_buf(&mut self.output).await?;
            self.stream.shutdown().await?;
            while self.stream.read_buf(&mut self.input).await? > 0 {
                self.input.clear();
            }
            Ok::<(), End>(())
        };
        let _ = timeout(CLOSE_TIMEOUT, close).await;
    }

    /// Writes what waits, reads what has come. Ready when there is something to do, or the sleep is over. Every poll
    /// either moves bytes between socket and buffers or leaves both as they were: it may be dropped at any time.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, sleep: Pin<&mut Sleep>) -> Poll<std::io::Result<()>> {
        let written = self.poll_write(cx)?;
        let read = self.poll_read(cx)?;
        let something = read || (written && self.wants_room) || sleep.poll(cx).is_ready();
        if something { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Whether this wrote the last of the output.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> std::io::Result<bool> {
        let had = !self.output.is_empty();
        while !self.output.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.output)? {
                Poll::Ready(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => self.output.advance(written),
                Poll::Pending => return Ok(false),
            }
            self.unflushed = true;
        }
        // TLS may hold back what it has taken.
        if self.unflushed {
            self.unflushed = Pin::new(&mut self.stream).poll_flush(cx)?.is_pending();
        }
        Ok(had)
    }

    /// Whether anything has come.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> std::io::Result<bool> {
        self.input.reserve(IN_BYTES);
        let read = pin!(self.stream.read_buf(&mut self.input));
        match read.poll(cx)? {
            Poll::Ready(0) => Err(std::io::Error::other("the broker closed the connection")),
            Poll::Ready(_) => Ok(true),
            Poll::Pending => Ok(false),
        }
    }

    /// Asks for a sign of life when nothing was written for a while. Answers when to look again.
    pub(super) fn keep_alive(&mut self, broker: &Broker, now: Duration) -> Result<Duration, End> {
        if now > self.heard_at + KEEP_ALIVE * 3 / 2 && now > self.spoke_at {
            return Err(End::Lost("no sign of life".into()));
        }
        if !self.output.is_empty() {
            self.spoke_at = now;
        } else if now >= self.spoke_at + KEEP_ALIVE / 2 {
            broker.version.ping(&mut self.output)?;
            self.spoke_at = now;
        }
        Ok(self.spoke_at + KEEP_ALIVE / 2)
    }
}
