//! Reading `agentguard.yaml`: all problems at once, each with its place.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Config, Log, Metrics, Resolver};
use crate::exporter::tls;
use crate::log;
use crate::policy::check::fields::{Checker, Field, Fields};
use crate::policy::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::policy::text::{TextError, quote};
use crate::policy::yaml::{Node, Value};
use crate::policy::{duration, yaml};
use crate::sinks::ledger::Fsync;

/// Keys of the file.
pub(super) const KEYS: [&str; 14] = [
    "agents_dir",
    "state_dir",
    "runtime_dir",
    "pins_dir",
    "socket_group",
    "metrics",
    "resolver",
    "ledger",
    "accept_degraded",
    "dormant_after",
    "log",
    "mountinfo",
    "cgroup_root",
    "slice",
];

/// Shortest and longest time between two forced writes of the ledger.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));

/// Reads a configuration. A file that was not named may be absent: then
/// everything has its default.
///
/// # Errors
/// All problems of the file.
pub fn load(path: &Path, named: bool) -> Result<Config, Diagnostics> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => {
            return Ok(Config::default());
        }
        Err(error) => {
            return Err(Diagnostics(vec![Diagnostic::about_file(
                Severity::Error,
                path,
                format!("the configuration cannot be read: {error}"),
                "name another with --config, or correct its permissions",
            )]));
        }
    };
    parse(path, &bytes)
}

/// Reads a configuration's text.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Config, Diagnostics> {
    if says_nothing(bytes) {
        return Ok(Config::default());
    }
    let parsed = yaml::parse(path, bytes).map_err(|problem| Diagnostics(vec![*problem]))?;
    let mut reader = Reader {
        checker: Checker::new(&parsed.source),
        config: Config::default(),
    };
    if let [document] = parsed.documents.as_slice() {
        reader.document(document);
    } else if let Some(second) = parsed.documents.get(1) {
        let help = "keep one of them".to_owned();
        let message = "the configuration is one document, and another begins here";
        reader.checker.error(second.span, message, Some(help));
    }
    let failed = reader.checker.error_count() > 0;
    let diagnostics = reader.checker.finish();
    if failed {
        Err(Diagnostics(diagnostics))
    } else {
        Ok(reader.config)
    }
}

/// Whether there are only comments and empty lines: the shipped file is so.
fn says_nothing(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'\n').all(|line| {
        let line = line.trim_ascii();
        line.is_empty() || line.starts_with(b"#")
    })
}

struct Reader<'a> {
    checker: Checker<'a>,
    config: Config,
}

impl Reader<'_> {
    fn document(&mut self, document: &Node) {
        let span = document.span;
        let Some(top) = self
            .checker
            .mapping(document, span, "the configuration", &KEYS)
        else {
            return;
        };
        for field in top.iter() {
            self.key(field);
        }
    }

    fn key(&mut self, field: Field<'_>) {
        match field.name {
            "agents_dir" => self.path(field, |config, path| config.agents_dir = path),
            "state_dir" => self.path(field, |config, path| config.state_dir = path),
            "runtime_dir" => self.path(field, |config, path| config.runtime_dir = path),
            "pins_dir" => self.path(field, |config, path| config.pins_dir = path),
            "mountinfo" => self.path(field, |config, path| config.mountinfo = path),
            "cgroup_root" if matches!(field.value.value, Value::Null) => {}
            "cgroup_root" => self.path(field, |config, path| config.cgroup_root = Some(path)),
            "socket_group" => self.word(field, account, |config, name| config.socket_group = name),
            "slice" => self.word(field, slice, |config, name| config.slice = name),
            "metrics" => self.metrics(field),
            "resolver" => self.resolver(field),
            "ledger" => self.ledger(field),
            "log" => self.log(field),
            "dormant_after" => {
                let after = self.checker.parsed(field.value, field.name, dormant_after);
                self.config.dormant_after = after.unwrap_or(self.config.dormant_after);
            }
            _ => self.accept_degraded(field),
        }
    }

    fn path(&mut self, field: Field<'_>, set: fn(&mut Config, PathBuf)) {
        if let Some(path) = self.checker.parsed(field.value, field.name, absolute) {
            set(&mut self.config, path);
        }
    }

    fn word(
        &mut self,
        field: Field<'_>,
        read: fn(&str) -> Result<String, TextError>,
        set: fn(&mut Config, String),
    ) {
        if let Some(word) = self.checker.parsed(field.value, field.name, read) {
            set(&mut self.config, word);
        }
    }

    fn metrics(&mut self, field: Field<'_>) {
        if matches!(field.value.value, Value::Null) {
            self.config.metrics = None;
            return;
        }
        let keys = ["listen", "tls"];
        let Some(fields) = self
            .checker
            .mapping(field.value, field.key_span, "metrics", &keys)
        else {
            return;
        };
        let mut metrics = Config::default().metrics;
        if let Some(listen) = fields.get("listen") {
            metrics = match listen.value.value {
                Value::Null => None,
                _ => self
                    .checker
                    .parsed(listen.value, "metrics.listen", address)
                    .map(|listen| Metrics { listen, tls: None }),
            };
        }
        let tls = fields.get("tls").and_then(|field| self.tls(field));
        self.config.metrics = metrics.map(|metrics| Metrics { tls, ..metrics });
    }

    fn tls(&mut self, field: Field<'_>) -> Option<tls::Files> {
        if matches!(field.value.value, Value::Null) {
            return None;
        }
        let keys = ["cert", "key", "client_ca"];
        let fields = self
            .checker
            .mapping(field.value, field.key_span, "metrics.tls", &keys)?;
        let cert = self.needed_path(&fields, "cert", "write `cert: /path/of/certificate.pem`");
        let key = self.needed_path(&fields, "key", "write `key: /path/of/key.pem`");
        let client_ca = fields
            .get("client_ca")
            .filter(|field| !matches!(field.value.value, Value::Null))
            .and_then(|field| self.checker.parsed(field.value, "client_ca", absolute));
        Some(tls::Files {
            cert: cert?,
            key: key?,
            client_ca,
        })
    }

    fn needed_path(&mut self, fields: &Fields<'_>, name: &str, help: &str) -> Option<PathBuf> {
        let field = self.checker.required(fields, name, help)?;
        self.checker.parsed(field.value, name, absolute)
    }

    fn resolver(&mut self, field: Field<'_>) {
        let keys = ["enabled", "port", "resolv_conf"];
        let Some(fields) = self
            .checker
            .mapping(field.value, field.key_span, "resolver", &keys)
        else {
            return;
        };
        let mut resolver = Resolver::default();
        if let Some(field) = fields.get("enabled") {
            let enabled = self.checker.truth(field.value, "resolver.enabled");
            resolver.enabled = enabled.unwrap_or(true);
        }
        if let Some(field) = fields.get("port")
            && !matches!(field.value.value, Value::Null)
        {
            let most = u32::from(u16::MAX);
            let port = self.checker.number(field.value, "resolver.port", 1, most);
            resolver.port = port.and_then(|port| port.try_into().ok());
        }
        if let Some(field) = fields.get("resolv_conf") {
            let path = self
                .checker
                .parsed(field.value, "resolver.resolv_conf", absolute);
            resolver.resolv_conf = path.unwrap_or(resolver.resolv_conf);
        }
        self.config.resolver = resolver;
    }

    fn ledger(&mut self, field: Field<'_>) {
        let keys = ["fsync", "interval"];
        let Some(fields) = self
            .checker
            .mapping(field.value, field.key_span, "ledger", &keys)
        else {
            return;
        };
        let interval = fields.get("interval").and_then(|field| {
            self.checker
                .parsed(field.value, "ledger.interval", interval)
        });
        let every = Fsync::Interval(interval.unwrap_or(Duration::from_secs(1)));
        let Some(field) = fields.get("fsync") else {
            self.config.fsync = every;
            return;
        };
        let all = [
            ("always", Fsync::Always),
            ("interval", every),
            ("never", Fsync::Never),
        ];
        let Some((_, fsync)) =
            self.checker
                .keyword(field.value, "ledger.fsync", &all, |(name, _)| name)
        else {
            return;
        };
        self.config.fsync = fsync;
        if fsync != every
            && let Some(interval) = fields.get("interval")
        {
            let message = "ledger.interval has no meaning with this ledger.fsync";
            let help = "remove it, or write `fsync: interval`".to_owned();
            self.checker.error(interval.key_span, message, Some(help));
        }
    }

    fn log(&mut self, field: Field<'_>) {
        let keys = ["level", "format"];
        let Some(fields) = self
            .checker
            .mapping(field.value, field.key_span, "log", &keys)
        else {
            return;
        };
        let mut log = Log::default();
        if let Some(field) = fields.get("level")
            && let Some((_, level)) =
                self.checker
                    .keyword(field.value, "log.level", &log::Level::NAMES, |(name, _)| {
                        name
                    })
        {
            log.level = level;
        }
        if let Some(field) = fields.get("format")
            && let Some((_, format)) = self.checker.keyword(
                field.value,
                "log.format",
                &log::Format::NAMES,
                |(name, _)| name,
            )
        {
            log.format = format;
        }
        self.config.log = log;
    }

    fn accept_degraded(&mut self, field: Field<'_>) {
        let names = self
            .checker
            .texts(field.value, "accept_degraded", protection);
        self.config.accept_degraded = names
            .into_iter()
            .map(|(_, name)| name)
            .collect::<BTreeSet<_>>();
    }
}

fn absolute(text: &str) -> Result<PathBuf, TextError> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(
        TextError::new(format!("{} is not an absolute path", quote(text)))
            .with_help("the daemon has no directory of its own to start from: begin with `/`"),
    )
}

fn address(text: &str) -> Result<SocketAddr, TextError> {
    text.parse().map_err(|_| {
        TextError::new(format!("{} is not an address with a port", quote(text)))
            .with_help("write it as 127.0.0.1:9470 or [::1]:9470, or null to serve no metrics")
    })
}

fn interval(text: &str) -> Result<Duration, TextError> {
    let interval = duration::parse(text)?;
    let (shortest, longest) = INTERVALS;
    if interval < shortest || interval > longest {
        return Err(TextError::new(format!(
            "{} is not between {} and {}",
            quote(text),
            duration::format(shortest),
            duration::format(longest)
        )));
    }
    Ok(interval)
}

fn dormant_after(text: &str) -> Result<Duration, TextError> {
    let after = duration::parse(text)?;
    if after.is_zero() {
        return Err(TextError::new("an agent cannot be dormant at once")
            .with_help("write a time without a run, such as 30d"));
    }
    Ok(after)
}

fn account(text: &str) -> Result<String, TextError> {
    let valid = !text.is_empty() && !text.contains([':', '/', '\n', ' ']);
    valid.then(|| text.to_owned()).ok_or_else(|| {
        TextError::new(format!(
            "{} is not the name or number of a group",
            quote(text)
        ))
    })
}

fn slice(text: &str) -> Result<String, TextError> {
    let valid = text.len() > ".slice".len()
        && text.ends_with(".slice")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    valid.then(|| text.to_owned()).ok_or_else(|| {
        TextError::new(format!("{} is not the name of a slice", quote(text)))
            .with_help("write a name like agentguard.slice")
    })
}

fn protection(text: &str) -> Result<String, TextError> {
    let valid = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    valid.then(|| text.to_owned()).ok_or_else(|| {
        TextError::new(format!("{} is not the name of a protection", quote(text)))
            .with_help("`agentguard doctor` lists the protections")
    })
}
