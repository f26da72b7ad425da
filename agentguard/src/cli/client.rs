//! A client of the daemon's API: blocking, one request a connection, and on one
//! thread, because `run` must not have another when its process is enrolled.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Ending, Exit};
use crate::api::{Code, Failure};

/// Time for the daemon to answer. A reload compiles thousands of rules.
const ANSWER: Duration = Duration::from_secs(60);

/// Bytes of an answer's head.
const HEAD_BYTES: usize = 16 * 1024;

/// Bytes of a whole document.
const DOCUMENT_BYTES: u64 = 64 * 1024 * 1024;

/// A GET that answers with a document.
pub(crate) fn get<T: DeserializeOwned>(socket: &Path, target: &str) -> Result<T, Ending> {
    document(open(socket, "GET", target, &[], Some(ANSWER))?)
}

/// A POST that answers with a document.
pub(crate) fn post<T: DeserializeOwned>(
    socket: &Path,
    target: &str,
    body: Option<&impl Serialize>,
) -> Result<T, Ending> {
    let body = body
        .map(serde_json::to_vec)
        .transpose()
        .map_err(|error| Ending::failed(error.to_string()))?
        .unwrap_or_default();
    document(open(socket, "POST", target, &body, Some(ANSWER))?)
}

/// A GET that answers with lines, for as long as the daemon sends them.
pub(crate) fn stream(
    socket: &Path,
    target: &str,
    wait: Option<Duration>,
) -> Result<impl BufRead + use<>, Ending> {
    open(socket, "GET", target, &[], wait.or(None)).map(BufReader::new)
}

fn document<T: DeserializeOwned>(body: Body) -> Result<T, Ending> {
    let mut text = Vec::new();
    body.take(DOCUMENT_BYTES)
        .read_to_end(&mut text)
        .map_err(broken)?;
    serde_json::from_slice(&text).map_err(|error| {
        Ending::failed(format!(
            "the daemon's answer is not understood ({error}); are the daemon and this command of the same version? `agentguard status` and `agentguard --version` tell"
        ))
    })
}

fn open(
    socket: &Path,
    method: &str,
    target: &str,
    body: &[u8],
    wait: Option<Duration>,
) -> Result<Body, Ending> {
    let mut stream = UnixStream::connect(socket).map_err(|error| unreachable(socket, &error))?;
    stream.set_read_timeout(wait).map_err(broken)?;
    stream.set_write_timeout(Some(ANSWER)).map_err(broken)?;
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: agentguard\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(&[head.as_bytes(), body].concat())
        .map_err(broken)?;
    let mut reader = BufReader::new(stream);
    let head = Head::read(&mut reader).map_err(broken)?;
    let body = Body {
        reader,
        left: head.length,
    };
    if head.status == 200 {
        Ok(body)
    } else {
        Err(refused(head.status, body))
    }
}

fn unreachable(socket: &Path, error: &io::Error) -> Ending {
    let next = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "is the daemon running? `systemctl start agentguard` starts it; --socket or AGENTGUARD_SOCKET names another socket"
        }
        io::ErrorKind::PermissionDenied => {
            "something forbids connecting: the policy of an agent does, if this process is one"
        }
        _ => "see `journalctl -u agentguard`",
    };
    Ending::new(
        Exit::Unreachable,
        format!(
            "cannot reach the daemon at {}: {error}; {next}",
            socket.display()
        ),
    )
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that `map_err` asks for"
)]
fn broken(error: io::Error) -> Ending {
    let reason = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => error.to_string(),
    };
    Ending::new(
        Exit::Unreachable,
        format!("the daemon did not answer: {reason}; see `journalctl -u agentguard`"),
    )
}

/// The failure that the daemon told, with the exit code that goes with it.
fn refused(status: u16, body: Body) -> Ending {
    let mut text = Vec::new();
    let read = body.take(DOCUMENT_BYTES).read_to_end(&mut text);
    let failure = read
        .ok()
        .and_then(|_| serde_json::from_slice::<Failure>(&text).ok());
    let Some(failure) = failure else {
        let text = String::from_utf8_lossy(&text);
        return Ending::failed(format!("the daemon answered {status}: {}", text.trim()));
    };
    let exit = match failure.code {
        Code::Refused => Exit::Refused,
        Code::BadRequest => Exit::Usage,
        _ => Exit::Failed,
    };
    let mut message = failure.error;
    for problem in failure.problems {
        message.push_str("\n\n");
        message.push_str(&problem);
    }
    Ending::new(exit, message)
}

/// The part of an answer's head that matters.
struct Head {
    status: u16,
    length: Length,
}

#[derive(Clone, Copy)]
enum Length {
    /// So many bytes.
    Known(u64),
    /// Chunks, of the current one so many bytes; `None`: a new one begins.
    Chunk(Option<u64>),
    /// No more.
    End,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> io::Result<Self> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let left = HEAD_BYTES - bytes.len();
            let read = reader
                .by_ref()
                .take(left as u64)
                .read_until(b'\n', &mut bytes)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        response.parse(&bytes).map_err(io::Error::other)?;
        let header = |name: &str| {
            response
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name))
                .and_then(|header| std::str::from_utf8(header.value).ok())
        };
        let length = match header("content-length") {
            Some(length) => Length::Known(length.trim().parse().map_err(io::Error::other)?),
            None => Length::Chunk(None),
        };
        Ok(Self {
            status: response.code.unwrap_or(0),
            length,
        })
    }
}

/// The body of an answer; an answer that breaks off is an error.
struct Body {
    reader: BufReader<UnixStream>,
    left: Length,
}

impl Body {
    /// Reads the line that begins a chunk, and the line end of the one before.
    fn begin_chunk(&mut self) -> io::Result<u64> {
        let mut line = Vec::new();
        // A first line that is empty ends the chunk before.
        while line.trim_ascii().is_empty() {
            line.clear();
            if self.reader.by_ref().take(64).read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        std::str::from_utf8(line.trim_ascii())
            .ok()
            .and_then(|size| u64::from_str_radix(size, 16).ok())
            .ok_or_else(|| io::Error::other("a chunk has no length"))
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = match self.left {
            Length::End | Length::Known(0) => return Ok(0),
            Length::Known(left) | Length::Chunk(Some(left)) => left,
            Length::Chunk(None) => self.begin_chunk()?,
        };
        if left == 0 {
            self.left = Length::End;
            return Ok(0);
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        let read = self.reader.read(&mut into[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let rest = left - read as u64;
        self.left = match self.left {
            Length::Known(_) => Length::Known(rest),
            _ => Length::Chunk((rest > 0).then_some(rest)),
        };
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one connection with these bytes.
    fn answered(bytes: &'static [u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while request.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            stream.write_all(bytes).unwrap();
        });
        (dir, path)
    }

    #[test]
    fn whole_and_chunked_documents() {
        let (_dir, path) = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n[1,2,3]");
        assert_eq!(get::<Vec<u8>>(&path, "/").unwrap(), [1, 2, 3]);
        let (_dir, path) = answered(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n[1,\r\n4\r\n2,3]\r\n0\r\n\r\n",
        );
        assert_eq!(get::<Vec<u8>>(&path, "/").unwrap(), [1, 2, 3]);
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_error() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 70\r\n\r\n[1,2,3]"[..],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n[1]\r\n",
            b"HTTP/1.1 200 OK\r\nconte",
        ] {
            let (_dir, path) = answered(bytes);
            assert_eq!(
                get::<Vec<u8>>(&path, "/").unwrap_err().exit,
                Exit::Unreachable
            );
        }
    }

    #[test]
    fn failures_have_their_exit_codes() {
        let (_dir, path) = answered(
            b"HTTP/1.1 403 Forbidden\r\ncontent-length: 32\r\n\r\n{\"code\":\"refused\",\"error\":\"no!\"}",
        );
        let ending = get::<Vec<u8>>(&path, "/").unwrap_err();
        assert_eq!(
            (ending.exit, ending.message.as_str()),
            (Exit::Refused, "no!")
        );
        let ending = get::<Vec<u8>>(Path::new("/nonexistent/s"), "/").unwrap_err();
        assert_eq!(ending.exit, Exit::Unreachable);
        assert!(
            ending.message.contains("systemctl start agentguard"),
            "{}",
            ending.message
        );
    }
}
