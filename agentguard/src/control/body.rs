//! Bodies of answers: a document, or events as they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use serde_json::json;

use crate::sinks::subscribers::Subscription;

/// The body of an answer.
pub(super) enum Body {
    /// A whole document; `None` once it was sent.
    Whole(Option<Bytes>),
    /// Events, until the daemon ends or the client is too slow.
    Events(Events),
}

/// A stream of events.
pub(super) struct Events {
    subscription: Option<Subscription>,
}

impl Body {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }

    pub const fn events(subscription: Subscription) -> Self {
        Self::Events(Events {
            subscription: Some(subscription),
        })
    }
}

impl Events {
    fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(subscription) = &mut self.subscription else {
            return Poll::Ready(None);
        };
        match subscription.poll_next(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(entry)) => Poll::Ready(Some(Bytes::copy_from_slice(&entry.line))),
            Poll::Ready(None) => {
                let lost = subscription.lost();
                self.subscription = None;
                Poll::Ready((lost > 0).then(|| farewell(lost)))
            }
        }
    }
}

/// The last line for a client that did not keep up.
fn farewell(lost: u64) -> Bytes {
    let line = json!({
        "kind": "records-lost",
        "sink": "subscriber",
        "cause": "this client did not read its events fast enough and is cut off; the ledger has them",
        "lost": lost,
    });
    format!("{line}\n").into()
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
            Self::Events(events) => events.poll_line(context),
        };
        data.map(|data| data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Events(events) => events.subscription.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Events(_) => SizeHint::default(),
        }
    }
}
