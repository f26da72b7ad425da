//! The metrics endpoint: `GET /metrics` and `GET /healthz` over HTTP, with TLS
//! and client certificates when configured.
//!
//! It may face a network, so everything about a connection is bounded: how many
//! there are, how long one lasts, how large a request is.

pub mod tls;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::tls::Tls;

/// Connections at once. One more waits in the kernel's queue.
const CONNECTIONS: usize = 32;

/// Time for a whole connection, handshake included.
const CONNECTION_TIME: Duration = Duration::from_secs(30);

/// Time for a client to send its request's head.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// Bytes of a request's head.
const HEAD_BYTES: usize = 8 * 1024;

/// What the endpoint serves. `Err` is why it cannot, for the scraper to log.
pub trait Source: Send + Sync + 'static {
    /// The page of metrics.
    fn metrics(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>>;
    /// Whether the daemon does its work.
    fn health(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>>;
}

/// A bound endpoint.
pub struct Exporter {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
}

impl Exporter {
    /// Binds the address.
    ///
    /// # Errors
    /// The kernel's answer.
    pub async fn bind(address: SocketAddr, tls: Option<Tls>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            listener,
            tls: tls.map(Arc::new),
        })
    }

    /// Its TLS, for reading renewed certificates.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for ever.
    pub async fn serve(self, source: Arc<dyn Source>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("a metrics connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (source, tls) = (Arc::clone(&source), self.tls.clone());
            tokio::spawn(async move {
                let _slot = slot;
                // Whether a scraper was slow or hung up is its own affair.
                let _ = timeout(CONNECTION_TIME, connection(stream, tls, source)).await;
            });
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<Arc<Tls>>, source: Arc<dyn Source>) {
    let Some(tls) = tls else {
        return http(stream, source).await;
    };
    match tls.accept(stream).await {
        Ok(stream) => http(stream, source).await,
        Err(error) => tracing::debug!("a metrics client failed the TLS handshake: {error}"),
    }
}

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin, source: Arc<dyn Source>) {
    let service = service_fn(|request| {
        let source = Arc::clone(&source);
        async move { Ok::<_, Infallible>(answer(&request, source.as_ref()).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("a metrics connection ended early: {error}");
    }
}

async fn answer(request: &Request<Incoming>, source: &dyn Source) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let page = match request.uri().path() {
        "/metrics" => source.metrics().await,
        "/healthz" => source.health().await,
        _ => return text(StatusCode::NOT_FOUND, "/metrics and /healthz are served\n"),
    };
    match page {
        Ok(page) => text(StatusCode::OK, page),
        Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

fn text(status: StatusCode, page: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(page.into()));
    *response.status_mut() = status;
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}

#[cfg(test)]
mod tests;
