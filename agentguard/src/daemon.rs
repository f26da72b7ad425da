//! The daemon: its parts, put together and taken apart in order.

mod mounts;
mod resolver;
mod start;
mod watchdog;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::agents::RegistryError;
use crate::config::Config;
use crate::control;
use crate::engine::{Engine, Handle, Listening, LoadError, Loader, Trigger};
use crate::event::{Daemon as DaemonFacts, Detail, Kind};
use crate::exporter::tls::TlsError;
use crate::files::{FileError, Lock, LockError};
use crate::kernel::{self, KernelError, Port};
use crate::notify::Notifier;
use crate::shutdown::{Request, Signals};
use crate::sinks::ledger::Health;
use crate::sinks::subscribers::Subscribers;

/// Threads of the runtime: the engine on one, requests on the other.
const WORKERS: usize = 2;

/// Time for emptying the rings at the end.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the daemon did not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A directory is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The kernel side cannot be set up.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The agents' numbers cannot be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The policies cannot be put in force.
    #[error("the daemon did not start: {0}")]
    Policy(#[from] LoadError),
    /// The metrics endpoint's certificates do not do.
    #[error("metrics: {0}")]
    Tls(#[from] TlsError),
    /// The metrics endpoint cannot be bound.
    #[error(
        "metrics: cannot listen on {address}: {source}; another daemon may use it, and `metrics.listen` names another"
    )]
    Metrics {
        /// Its address.
        address: std::net::SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The resolver's port cannot be bound.
    #[error(
        "resolver: cannot listen on {address}: {source}; another program may use it, and `resolver.port` names another"
    )]
    Resolver {
        /// Its address.
        address: std::net::SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something that always works did not.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The control task ended by itself.
    #[error("the control task ended early: {0}; enforcement stays in place")]
    Ended(String),
}

fn system(what: &'static str) -> impl Fn(io::Error) -> DaemonError {
    move |source| DaemonError::System { what, source }
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// See [`DaemonError`]. Whatever was in force in the kernel stays in force.
pub fn run(config: Config) -> Result<(), DaemonError> {
    let locks = Locks::take(&config)?;
    let port = Box::new(kernel::bpf::open(&config.kernel_options())?);
    let locks = locks.renewed(&config)?;
    let result = run_with(config, port);
    drop(locks);
    result
}

/// Runs the daemon over this kernel side.
fn run_with(config: Config, port: Box<dyn Port>) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("agentguard")
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .map_err(system("start the runtime"))?;
    let result = runtime.block_on(async {
        let mut signals = Signals::catch().map_err(system("catch signals"))?;
        let mut daemon = start::start(config, port).await?;
        let result = daemon.work(&mut signals).await;
        daemon.stop().await;
        result
    });
    runtime.shutdown_background();
    result
}

/// A daemon at work.
pub(crate) struct Daemon {
    base: Base,
    loader: Arc<Loader>,
    notifier: Arc<Notifier>,
    tls: Option<Arc<crate::exporter::tls::Tls>>,
    pub(crate) api: control::Serving,
    /// The resolver of names.
    resolver: JoinSet<()>,
    /// Whatever else works until the end.
    tasks: JoinSet<()>,
}

/// The engine and the pipeline, running.
struct Base {
    engine: Handle,
    engine_task: tokio::task::JoinHandle<io::Result<()>>,
    pipeline: std::thread::JoinHandle<()>,
    subscribers: Arc<Subscribers>,
    ledger: Arc<Health>,
}

impl Daemon {
    /// Answers signals until one asks to stop or the engine ends.
    async fn work(&mut self, signals: &mut Signals) -> Result<(), DaemonError> {
        loop {
            tokio::select! {
                request = signals.next() => match request {
                    Request::Stop => return Ok(()),
                    Request::Reload => self.reload().await,
                },
                ended = &mut self.base.engine_task => {
                    return Err(DaemonError::Ended(match ended {
                        Ok(Ok(())) => "nobody asked it to".to_owned(),
                        Ok(Err(error)) => error.to_string(),
                        Err(error) => error.to_string(),
                    }));
                }
            }
        }
    }

    async fn reload(&self) {
        self.notifier.reloading();
        if let Some(tls) = &self.tls
            && let Err(error) = tls.reload()
        {
            tracing::error!("metrics go on with the old certificates: {error}");
        }
        // A refusal is logged and recorded where it is found.
        let status = match self.loader.load(Trigger::Signal).await {
            Ok(loaded) => start::status_line(&loaded),
            Err(_) => "a reload was refused; the policy in force stays".to_owned(),
        };
        self.notifier.ready(&status);
    }

    /// Takes the daemon apart: no new requests, the rings emptied, the ledger
    /// on the disk, and clients told the end.
    pub(crate) async fn stop(self) {
        self.notifier.stopping();
        tracing::info!("stopping");
        self.api.accept_no_more();
        drop(self.resolver);
        drop(self.tasks);
        self.base.stop().await;
        self.api.finished().await;
        tracing::info!(
            "stopped; enforcement stays in place. `agentguard daemon --unload` removes it from the kernel"
        );
    }
}

impl Base {
    async fn stop(self) {
        let stop = |engine: &mut Engine| {
            engine.set_resolver(Listening::default());
            engine.emit(Kind::DaemonStopped, Detail::Daemon(facts(engine.port())));
            engine.stop();
        };
        if self.engine.call(stop).await.is_ok()
            && tokio::time::timeout(DRAIN, self.engine_task).await.is_err()
        {
            tracing::warn!("the rings were not emptied in time; the next daemon reads on");
        }
        // The engine's end of the queue is closed: the pipeline writes what it
        // holds and ends.
        let pipeline = self.pipeline;
        let joined = tokio::task::spawn_blocking(move || pipeline.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the event pipeline ended early; the ledger may lack its last records");
        }
    }
}

fn facts(port: &dyn Port) -> DaemonFacts {
    let state = |protection: &kernel::Protection| {
        let status = crate::api::status_name(protection.status);
        (protection.name.to_owned(), status.to_owned())
    };
    DaemonFacts {
        version: env!("CARGO_PKG_VERSION"),
        daemon_pid: std::process::id(),
        kernel: start::kernel_release(),
        protections: port.protections().iter().map(state).collect(),
    }
}

/// Held while the daemon runs: no other has the same state or the same pins.
struct Locks {
    _state: Lock,
    pins: Option<Lock>,
}

impl Locks {
    fn take(config: &Config) -> Result<Self, LockError> {
        crate::files::ensure_directory(&config.state_dir, 0o700)?;
        let state = Lock::file(&config.state_dir.join("lock"))?;
        // The kernel side makes the directory if it is not there yet.
        let pins = config
            .pins_dir
            .is_dir()
            .then(|| Lock::directory(&config.pins_dir));
        Ok(Self {
            _state: state,
            pins: pins.transpose()?,
        })
    }

    /// The same, when the pins' directory was made or mounted over meanwhile.
    fn renewed(self, config: &Config) -> Result<Self, LockError> {
        if self
            .pins
            .as_ref()
            .is_some_and(|lock| lock.is_on(&config.pins_dir))
        {
            return Ok(self);
        }
        let pins = config
            .pins_dir
            .is_dir()
            .then(|| Lock::directory(&config.pins_dir));
        Ok(Self {
            pins: pins.transpose()?,
            ..self
        })
    }
}

/// Removes AgentGuard from the kernel. The ledger stays.
///
/// # Errors
/// A daemon runs, or the kernel refuses.
pub fn unload(config: &Config) -> Result<Vec<String>, DaemonError> {
    let locks = Locks::take(config)?;
    let removed = kernel::bpf::unload(&config.kernel_options())?;
    let registry_file = config.registry_file();
    let mut registry = crate::agents::Registry::load(&registry_file)?;
    registry.counters_began_anew();
    registry.save(&registry_file)?;
    drop(locks);
    Ok(removed
        .iter()
        .map(|path| path.display().to_string())
        .collect())
}

#[cfg(test)]
pub(crate) mod tests;
