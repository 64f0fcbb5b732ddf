//! The simulated byte stream, one face for both engines: every byte written goes into the trace, and what the network
//! says of the link is done to what arrives.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use openraft_rt::AsyncRuntime;
use orchestrator::trace;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::network::{Reading, StreamEnd};

/// Read at once and held while it is late.
const CHUNK_BYTES: usize = 8 << 10;

/// A stream of an engine's. A flush without a write before it is not handed down: madsim sends a message for each.
pub struct TracedStream<R: AsyncRuntime, S> {
    inner: S,
    /// From where to where, as the trace has it.
    link: String,
    end: StreamEnd,
    has_unflushed: bool,
    /// Arrived, and late: what follows waits behind it.
    late: Option<(Pin<Box<R::Sleep>>, Vec<u8>)>,
    /// Arrived in time, and not read so far.
    arrived: Vec<u8>,
}

impl<R: AsyncRuntime, S> TracedStream<R, S> {
    pub(super) fn new(inner: S, near: SocketAddr, far: SocketAddr) -> Self {
        Self {
            inner,
            link: format!("{near}>{far}"),
            end: StreamEnd::new(near, far),
            has_unflushed: false,
            late: None,
            arrived: Vec::new(),
        }
    }

    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.arrived.len().min(buffer.remaining());
        buffer.put_slice(&self.arrived[..count]);
        self.arrived.drain(..count);
    }
}

impl<R: AsyncRuntime, S: AsyncRead + Unpin> AsyncRead for TracedStream<R, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.arrived.is_empty() {
                self.give(buffer);
                return Poll::Ready(Ok(()));
            }
            let reading = self.end.reading(context.waker());
            if reading == Reading::Held {
                return Poll::Pending;
            }
            if reading == Reading::Reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if let Some((sleep, _)) = &mut self.late {
                if sleep.as_mut().poll(context).is_pending() {
                    self.end.wait(context.waker());
                    return Poll::Pending;
                }
                self.arrived = self.late.take().map(|(_, bytes)| bytes).unwrap_or_default();
                continue;
            }
            if self.end.is_plain() && reading == Reading::Possible {
                let read = Pin::new(&mut self.inner).poll_read(context, buffer);
                if read.is_pending() {
                    self.end.wait(context.waker());
                }
                return read;
            }
            let mut chunk = [0; CHUNK_BYTES];
            let mut room = ReadBuf::new(&mut chunk);
            match Pin::new(&mut self.inner).poll_read(context, &mut room) {
                Poll::Ready(Ok(())) if !room.filled().is_empty() => {
                    let bytes = room.filled().to_vec();
                    let delay = self.end.delay();
                    if delay.is_zero() {
                        self.arrived = bytes;
                    } else {
                        self.late = Some((Box::pin(R::sleep(delay)), bytes));
                    }
                }
                Poll::Pending if reading == Reading::Ended => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    self.end.wait(context.waker());
                    return Poll::Pending;
                }
                ended => return ended,
            }
        }
    }
}

impl<R: AsyncRuntime, S: AsyncWrite + Unpin> AsyncWrite for TracedStream<R, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.end.written();
        if self.end.is_lost() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.has_unflushed = true;
            trace::bytes("wire", format_args!("{}", self.link), &bytes[..*count]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.has_unflushed || self.end.is_lost() {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        if flushed.is_ready() {
            self.has_unflushed = false;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end.is_lost() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
