//! One connection's task: moves bytes between its stream and its [`Machine`].
//!
//! It holds no buffer while nothing happens: reads go through one buffer of the whole listener, and what is left of them
//! is copied. When the stream is closed, the task stays until everything that it has handed over is durable: QoS 2
//! messages are marked in their session, and the gate gets its room back.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::access::{Access, Login};
use super::exchange::Exchange;
use super::machine::{Flow, Machine};
use super::packet::Connect;
use super::transport::{Admitted, Peer, Stream};

/// Size of the one buffer that all connections read through.
const READ: usize = 64 * 1024;
/// For the last bytes and for the peer's close: without it, what the peer had still sent would make the system reset the
/// connection, and our DISCONNECT with it.
const GOODBYE: Duration = Duration::from_millis(500);
const CLOSED_BY_PEER: &str = "the device closed the connection";
const NEVER: Duration = Duration::from_secs(86_400);

/// What all connections of a listener share.
pub(super) struct Shared {
    exchange: Mutex<Exchange>,
    access: Access,
    buffer: Mutex<Box<[u8]>>,
    zero: Instant,
    random: Arc<dyn Fn() -> u64 + Send + Sync>,
    stop_timeout: Duration,
    last: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        exchange: Exchange,
        access: Access,
        random: Arc<dyn Fn() -> u64 + Send + Sync>,
        stop_timeout: Duration,
    ) -> Self {
        Shared {
            exchange: Mutex::new(exchange),
            access,
            buffer: Mutex::new(vec![0; READ].into()),
            zero: Instant::now(),
            random,
            stop_timeout,
            last: AtomicU64::new(0),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().expect("no holder of this lock panics")
    }

    /// Since the listener's start.
    pub(super) fn now(&self) -> Duration {
        self.zero.elapsed()
    }

    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.zero + at
    }
}

/// Serves one connection to its end. `alive` is held as long as it lasts.
pub(super) async fn serve(
    shared: Arc<Shared>,
    mut stream: Stream,
    peer: Peer,
    admitted: Admitted,
    mut stop: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
) {
    let number = shared.last.fetch_add(1, Ordering::Relaxed) + 1;
    let deadline = admitted.deadline.saturating_duration_since(shared.zero);
    let mut machine = Box::new(Machine::new(number, &shared.lock(), deadline, shared.now()));
    let by_peer = run(&shared, &mut machine, &mut stream, &peer, &mut stop).await;
    machine.end(&mut shared.lock(), shared.now());
    tracing::debug!(client = machine.client(), endpoint = &*peer.endpoint, reason = machine.why_closed(), "closed");
    if !by_peer {
        // However it ends: the peer sends again what we have not answered.
        let _ = timeout(GOODBYE, goodbye(&mut stream, machine.out())).await;
    }
    drop(stream);
    drop(admitted);
    linger(&shared, &mut machine, &mut stop).await;
    drop(alive);
}

/// Until the connection is to be closed. Whether the peer has done so.
async fn run(
    shared: &Shared,
    machine: &mut Machine,
    stream: &mut Stream,
    peer: &Peer,
    stop: &mut watch::Receiver<bool>,
) -> bool {
    let queue = machine.queue();
    let timer = sleep_until(shared.zero + NEVER);
    tokio::pin!(timer);
    let mut line = Line { unflushed: false };
    let mut announced = false;
    let mut stop_at: Option<Instant> = None;
    loop {
        let (flow, room, due) = {
            let mut exchange = shared.lock();
            if stop_at.is_some_and(|at| Instant::now() >= at) {
                machine.stop_now(&mut exchange);
            }
            let flow = machine.turn(&mut exchange, shared.now());
            if !announced && let Some(event) = machine.presence(&mut exchange, peer) {
                announced = true;
                exchange.tell(event);
            }
            (flow, machine.room(&exchange), machine.due())
        };
        match flow {
            Flow::Close => return false,
            Flow::Login(connect) => {
                login(shared, machine, connect, peer, stop).await;
                continue;
            }
            Flow::More => {
                if line.write_some(stream, machine, shared).await.is_err() {
                    machine.broken(&mut shared.lock(), "the connection broke");
                    return true;
                }
                tokio::task::yield_now().await;
                continue;
            }
            Flow::Wait if machine.is_done() => {
                machine.broken(&mut shared.lock(), CLOSED_BY_PEER);
                return true;
            }
            Flow::Wait => {}
        }
        let due = due.map(|at| shared.instant(at)).into_iter().chain(stop_at).min();
        timer.as_mut().reset(due.unwrap_or_else(|| Instant::now() + NEVER));
        tokio::select! {
            done = poll_fn(|cx| line.poll(cx, stream, machine, room, shared)) => match done {
                Ok(true) => {}
                Ok(false) if machine.hung_up() => {}
                Ok(false) => {
                    machine.broken(&mut shared.lock(), CLOSED_BY_PEER);
                    return true;
                }
                Err(_) => {
                    machine.broken(&mut shared.lock(), "the connection broke");
                    return true;
                }
            },
            () = queue.wait() => {}
            () = &mut timer => {}
            () = asked_to_stop(stop), if stop_at.is_none() => {
                machine.stop();
                stop_at = Some(Instant::now() + shared.stop_timeout);
            }
        }
    }
}

async fn login(
    shared: &Shared,
    machine: &mut Machine,
    connect: Box<Connect>,
    peer: &Peer,
    stop: &mut watch::Receiver<bool>,
) {
    let login = Login {
        client_id: &connect.client_id,
        user: connect.user.as_deref(),
        password: connect.password.as_deref(),
        peer,
    };
    let verdict = tokio::select! {
        verdict = shared.access.admit(login) => verdict,
        () = asked_to_stop(stop) => return machine.stop(),
    };
    let mut exchange = shared.lock();
    match verdict {
        Ok(rights) => machine.admitted(&mut exchange, connect, rights, (shared.random)(), shared.now()),
        Err(refusal) => machine.refused(&mut exchange, refusal),
    };
}

/// The stream's side of things.
struct Line {
    /// Something has been written and may lie in a buffer of TLS or WebSocket.
    unflushed: bool,
}

impl Line {
    /// Writes, else reads. `Ok(false)`: the peer has closed.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        machine: &mut Machine,
        room: usize,
        shared: &Shared,
    ) -> Poll<io::Result<bool>> {
        if self.poll_write(cx, stream, machine.out())? {
            machine.wrote(shared.now());
            return Poll::Ready(Ok(true));
        }
        if room == 0 {
            return Poll::Pending;
        }
        let mut buffer = shared.buffer.lock().expect("no holder of this lock panics");
        let mut into = ReadBuf::new(&mut buffer[..room.min(READ)]);
        match Pin::new(stream).poll_read(cx, &mut into) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) if into.filled().is_empty() => Poll::Ready(Ok(false)),
            Poll::Ready(Ok(())) => {
                machine.received(into.filled(), shared.now());
                Poll::Ready(Ok(true))
            }
        }
    }

    /// Writes as much as goes. Whether it was anything.
    fn poll_write(&mut self, cx: &mut Context<'_>, stream: &mut Stream, out: &mut BytesMut) -> io::Result<bool> {
        let mut wrote = false;
        while !out.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, out)? {
                Poll::Pending => break,
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(n) => {
                    out.advance(n);
                    wrote = true;
                    self.unflushed = true;
                }
            }
        }
        if self.unflushed && Pin::new(stream).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(wrote)
    }

    /// Writes what goes without waiting.
    async fn write_some(&mut self, stream: &mut Stream, machine: &mut Machine, shared: &Shared) -> io::Result<()> {
        let wrote = poll_fn(|cx| Poll::Ready(self.poll_write(cx, stream, machine.out()))).await?;
        if wrote {
            machine.wrote(shared.now());
        }
        Ok(())
    }
}

async fn goodbye(stream: &mut Stream, out: &mut BytesMut) -> io::Result<()> {
    stream.write_all_buf(out).await?;
    stream.flush().await?;
    stream.shutdown().await?;
    let mut rest = [0; 512];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Waits for what is on its way through the hub; at a stop, no longer than that may take.
async fn linger(shared: &Shared, machine: &mut Machine, stop: &mut watch::Receiver<bool>) {
    let queue = machine.queue();
    let settled = async {
        loop {
            machine.settle(&mut shared.lock(), shared.now());
            if machine.is_settled() {
                return;
            }
            queue.wait().await;
        }
    };
    let stopped = async {
        asked_to_stop(stop).await;
        tokio::time::sleep(shared.stop_timeout).await;
    };
    tokio::select! {
        () = settled => {}
        () = stopped => {}
    }
}

/// Waits for the stop signal; a sender that is gone counts as one. Cancel safe.
pub(super) async fn asked_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}
