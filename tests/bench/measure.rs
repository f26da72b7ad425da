//! System calls in batches, timed by the processor time that they take: what other
//! processes do meanwhile does not count.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

use crate::deep;

/// The argument that asks for this.
pub const FLAG: &str = "measure";

/// What can be measured: all calls, and those of which only `open` is asked about.
pub const ALL: &str = "open open_3 open_10 open_40 pread connect_udp connect_tcp bulk exec";
/// As [`ALL`].
pub const OPENS: &str = "open open_3 open_10 open_40";
/// Those that send.
pub const NETWORK: &str = "connect_udp send_udp connect_tcp bulk turn";
/// The calls whose figures are held.
pub const HELD: &str = "open pread connect_udp exec";

/// Batches that only warm caches up.
const WARM_UP: usize = 3;
/// Bytes that one call sends over an established connection, and takes from it.
const BULK: usize = 16 * 1024;

/// Measures the calls that `wanted` names; prints one JSON object.
///
/// # Errors
/// One fails.
pub fn main(wanted: &str, file: &str, [udp, tcp, own]: [&str; 3]) -> Result<()> {
    let udp: SocketAddr = udp.parse()?;
    let tcp: SocketAddr = tcp.parse()?;
    let content = File::open(file).with_context(|| format!("cannot open {file}"))?;
    let datagrams = UdpSocket::bind("127.0.0.1:0")?;
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    let (mut near, mut far) = established(own)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let mut byte = [0];
    let mut bulk = [0; BULK];
    let deep = deep::DEPTHS.map(|depth| (format!("open_{depth}"), deep::file(depth)));
    let mut results = Map::new();
    for name in wanted.split_whitespace() {
        let costs = match name {
            "open" => series(200, 40, thread_time, || File::open(file).map(drop))?,
            "pread" => series(500, 40, thread_time, || {
                content.read_at(&mut byte, 0).map(drop)
            })?,
            "connect_udp" => series(200, 40, thread_time, || datagrams.connect(udp))?,
            "connect_tcp" => series(20, 40, thread_time, || connect_tcp(tcp))?,
            "bulk" => series(20, 40, thread_time, || {
                near.write_all(&bulk)?;
                far.read_exact(&mut bulk)
            })?,
            "send_udp" => series(200, 40, thread_time, || sender.send_to(&byte, udp))?,
            // One byte there and one back: what a request waits for.
            "turn" => series(100, 40, thread_time, || {
                near.write_all(&byte)?;
                far.read_exact(&mut byte)?;
                far.write_all(&byte)?;
                near.read_exact(&mut byte)
            })?,
            // Many: what the daemon does after a start must not move the median.
            "exec" => series(1, 256, with_children, || {
                let mut command = Command::new("/bin/true");
                command.stdin(Stdio::null()).status().map(drop)
            })?,
            other => {
                let found = deep.iter().find(|(call, _)| call == other);
                let (_, file) = found.with_context(|| format!("no call {other}"))?;
                series(200, 20, thread_time, || File::open(file).map(drop))
                    .with_context(|| format!("opening {file}"))?
            }
        };
        results.insert(name.to_owned(), costs);
    }
    println!("{}", Value::Object(results));
    Ok(())
}

/// Says who it is and waits for the end of its input.
///
/// # Errors
/// The input cannot be read.
pub fn wait() -> Result<()> {
    let run = std::env::var("AGENTGUARD_RUN_ID").ok();
    println!("{}", json!({ "pid": std::process::id(), "run": run }));
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Both ends of a connection: with both in one thread the same happens every time.
fn established(to: &str) -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(to)?;
    let near = TcpStream::connect(to)?;
    Ok((near, listener.accept()?.0))
}

/// A connection that leaves nothing behind: it is reset at its end.
pub fn connect_tcp(to: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect(to)?;
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &linger)?;
    Ok(())
}

/// Nanoseconds of processor time a call: the least and the median batch.
fn series<T>(
    batch: u32,
    repeats: usize,
    clock: fn() -> Result<i64>,
    mut call: impl FnMut() -> io::Result<T>,
) -> Result<Value> {
    let mut times = Vec::new();
    for _ in 0..WARM_UP + repeats {
        let start = clock()?;
        for _ in 0..batch {
            call()?;
        }
        times.push(clock()? - start);
    }
    let mut kept = times.split_off(WARM_UP);
    kept.sort_unstable();
    ensure!(kept.iter().all(|time| *time > 0), "the clock stands still");
    let each = |time: i64| time as f64 / f64::from(batch);
    Ok(json!({ "min": each(kept[0]), "median": each(kept[kept.len() / 2]) }))
}

fn thread_time() -> Result<i64> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.num_nanoseconds())
}

/// Of this thread and of the children that have ended.
pub fn with_children() -> Result<i64> {
    let children = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let children = children.user_time() + children.system_time();
    Ok(thread_time()? + children.num_nanoseconds())
}
