//! What the demonstration's agent meets: servers, a repository, a policy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::daemon::read;
use super::places::{Places, write};
use super::servers::Server;

/// The manifest, with places between @ signs.
const MANIFEST: &str = include_str!("../../../tests/demo/coding-agent.yaml");
/// The name in it.
pub const AGENT: &str = "demo-coder";
/// Where clouds serve credentials to their machines.
pub const METADATA: (&str, u16) = ("169.254.169.254", 80);

/// Everything around the agent.
#[derive(Debug)]
pub struct Scene {
    /// The directories.
    pub places: Places,
    /// The model's server, which the policy allows.
    pub model: Server,
    /// The mirror of packages, which the policy allows; on IPv6 where that is there.
    pub mirror: Server,
    /// A server that the policy does not name.
    pub unlisted: Server,
    /// The same on IPv6, where that is there.
    pub unlisted_v6: Option<Server>,
    /// A receiver of datagrams that the policy does not name.
    pub unlisted_udp: Server,
    /// The manifest as it was written.
    pub manifest: PathBuf,
    manifest_text: String,
}

impl Scene {
    /// Sets everything up.
    pub fn set(places: Places, degraded: &[String]) -> Result<Self> {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        let model = Server::http(v4)?;
        let mirror = Server::http(v6).or_else(|_| Server::http(v4))?;
        let text = MANIFEST
            .replace("@MODEL@", &model.address.to_string())
            .replace("@MIRROR@", &mirror.address.to_string())
            .replace("@REPOSITORY@", &places.repository.display().to_string())
            .replace("@WORK@", &places.work.display().to_string())
            .replace("@HOME@", &places.home.display().to_string());
        let manifest = places.agents.join("coding-agent.yaml");
        write(&manifest, &text)?;
        let config = format!(
            "metrics:\n  listen: \"127.0.0.1:0\"\nslice: {}\nsocket_group: \"0\"\naccept_degraded: [{}]\n",
            places.slice,
            degraded.join(", ")
        );
        write(&places.config, &config)?;
        let scene = Self {
            model,
            mirror,
            unlisted: Server::http(v4)?,
            unlisted_v6: Server::http(v6).ok(),
            unlisted_udp: Server::datagrams(v4)?,
            manifest,
            manifest_text: text,
            places,
        };
        scene.make_repository()?;
        Ok(scene)
    }

    fn make_repository(&self) -> Result<()> {
        self.git(&["init", "--quiet"])?;
        self.git(&["config", "user.name", "Demo Coder"])?;
        self.git(&["config", "user.email", "demo-coder@example.com"])?;
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", "Start"])?;
        Ok(())
    }

    /// What git says of the repository.
    pub fn git(&self, args: &[&str]) -> Result<String> {
        let mut git = Command::new("git");
        git.arg("-C").arg(&self.places.repository).args(args);
        read(self.environment(&mut git), &[0])
    }

    /// Runs the agent's script: under AgentGuard by its `run`, or as it is. Gives what it reported.
    pub fn play(&self, launcher: Option<Command>) -> Result<Vec<Value>> {
        let mut command = match launcher {
            Some(mut run) => {
                run.args(["--", "python3"]);
                run
            }
            None => Command::new("python3"),
        };
        let is_agent = command.get_program() != "python3";
        command
            .arg(&self.places.script)
            .arg(self.describe(is_agent));
        let said = read(
            self.environment(command.current_dir(&self.places.repository)),
            &[0],
        )?;
        said.lines()
            .map(|line| serde_json::from_str(line).context("the agent's report"))
            .collect()
    }

    /// The places as the script wants them. The address that serves credentials is left out
    /// where nothing would keep the script from it.
    fn describe(&self, is_agent: bool) -> String {
        let pair = |server: &Server| json!([server.address.ip(), server.address.port()]);
        json!({
            "repository": self.places.repository,
            "work": self.places.work,
            "etc": self.places.etc,
            "model": self.model.url(),
            "mirror": self.mirror.url(),
            "unlisted_url": self.unlisted.url(),
            "unlisted": pair(&self.unlisted),
            "unlisted_v6": self.unlisted_v6.as_ref().map(pair),
            "unlisted_udp": pair(&self.unlisted_udp),
            "metadata": is_agent.then_some(METADATA),
        })
        .to_string()
    }

    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("HOME", &self.places.home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env_remove("XDG_CONFIG_HOME")
    }

    /// How many connections reached servers that the policy does not allow, since asked last.
    pub fn unlisted_visits(&self) -> usize {
        let v6 = self.unlisted_v6.as_ref().map_or(0, Server::take_visits);
        self.unlisted.take_visits() + self.unlisted_udp.take_visits() + v6
    }

    /// `file:line` of a rule in the manifest.
    pub fn rule_at(&self, rule: &str) -> Result<String> {
        let quoted = format!("\"{rule}\"");
        let line = self
            .manifest_text
            .lines()
            .position(|line| line.contains(&quoted));
        match line {
            Some(line) => Ok(format!("{}:{}", self.manifest.display(), line + 1)),
            None => bail!("{} has no rule {quoted}", self.manifest.display()),
        }
    }
}
