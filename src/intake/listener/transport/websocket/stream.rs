//! A WebSocket as a stream of bytes. Belongs to one task: what is read may have to be answered by a write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{self, Deframer};

/// Longest frame that is sent: the caller says how much there is, and has to come up with that much.
const FRAME_MAX: usize = 64 << 10;
/// The status of a Close frame when all is well (RFC 6455, 7.4.1).
const NORMAL: u16 = 1000;

#[derive(Debug)]
pub struct WebSocket<S> {
    inner: S,
    deframer: Deframer,
    /// Pong, Close or the header of a frame, on their way out: one at a time, so a hundred bytes or so.
    out: Vec<u8>,
    written: usize,
    /// Bytes of the payload that the last header has promised.
    promised: usize,
    close: Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Close {
    Open,
    /// Has to be said, with this status; `None`: as the client said it.
    Due(Option<u16>),
    Said,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    pub fn new(inner: S) -> Self {
        let deframer = Deframer::new();
        WebSocket { inner, deframer, out: Vec::new(), written: 0, promised: 0, close: Close::Open }
    }

    /// Puts the next control frame into `out`. Only between frames.
    fn refill(&mut self) {
        if self.promised > 0 || self.written < self.out.len() {
            return;
        }
        self.out.clear();
        self.written = 0;
        if let Close::Due(status) = self.close {
            let status = status.map(u16::to_be_bytes);
            let payload = status.as_ref().map_or_else(|| self.deframer.close_payload(), |bytes| &bytes[..]);
            frames::close(payload, &mut self.out);
            self.close = Close::Said;
        } else if let Some(ping) = self.deframer.take_ping().filter(|_| self.close == Close::Open) {
            frames::pong(&ping, &mut self.out);
        }
    }

    /// Writes control frames and headers until nothing of them is left.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.refill();
            if self.written == self.out.len() {
                return Poll::Ready(Ok(()));
            }
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.out[self.written..]))?;
            self.advance(n)?;
        }
    }

    fn advance(&mut self, n: usize) -> io::Result<()> {
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let header = n.min(self.out.len() - self.written);
        self.written += header;
        self.promised -= n - header;
        Ok(())
    }

    /// Answers what has been read, as far as that goes without waiting. The next write does the rest.
    fn answer(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.refill();
        if self.written == self.out.len() {
            return Ok(());
        }
        match self.poll_control(cx) {
            Poll::Ready(Ok(())) => match Pin::new(&mut self.inner).poll_flush(cx) {
                Poll::Ready(Err(error)) => Err(error),
                _ => Ok(()),
            },
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // What a write in between has held up.
        this.answer(cx)?;
        while into.remaining() > 0 && !this.deframer.is_closed() {
            let before = into.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, into))?;
            if into.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            let taken = this.deframer.take(&mut into.filled_mut()[before..]);
            into.set_filled(before + taken.unwrap_or(0));
            if let Err(violation) = taken {
                this.close = Close::Due(Some(violation.code()));
                // Best effort: the connection ends here whether the client hears it or not.
                let _ = this.answer(cx);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
            }
            if this.deframer.is_closed() && this.close == Close::Open {
                this.close = Close::Due(None);
            }
            this.answer(cx)?;
            if into.filled().len() > before {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    /// After `Pending` the caller must come back with at least as many bytes: their number has been announced.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.promised == 0 {
            ready!(this.poll_control(cx))?;
            if this.close != Close::Open {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            this.promised = bytes.len().min(FRAME_MAX);
            let (header, len) = frames::binary_header(this.promised);
            this.out.extend_from_slice(&header[..len]);
        }
        loop {
            let payload = &bytes[..bytes.len().min(this.promised)];
            let header = &this.out[this.written..];
            let n = if header.is_empty() {
                ready!(Pin::new(&mut this.inner).poll_write(cx, payload))?
            } else {
                let both = [IoSlice::new(header), IoSlice::new(payload)];
                ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, &both))?
            };
            let before = this.promised;
            this.advance(n)?;
            if before > this.promised {
                return Poll::Ready(Ok(before - this.promised));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.promised == 0 {
            ready!(self.poll_control(cx))?;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Within a frame there is no place for a Close.
        if self.promised == 0 {
            if self.close == Close::Open {
                self.close = Close::Due(Some(NORMAL));
            }
            ready!(self.poll_control(cx))?;
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
