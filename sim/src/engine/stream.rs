//! The simulated byte stream, one face for both engines: every byte written goes into the trace.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use orchestrator::trace;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of an engine's. A flush without a write before it is not handed down: madsim sends a message for each.
#[derive(Debug)]
pub struct TracedStream<S> {
    inner: S,
    near: SocketAddr,
    far: SocketAddr,
    has_unflushed: bool,
}

impl<S> TracedStream<S> {
    pub(super) fn new(inner: S, near: SocketAddr, far: SocketAddr) -> Self {
        Self {
            inner,
            near,
            far,
            has_unflushed: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TracedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TracedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.has_unflushed = true;
            trace::bytes(
                "wire",
                format_args!("{}>{}", self.near, self.far),
                &bytes[..*count],
            );
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.has_unflushed {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        if flushed.is_ready() {
            self.has_unflushed = false;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
