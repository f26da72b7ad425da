//! The process whose sending is timed, and the untagged threads at the other ends.

use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use agentguard_tests::ports;
use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use serde_json::json;

use crate::measure::connect_tcp;

/// The argument that asks for this.
pub const FLAG: &str = "sending";
/// What is timed, in the order of the figures.
pub const CALLS: [&str; 4] = ["bulk", "turn", "connect_tcp", "send_udp"];
/// Nanoseconds that each takes.
pub type Times = [f64; CALLS.len()];

/// Passes over all calls. The figure is the least, for other work on the host only adds; many
/// and short, so that some are not disturbed.
const PASSES: usize = 128;
/// What one `write` has of the bulk.
const WRITE: usize = 256 * 1024;
/// So many are a pass: 2 GiB in all.
const WRITES: usize = 64;
/// Of each other call.
const REPEATS: [u32; 3] = [20, 20, 200];

/// The other ends, all on the loopback interface.
pub struct Peers {
    /// Takes what comes, and says so after each pass.
    sink: SocketAddr,
    /// Sends each byte back.
    echo: SocketAddr,
    /// Takes connections.
    door: SocketAddr,
    /// Has datagrams lie until they are dropped.
    pit: UdpSocket,
    /// Where no agent may connect, and nobody listens.
    elsewhere: SocketAddr,
}

impl Peers {
    /// Starts them.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub fn start() -> Result<Self> {
        Ok(Self {
            sink: serve(|stream| thread::spawn(move || sink(stream)))?,
            echo: serve(|stream| thread::spawn(move || echo(stream)))?,
            door: serve(drop)?,
            pit: UdpSocket::bind("127.0.0.1:0")?,
            elsewhere: ([127, 0, 0, 1], ports::unused()?).into(),
        })
    }

    /// What an agent has to be allowed.
    ///
    /// # Errors
    /// A socket has no address.
    pub fn rules(&self) -> Result<Vec<String>> {
        let tcp = [self.sink, self.echo, self.door].map(|to| format!("{to}/tcp"));
        let mut rules = tcp.to_vec();
        rules.push(format!("{}/udp", self.pit.local_addr()?));
        Ok(rules)
    }

    /// The arguments of [`main`].
    ///
    /// # Errors
    /// A socket has no address.
    pub fn arguments(&self) -> Result<Vec<String>> {
        let pit = self.pit.local_addr()?;
        let all = [self.sink, self.echo, self.door, pit, self.elsewhere];
        Ok([FLAG.to_owned()]
            .into_iter()
            .chain(all.map(|address| address.to_string()))
            .collect())
    }
}

/// Listens, and has a thread take each connection.
fn serve<T: 'static>(take: fn(TcpStream) -> T) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        // Threads that it starts stay there too.
        let _ = stay();
        for stream in listener.incoming().flatten() {
            take(stream);
        }
    });
    Ok(address)
}

fn sink(mut stream: TcpStream) -> Result<()> {
    setsockopt(&stream, sockopt::RcvBuf, &WRITE)?;
    let mut buffer = vec![0; WRITE];
    loop {
        let mut taken = 0;
        while taken < WRITE * WRITES {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                count => taken += count,
            }
        }
        stream.write_all(&[0])?;
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        stream.write_all(&byte)?;
    }
}

/// Keeps this thread on the first processor that it may use, as all others here: with one for
/// each end, the figures tell more of how the two meet than of what is measured, and what
/// one end costs more is hidden where it waits for the other.
fn stay() -> Result<()> {
    let this = Pid::from_raw(0);
    let may = sched_getaffinity(this)?;
    let first = (0..CpuSet::count()).find(|&cpu| may.is_set(cpu).unwrap_or(false));
    let mut set = CpuSet::new();
    set.set(first.context("no processor")?)?;
    Ok(sched_setaffinity(this, &set)?)
}

/// Times all calls; prints one JSON object.
///
/// # Errors
/// One fails.
pub fn main(addresses: [&str; 5]) -> Result<()> {
    stay()?;
    let [sink, echo, door, pit, elsewhere] = addresses;
    let door: SocketAddr = door.parse()?;
    let refused = match TcpStream::connect(elsewhere) {
        Err(error) => error.raw_os_error() == Some(nix::libc::EPERM),
        Ok(_) => false,
    };
    let bulk = vec![0; WRITE];
    let mut byte = [0];
    let mut sink = TcpStream::connect(sink).context("the sink")?;
    let mut echo = TcpStream::connect(echo).context("the echo")?;
    echo.set_nodelay(true)?;
    // The kernel would choose other buffers for each connection, and some are too large for
    // the processor's cache.
    setsockopt(&sink, sockopt::SndBuf, &WRITE)?;
    let datagrams = UdpSocket::bind("127.0.0.1:0")?;
    let mut least = [f64::INFINITY; CALLS.len()];
    // The first pass warms caches up.
    for pass in 0..=PASSES {
        let start = Instant::now();
        for _ in 0..WRITES {
            sink.write_all(&bulk)?;
        }
        sink.read_exact(&mut byte)?;
        let bulk = each(start.elapsed(), 1);
        let [turns, connections, sends] = REPEATS;
        let turn = time(turns, || {
            echo.write_all(&byte)?;
            echo.read_exact(&mut byte)
        })?;
        let connect_tcp = time(connections, || connect_tcp(door))?;
        let send_udp = time(sends, || datagrams.send_to(&byte, pit).map(drop))?;
        if pass > 0 {
            let times = [bulk, turn, connect_tcp, send_udp];
            least = std::array::from_fn(|call| least[call].min(times[call]));
        }
    }
    // The bulk is given by the GiB.
    least[0] *= f64::from(1 << 30) / (WRITE * WRITES) as f64;
    println!("{}", json!({ "times": least, "refused": refused }));
    Ok(())
}

fn time(repeats: u32, mut call: impl FnMut() -> io::Result<()>) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..repeats {
        call()?;
    }
    Ok(each(start.elapsed(), repeats))
}

fn each(time: Duration, repeats: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(repeats)
}
