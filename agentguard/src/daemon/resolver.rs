//! The resolver of names in the daemon: its sockets, whom it asks, and what the kernel is
//! told of both. What it does is in [`crate::names`].

mod desk;
mod sockets;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use self::desk::Desk;
use self::sockets::Sockets;
use super::DaemonError;
use crate::config::Config;
use crate::engine::{Handle, Listening, LoadError};
use crate::names::Server;
use crate::names::resolv::Resolvers;
use crate::sinks::metrics::Metrics;

/// Time between two looks at the host's resolv.conf.
const LOOK: Duration = Duration::from_secs(1);

/// A resolver that is bound and known to the kernel, but does not answer yet.
pub(super) struct Resolver {
    server: Server<Desk>,
    engine: Handle,
    hosts: Arc<Hosts>,
    listening: Listening,
}

impl Resolver {
    /// `None` where the configuration wants none.
    pub async fn open(
        config: &Config,
        engine: &Handle,
        metrics: &Metrics,
    ) -> Result<Option<Self>, DaemonError> {
        let settings = &config.resolver;
        if !settings.enabled {
            tell(engine, Listening::default()).await?;
            tracing::info!("resolver: not enabled; agents cannot ask for names");
            return Ok(None);
        }
        let sockets = Sockets::open(settings.port, &config.resolver_file())?;
        let hosts = Arc::new(Hosts::new(Resolvers::new(&settings.resolv_conf)));
        let listening = Listening {
            v4: sockets.v4,
            v6: sockets.v6,
            servers: hosts.now(),
        };
        let parts = engine.call(|engine| (engine.view(), engine.port().askers()));
        let (view, askers) = parts.await.map_err(LoadError::from)?;
        let desk = Desk {
            engine: engine.clone(),
            view,
            askers: askers?,
            hosts: Arc::clone(&hosts),
        };
        tell(engine, listening.clone()).await?;
        let server = Server::new(sockets.udp, sockets.tcp, desk);
        metrics.set_names(server.counters());
        Ok(Some(Self {
            server,
            engine: engine.clone(),
            hosts,
            listening,
        }))
    }

    /// Answers until the tasks are dropped.
    pub fn serve(self, tasks: &mut JoinSet<()>) {
        let (server, engine) = (self.server, self.engine);
        let (hosts, listening) = (self.hosts, self.listening);
        tasks.spawn(follow(engine.clone(), hosts, listening));
        tasks.spawn(async move {
            if let Err(error) = server.run(std::future::pending()).await {
                tracing::error!(
                    "resolver: {error}; agents cannot ask for names until the daemon is restarted"
                );
                // When the engine is gone, so is what it would tell.
                let _ = tell(&engine, Listening::default()).await;
            }
        });
    }
}

async fn tell(engine: &Handle, listening: Listening) -> Result<(), DaemonError> {
    let told = engine.call(|engine| engine.set_resolver(listening)).await;
    told.map_err(|stopped| LoadError::from(stopped).into())
}

/// Tells the kernel when the host has other servers.
async fn follow(engine: Handle, hosts: Arc<Hosts>, mut listening: Listening) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        let servers = hosts.now();
        if servers == listening.servers {
            continue;
        }
        let text: Vec<String> = servers.iter().map(ToString::to_string).collect();
        tracing::info!("resolver: the host asks {} now", text.join(", "));
        listening.servers = servers;
        let changed = listening.clone();
        // Not after the resolver has ended: then there is nothing to say.
        let set = move |engine: &mut crate::engine::Engine| engine.set_servers(changed);
        if engine.call(set).await.is_err() {
            return;
        }
    }
}

/// The host's servers. Where they cannot be read, those that were read last.
pub(super) struct Hosts {
    file: Resolvers,
    last: Mutex<(Vec<SocketAddr>, Option<io::ErrorKind>)>,
}

impl Hosts {
    pub fn new(file: Resolvers) -> Self {
        Self {
            file,
            last: Mutex::default(),
        }
    }

    pub fn now(&self) -> Vec<SocketAddr> {
        let read = self.file.servers();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(servers) => *last = (servers, None),
            Err(error) => {
                if last.1 != Some(error.kind()) {
                    tracing::error!(
                        "resolver: the host's resolv.conf cannot be read: {error}; the servers of before are asked"
                    );
                }
                last.1 = Some(error.kind());
            }
        }
        last.0.clone()
    }
}
