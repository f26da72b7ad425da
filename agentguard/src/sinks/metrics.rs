//! Prometheus metrics: every name once, in [`Metrics::render`]'s list.
//!
//! What the kernel counts is read from the kernel at each scrape, so it survives
//! lost events and the daemon. No label is ever a run, a process, a path, an
//! address or a host name: their number has no bound.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use agentguard_common::counter::Counter as KernelCounter;
use agentguard_common::flow::FlowState;
use agentguard_common::verb::Verb;
use agentguard_common::verdict::{Mode, Verdict};
use prometheus::core::Collector;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, IntCounter, IntCounterVec, Opts, TextEncoder};

use crate::clock::Timestamp;
use crate::event::{Flow, Identity, Kind};
use crate::kernel::{Fill, Hook, Protection, ProtectionStatus};
use crate::names::{Count, Counters};
use crate::sinks::ledger::HealthReport;

/// What the daemon itself counts.
pub struct Metrics {
    events: IntCounterVec,
    drops: IntCounterVec,
    flows: IntCounterVec,
    flow_bytes: IntCounterVec,
    runs_started: IntCounter,
    load_failures: IntCounter,
    names: OnceLock<Arc<Counters>>,
}

/// What is read from the kernel and the daemon's state for one scrape.
pub struct Snapshot {
    /// Protections and their state.
    pub protections: Vec<Protection>,
    /// Attach points.
    pub hooks: Vec<Hook>,
    /// Decisions by agent.
    pub decisions: Vec<AgentDecisions>,
    /// Kernel counters, in order of [`KernelCounter`].
    pub counters: Vec<u64>,
    /// Fill levels.
    pub fills: Vec<Fill>,
    /// Live tagged tasks.
    pub tagged_tasks: u64,
    /// Live runs by (agent, environment).
    pub active_runs: BTreeMap<(String, String), u64>,
    /// Agents by their state.
    pub agents: BTreeMap<&'static str, u64>,
    /// Addresses that runs hold for names.
    pub name_grants: usize,
    /// Policy generation in force.
    pub generation: u32,
    /// When it came into force.
    pub loaded: Timestamp,
    /// The ledger.
    pub ledger: HealthReport,
    /// Clients that follow events.
    pub subscribers: usize,
}

/// Decisions of one agent, of one kind.
pub struct AgentDecisions {
    /// Agent name.
    pub agent: String,
    /// Environment.
    pub environment: String,
    /// Owner.
    pub owner: String,
    /// Verb.
    pub verb: Verb,
    /// Verdict.
    pub verdict: Verdict,
    /// Mode.
    pub mode: Mode,
    /// How many.
    pub count: u64,
}

impl AgentDecisions {
    /// Whether this counts the same decisions.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        self.agent == other.agent
            && self.environment == other.environment
            && (self.verb, self.verdict, self.mode) == (other.verb, other.verdict, other.mode)
    }
}

/// Reasons for which the daemon drops events; the kernel's come on top.
const DROP_REASONS: [&str; 4] = ["ledger", "subscriber", "undecodable", "unserialisable"];

impl Metrics {
    /// All counters at zero, each series there from the start.
    ///
    /// # Errors
    /// A name or help text that Prometheus does not take: a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let events = IntCounterVec::new(
            Opts::new("agentguard_events_total", "Events published, by kind."),
            &["kind"],
        )?;
        for kind in Kind::ALL {
            events.with_label_values(&[kind.name()]);
        }
        let drops = IntCounterVec::new(
            Opts::new(
                "agentguard_events_dropped_total",
                "Events dropped, by reason: a full kernel ring, the ledger, a slow subscriber.",
            ),
            &["reason"],
        )?;
        for reason in DROP_REASONS {
            drops.with_label_values(&[reason]);
        }
        let flows = IntCounterVec::new(
            Opts::new(
                "agentguard_flows_total",
                "Flows of agents that ended since the daemon started; of datagrams, those of a minute with one place are one.",
            ),
            &["agent", "environment", "owner", "protocol", "state"],
        )?;
        let flow_bytes = IntCounterVec::new(
            Opts::new(
                "agentguard_flow_bytes_total",
                "Bytes of payload that agents sent and received since the daemon started.",
            ),
            &["agent", "direction", "environment", "owner", "protocol"],
        )?;
        Ok(Self {
            events,
            drops,
            flows,
            flow_bytes,
            runs_started: IntCounter::new(
                "agentguard_runs_started_total",
                "Runs started since the daemon started.",
            )?,
            load_failures: IntCounter::new(
                "agentguard_policy_load_failures_total",
                "Policy loads refused since the daemon started; the policy in force stayed.",
            )?,
            names: OnceLock::new(),
        })
    }

    /// What the resolver counts; it counts nothing where there is none.
    pub fn set_names(&self, counters: Arc<Counters>) {
        // There is one resolver: it is set once.
        let _ = self.names.set(counters);
    }

    /// An event was published.
    pub fn count_event(&self, kind: Kind) {
        self.events.with_label_values(&[kind.name()]).inc();
    }

    /// Events were dropped for one of [`DROP_REASONS`].
    pub fn count_drop(&self, reason: &'static str, count: u64) {
        self.drops.with_label_values(&[reason]).inc_by(count);
    }

    /// Something is known of an agent's flows.
    pub fn count_flow(&self, of: &Identity, flow: &Flow) {
        let protocol = flow.object.protocol.as_str();
        let (agent, environment, owner) = (
            of.agent.as_str(),
            of.environment.as_str(),
            of.owner.as_str(),
        );
        for (direction, bytes) in [("sent", flow.sent_bytes), ("received", flow.received_bytes)] {
            let labels = [agent, direction, environment, owner, protocol];
            self.flow_bytes.with_label_values(&labels).inc_by(bytes);
        }
        // Of a connection that goes on, its end is what counts.
        if flow.state != FlowState::Open.name() || flow.direction.is_none() {
            let labels = [agent, environment, owner, protocol, flow.state];
            self.flows.with_label_values(&labels).inc_by(flow.count);
        }
    }

    /// A run was started.
    pub fn count_run(&self) {
        self.runs_started.inc();
    }

    /// A policy load was refused.
    pub fn count_load_failure(&self) {
        self.load_failures.inc();
    }

    /// The page that Prometheus scrapes.
    ///
    /// # Errors
    /// A family without samples or a name: a mistake in this file.
    pub fn render(&self, snapshot: &Snapshot) -> prometheus::Result<String> {
        let mut families = vec![
            build_info(),
            protections(snapshot),
            hooks(snapshot),
            decisions(snapshot),
            self.dropped(snapshot),
            kernel_errors(snapshot),
            active_runs(snapshot),
            agents(snapshot),
            self.names_asked(),
            map_fill(
                snapshot,
                "agentguard_map_entries",
                "Entries in use of a kernel table.",
                |fill| fill.used,
            ),
            map_fill(
                snapshot,
                "agentguard_map_capacity",
                "Entries at most of a kernel table.",
                |fill| fill.limit,
            ),
        ];
        families.extend(scalars(snapshot));
        families.extend(process());
        families.extend(self.events.collect());
        families.extend(self.flows.collect());
        families.extend(self.flow_bytes.collect());
        families.extend(self.runs_started.collect());
        families.extend(self.load_failures.collect());
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    /// What became of the questions to the resolver.
    fn names_asked(&self) -> MetricFamily {
        let samples = Count::ALL.map(|count| {
            let counters = self.names.get();
            let number = counters.map_or(0, |counters| counters.get(count));
            counter_sample(&[("result", count.name())], number)
        });
        counter(
            "agentguard_names_asked_total",
            "Questions of agents to the resolver since the daemon started, and what became of them: messages counts all, answered those that got an answer, refused those that the policy refused.",
            samples.into(),
        )
    }

    /// The daemon's own drops and the kernel's full rings, in one family.
    fn dropped(&self, snapshot: &Snapshot) -> MetricFamily {
        let mut own = self.drops.collect();
        let mut family = own.swap_remove(0);
        let mut metrics = family.take_metric();
        for counter in [KernelCounter::DenialDropped, KernelCounter::AuditDropped] {
            let count = snapshot.counters.get(counter as usize).copied();
            metrics.push(counter_sample(
                &[("reason", counter.name())],
                count.unwrap_or(0),
            ));
        }
        family.set_metric(metrics);
        family
    }
}

fn build_info() -> MetricFamily {
    let labels = [("version", env!("CARGO_PKG_VERSION"))];
    gauge(
        "agentguard_build_info",
        "Constant 1, labelled with the version of the running daemon.",
        vec![gauge_sample(&labels, 1.0)],
    )
}

fn protections(snapshot: &Snapshot) -> MetricFamily {
    let samples = snapshot.protections.iter().map(|protection| {
        let enforcing = protection.status == ProtectionStatus::Enforcing;
        gauge_sample(
            &[("protection", protection.name)],
            f64::from(u8::from(enforcing)),
        )
    });
    gauge(
        "agentguard_protection_enforcing",
        "1 if a protection works in full on this host, else 0.",
        samples.collect(),
    )
}

fn hooks(snapshot: &Snapshot) -> MetricFamily {
    let samples = snapshot.hooks.iter().map(|hook| {
        gauge_sample(
            &[("hook", hook.program)],
            f64::from(u8::from(hook.attached)),
        )
    });
    gauge(
        "agentguard_hook_attached",
        "1 if a kernel program is attached, else 0.",
        samples.collect(),
    )
}

fn decisions(snapshot: &Snapshot) -> MetricFamily {
    let samples = snapshot.decisions.iter().map(|decision| {
        let labels = [
            ("agent", decision.agent.as_str()),
            ("environment", &decision.environment),
            ("mode", decision.mode.name()),
            ("owner", &decision.owner),
            ("verb", decision.verb.name()),
            ("verdict", decision.verdict.name()),
        ];
        counter_sample(&labels, decision.count)
    });
    counter(
        "agentguard_decisions_total",
        "Operations of agents decided in the kernel, counted there.",
        samples.collect(),
    )
}

fn kernel_errors(snapshot: &Snapshot) -> MetricFamily {
    let samples = KernelCounter::ALL
        .iter()
        .zip(&snapshot.counters)
        .map(|(counter, count)| counter_sample(&[("reason", counter.name())], *count));
    counter(
        "agentguard_kernel_errors_total",
        "What went wrong in the kernel programs, counted there; errors deny.",
        samples.collect(),
    )
}

fn active_runs(snapshot: &Snapshot) -> MetricFamily {
    let samples = snapshot
        .active_runs
        .iter()
        .map(|((agent, environment), runs)| {
            let labels = [("agent", agent.as_str()), ("environment", environment)];
            gauge_sample(&labels, *runs as f64)
        });
    gauge("agentguard_active_runs", "Live runs.", samples.collect())
}

fn agents(snapshot: &Snapshot) -> MetricFamily {
    let samples = snapshot
        .agents
        .iter()
        .map(|(state, agents)| gauge_sample(&[("state", state)], *agents as f64));
    gauge(
        "agentguard_agents",
        "Registered agents by state: active (has a live run), idle, dormant (no run for dormant_after), absent (its manifest is gone), retired.",
        samples.collect(),
    )
}

fn map_fill(
    snapshot: &Snapshot,
    name: &str,
    help: &str,
    value: impl Fn(&Fill) -> u64,
) -> MetricFamily {
    let samples = snapshot
        .fills
        .iter()
        .map(|fill| gauge_sample(&[("map", fill.map)], value(fill) as f64));
    gauge(name, help, samples.collect())
}

/// Families of one sample without labels.
fn scalars(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let one_gauge = |name, help, value| gauge(name, help, vec![gauge_sample(&[], value)]);
    let one_counter = |name, help, value| counter(name, help, vec![counter_sample(&[], value)]);
    vec![
        one_gauge(
            "agentguard_tagged_tasks",
            "Live tasks that carry a tag.",
            snapshot.tagged_tasks as f64,
        ),
        one_gauge(
            "agentguard_name_grants",
            "Addresses that live runs hold for names.",
            snapshot.name_grants as f64,
        ),
        one_gauge(
            "agentguard_policy_generation",
            "Policy generation in force.",
            f64::from(snapshot.generation),
        ),
        one_gauge(
            "agentguard_policy_last_load_timestamp_seconds",
            "When the policy in force was loaded, seconds since 1970.",
            snapshot.loaded.seconds() as f64,
        ),
        one_gauge(
            "agentguard_ledger_healthy",
            "1 if the last write to the ledger worked, else 0.",
            f64::from(u8::from(snapshot.ledger.healthy)),
        ),
        one_gauge(
            "agentguard_ledger_queue_records",
            "Records that wait to be written to the ledger.",
            snapshot.ledger.queued as f64,
        ),
        one_gauge(
            "agentguard_event_subscribers",
            "Clients that follow events over the API.",
            snapshot.subscribers as f64,
        ),
        one_counter(
            "agentguard_ledger_records_total",
            "Records written to the ledger since the daemon started.",
            snapshot.ledger.records,
        ),
        one_counter(
            "agentguard_ledger_errors_total",
            "Failed writes to the ledger since the daemon started.",
            snapshot.ledger.errors,
        ),
    ]
}

/// The daemon's memory, under the name that Prometheus clients agree on.
fn process() -> Option<MetricFamily> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    let bytes = pages * u64::try_from(page).ok()?;
    Some(gauge(
        "process_resident_memory_bytes",
        "Resident memory of the daemon in bytes.",
        vec![gauge_sample(&[], bytes as f64)],
    ))
}

fn gauge(name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, metrics)
}

fn counter(name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    family(name, help, MetricType::COUNTER, metrics)
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn gauge_sample(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = Metric::from_label(label_pairs(labels));
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

fn counter_sample(labels: &[(&str, &str)], value: u64) -> Metric {
    let mut metric = Metric::from_label(label_pairs(labels));
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}

fn label_pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    pairs.collect()
}

#[cfg(test)]
mod tests;
