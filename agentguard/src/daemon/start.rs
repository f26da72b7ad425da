//! Starting the daemon's parts, each before those that need it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::mounts::Mounts;
use super::resolver::Resolver;
use super::{Base, Daemon, DaemonError, facts, mounts, system, watchdog};
use crate::agents::Registry;
use crate::agents::kept::Kept;
use crate::agents::seen::LastRuns;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::control::{Control, Facts, Listener, Serving};
use crate::correlate::{Correlator, PolicyNames};
use crate::credentials::Findings;
use crate::engine::{
    self, Context, Engine, Handle, LoadError, Loaded, Loader, PipelineEnds, Prepared, Sources,
    Trigger,
};
use crate::event::{Detail, Kind};
use crate::exporter::tls::Tls;
use crate::exporter::{self, Exporter};
use crate::files;
use crate::kernel::Port;
use crate::links::Links;
use crate::notify::Notifier;
use crate::pipeline::{self, Pipeline};
use crate::policy::compile::protected::own_places;
use crate::repeats::Repeats;
use crate::runs::{Runs, Store};
use crate::sinks::journal::Journal;
use crate::sinks::ledger::{self, Health, Ledger, Recovered};
use crate::sinks::metrics::Metrics;
use crate::sinks::subscribers::Subscribers;
use crate::sinks::{Recorded, Sinks};
use crate::users::Accounts;

/// Time for the engine to answer a scrape or a health check.
const ANSWER: Duration = Duration::from_secs(5);

/// Time for the first look for files with several names.
const LINKS: Duration = Duration::from_secs(20);

/// Ended runs that are looked at for when their agents last ran.
const RECENT: usize = 100;

/// Starts everything; returns when the policies are in force. If that fails,
/// what was started is stopped again, with the reason in the ledger.
pub(super) async fn start(config: Config, port: Box<dyn Port>) -> Result<Daemon, DaemonError> {
    let metrics =
        Arc::new(Metrics::new().map_err(|error| {
            system("set up the metrics")(std::io::Error::other(error.to_string()))
        })?);
    let (base, names) = open_base(&config, port, &metrics)?;
    match enforce(&config, &base, names, &metrics).await {
        Ok(enforced) => match serve(&config, &base, &enforced.loader, metrics).await {
            Ok(served) => Ok(served.into_daemon(base, enforced).await),
            Err(error) => {
                base.stop().await;
                Err(error)
            }
        },
        Err(error) => {
            base.stop().await;
            Err(error)
        }
    }
}

/// The policies in force, and what they need.
struct Enforced {
    loader: Arc<Loader>,
    watched: Mounts,
    /// The resolver at work.
    resolver: JoinSet<()>,
}

/// Puts the policies in force.
async fn enforce(
    config: &Config,
    base: &Base,
    names: Option<Arc<PolicyNames>>,
    metrics: &Metrics,
) -> Result<Enforced, DaemonError> {
    let engine = &base.engine;
    let record_start = |engine: &mut Engine| {
        engine.emit(Kind::DaemonStarted, Detail::Daemon(facts(engine.port())));
    };
    engine.call(record_start).await.map_err(LoadError::from)?;
    // Watched from before the first look at them, so that no change is missed.
    let watched = Mounts::watch(&config.mountinfo).map_err(system("watch the host's mounts"))?;
    warn_unknown_protections(config, engine).await;
    let links = start_links(engine).await?;
    // Bound before, answering after the load: what is asked meanwhile waits.
    let opened = Resolver::open(config, engine, metrics).await?;
    let loader = Arc::new(Loader::new(engine.clone(), sources(config), names));
    loader.load(Trigger::Start).await?;
    let mut resolver = JoinSet::new();
    if let Some(opened) = opened {
        opened.serve(&mut resolver);
    }
    if !links.settled(LINKS).await {
        tracing::warn!(
            "looking for files with several names takes longer than {} s; until it is done such a file is judged by the name it is reached by",
            LINKS.as_secs()
        );
    }
    Ok(Enforced {
        loader,
        watched,
        resolver,
    })
}

/// The thread that looks for files with several names, where the kernel asks for them.
async fn start_links(engine: &Handle) -> Result<Links, DaemonError> {
    let off = engine.call(|engine| engine.port().needs_landlock()).await;
    if off.map_err(LoadError::from)? {
        return Ok(Links::off());
    }
    let links = Links::start(engine.clone())?;
    let told = links.clone();
    let set = engine.call(move |engine| engine.set_links(told)).await;
    set.map_err(LoadError::from)?;
    Ok(links)
}

/// The endpoints, bound and served.
struct Served {
    api: Serving,
    tls: Option<Arc<Tls>>,
    tasks: JoinSet<()>,
}

async fn serve(
    config: &Config,
    base: &Base,
    loader: &Arc<Loader>,
    metrics: Arc<Metrics>,
) -> Result<Served, DaemonError> {
    files::ensure_directory(&config.runtime_dir, 0o755)?;
    let accounts = Accounts::default();
    let listener = Listener::bind(&config.socket())?;
    let exporter = bind_exporter(config).await?;
    let control = Arc::new(Control {
        engine: base.engine.clone(),
        loader: Arc::clone(loader),
        subscribers: Arc::clone(&base.subscribers),
        ledger: Arc::clone(&base.ledger),
        ledger_directory: config.ledger_dir(),
        accounts,
        socket_group: config.socket_group.clone(),
        facts: fact_sheet(config, exporter.as_ref()),
    });
    let mut served = Served {
        api: Serving::start(listener, control),
        tls: None,
        tasks: JoinSet::new(),
    };
    if let Some(exporter) = exporter {
        served.tls = exporter.tls();
        let scraped = Scraped {
            engine: base.engine.clone(),
            metrics,
            ledger: Arc::clone(&base.ledger),
            subscribers: Arc::clone(&base.subscribers),
        };
        served.tasks.spawn(exporter.serve(Arc::new(scraped)));
    }
    Ok(served)
}

impl Served {
    /// The daemon is complete: the service manager is told.
    async fn into_daemon(mut self, base: Base, enforced: Enforced) -> Daemon {
        let Enforced {
            loader,
            watched,
            resolver,
        } = enforced;
        let notifier = Arc::new(Notifier::from_environment());
        self.tasks
            .spawn(mounts::follow(watched, Arc::clone(&loader)));
        if let Some(limit) = notifier.watchdog() {
            let watchdog = watchdog::run(Arc::clone(&notifier), base.engine.clone(), limit);
            self.tasks.spawn(watchdog);
        }
        let in_force = |engine: &mut Engine| {
            let policy = engine.status().policy;
            Loaded {
                generation: policy.generation,
                agents: policy.agents.len(),
            }
        };
        if let Ok(loaded) = base.engine.call(in_force).await {
            let status = status_line(&loaded);
            notifier.ready(&status);
            tracing::info!("ready: {status}");
        }
        Daemon {
            base,
            loader,
            notifier,
            tls: self.tls,
            api: self.api,
            tasks: self.tasks,
            resolver,
        }
    }
}

/// Opens the state directory and starts engine and pipeline over it. Also gives
/// the names of the policy that the last daemon left in force.
fn open_base(
    config: &Config,
    port: Box<dyn Port>,
    metrics: &Arc<Metrics>,
) -> Result<(Base, Option<Arc<PolicyNames>>), DaemonError> {
    let registry = Registry::load(&config.registry_file())?;
    let store = Store::open(&config.state_dir)?;
    let (live, unreadable) = store.load_live()?;
    for problem in unreadable {
        tracing::error!("{problem}; that run is known by the kernel's record alone");
    }
    let known: HashSet<Uuid> = live.iter().map(|run| run.id).collect();
    let state = store.clone();
    let options = ledger::Options {
        directory: config.ledger_dir(),
        fsync: config.fsync,
        file_bytes: ledger::FILE_BYTES,
    };
    let (ledger, recovered) = Ledger::open(options, &known)?;
    let live = state.resume(live, recovered.next_seq)?;
    let told: HashSet<Uuid> = recovered.recorded.keys().copied().collect();
    let health = ledger.health();
    let subscribers = Arc::new(Subscribers::default());
    let sinks = Sinks::new(
        ledger,
        recovered.next_seq,
        recorded(&recovered),
        Arc::clone(&subscribers),
        Journal::start().map_err(system("start the journal's thread"))?,
        Arc::clone(metrics),
    );
    let (messages, queue) = mpsc::channel(pipeline::QUEUE);
    let (settled_sender, settled) = mpsc::unbounded_channel();
    let pipeline = Pipeline {
        correlator: Correlator::default(),
        repeats: Repeats::default(),
        findings: Findings::default(),
        sinks,
        runs: state,
        settled: settled_sender,
        metrics: Arc::clone(metrics),
    };
    let names = engine::load_names(&config.names_file());
    let in_force = names.first().cloned().map(Arc::new);
    let context = Context {
        boot_id: boot_id(),
        metrics: Arc::clone(metrics),
        accounts: Accounts::default(),
        dormant_after: config.dormant_after,
    };
    let mut last_runs = LastRuns::load(&config.last_runs_file());
    // The last daemon may have been killed before it wrote of these.
    for run in store.newest_ended(RECENT, |_| true)? {
        let identity = &run.identity;
        last_runs.note(&identity.agent, &identity.environment, run.started);
    }
    let runs = (Runs::new(store, live), last_runs);
    let (handle, mut prepared) = Engine::prepare(port, registry, runs, context, names, &told);
    tell_torn(&mut prepared, recovered);
    let pipeline = pipeline.start(queue)?;
    let base = Base {
        engine: handle,
        engine_task: tokio::spawn(prepared.run(PipelineEnds { messages, settled })),
        pipeline,
        subscribers,
        ledger: health,
    };
    Ok((base, in_force))
}

fn recorded(recovered: &Recovered) -> HashMap<Uuid, Recorded> {
    let kept = |(run, kept): (&Uuid, &u64)| {
        (
            *run,
            Recorded {
                kept: *kept,
                lost: 0,
            },
        )
    };
    recovered.recorded.iter().map(kept).collect()
}

fn tell_torn(prepared: &mut Prepared, recovered: Recovered) {
    let Some(torn) = recovered.torn else {
        return;
    };
    tracing::warn!(
        "the ledger file {} ended in the middle of a record, as after a power cut: {} bytes were removed and are kept in a ledger-recovered record",
        torn.file,
        torn.bytes
    );
    prepared.engine().emit(
        Kind::LedgerRecovered,
        Detail::LedgerRecovered {
            file: torn.file,
            bytes: torn.bytes,
            fragment: torn.fragment,
        },
    );
}

fn sources(config: &Config) -> Sources {
    Sources {
        agents: config.agents_dir.clone(),
        mountinfo: config.mountinfo.clone(),
        registry: config.registry_file(),
        names: config.names_file(),
        kept: Kept::new(config.kept_dir()),
        accept_degraded: config.accept_degraded.clone(),
        own: own_places(
            &config.state_dir,
            &config.agents_dir,
            &config.runtime_dir,
            &config.pins_dir,
        ),
    }
}

/// A name under `accept_degraded` that no protection has is a mistake, and the
/// start that follows it may fail because of it: say so first.
async fn warn_unknown_protections(config: &Config, engine: &Handle) {
    let Ok(protections) = engine.call(|engine| engine.port().protections()).await else {
        return;
    };
    for name in &config.accept_degraded {
        if !protections.iter().any(|protection| protection.name == name) {
            let names: Vec<&str> = protections
                .iter()
                .map(|protection| protection.name)
                .collect();
            tracing::warn!(
                "accept_degraded lists `{name}`, and no protection has that name; there are {}",
                names.join(", ")
            );
        }
    }
}

async fn bind_exporter(config: &Config) -> Result<Option<Exporter>, DaemonError> {
    let Some(metrics) = &config.metrics else {
        return Ok(None);
    };
    if metrics.tls.is_none() && !metrics.listen.ip().is_loopback() {
        tracing::warn!(
            "metrics are served on {} without TLS: everyone who can reach it reads the agents' names and counts",
            metrics.listen
        );
    }
    let tls = metrics.tls.clone().map(Tls::load).transpose()?;
    let exporter = Exporter::bind(metrics.listen, tls).await;
    exporter.map(Some).map_err(|source| DaemonError::Metrics {
        address: metrics.listen,
        source,
    })
}

fn fact_sheet(config: &Config, exporter: Option<&Exporter>) -> Facts {
    let directory = |path: &std::path::Path| path.display().to_string();
    let scheme = match &config.metrics {
        Some(metrics) if metrics.tls.is_some() => "https",
        _ => "http",
    };
    Facts {
        started: Timestamp::now(),
        accept_degraded: config.accept_degraded.iter().cloned().collect(),
        metrics: exporter
            .and_then(|exporter| exporter.address().ok())
            .map(|address| format!("{scheme}://{address}/metrics")),
        directories: BTreeMap::from([
            ("agents".to_owned(), directory(&config.agents_dir)),
            ("ledger".to_owned(), directory(&config.ledger_dir())),
            ("pins".to_owned(), directory(&config.pins_dir)),
            ("runtime".to_owned(), directory(&config.runtime_dir)),
            ("state".to_owned(), directory(&config.state_dir)),
        ]),
    }
}

/// One line for `systemctl status`.
pub(super) fn status_line(loaded: &Loaded) -> String {
    format!(
        "policy generation {} in force, agents: {}",
        loaded.generation, loaded.agents
    )
}

/// Which boot of the host this is.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

pub(super) fn kernel_release() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// What a scrape and a health check read.
struct Scraped {
    engine: Handle,
    metrics: Arc<Metrics>,
    ledger: Arc<Health>,
    subscribers: Arc<Subscribers>,
}

type Page<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;

impl exporter::Source for Scraped {
    fn metrics(&self) -> Page<'_> {
        Box::pin(async {
            let (ledger, subscribers) = (self.ledger.report(), self.subscribers.count());
            let snapshot = self
                .engine
                .call(move |engine| engine.snapshot(ledger, subscribers));
            let snapshot = tokio::time::timeout(ANSWER, snapshot)
                .await
                .map_err(|_| "the engine does not answer".to_owned())?
                .map_err(|error| error.to_string())?;
            self.metrics
                .render(&snapshot)
                .map_err(|error| error.to_string())
        })
    }

    fn health(&self) -> Page<'_> {
        Box::pin(async {
            tokio::time::timeout(ANSWER, self.engine.ping())
                .await
                .map_err(|_| "the engine or the event pipeline does not answer".to_owned())?
                .map_err(|error| error.to_string())?;
            match self.ledger.report() {
                ledger if ledger.healthy => Ok("ok\n".to_owned()),
                ledger => Err(format!(
                    "the ledger cannot be written: {}",
                    ledger.last_error.unwrap_or_default()
                )),
            }
        })
    }
}
