//! Manifests, as the tests write them.

use serde_json::{Value, json};

/// A manifest under construction. It is written as JSON, which is YAML.
#[derive(Clone, Debug)]
pub struct Manifest(Value);

impl Manifest {
    /// An agent that root may start, without any permission.
    #[must_use]
    pub fn new(name: &str, mode: &str) -> Self {
        Self(json!({
            "apiVersion": "agentguard/v1",
            "kind": "Agent",
            "metadata": { "name": name },
            "spec": {
                "owner": "tests@example.com",
                "environment": "development",
                "authority": "service",
                "mode": mode,
                "enrol": { "launch": { "users": ["root"] } },
                "permissions": {
                    // So that agents can try aliases; it never widens the file rules.
                    "privileges": { "allow": ["mount", "namespaces"] },
                },
            },
        }))
    }

    /// Who may start it.
    #[must_use]
    pub fn users(mut self, users: &[&str]) -> Self {
        self.0["spec"]["enrol"]["launch"]["users"] = json!(users);
        self
    }

    /// Which processes become it at exec: the entries of `enrol.match`.
    #[must_use]
    pub fn matches(mut self, entries: &Value) -> Self {
        self.0["spec"]["enrol"]["match"] = entries.clone();
        self
    }

    /// The agents that it may start.
    #[must_use]
    pub fn delegates(mut self, agents: &[&str]) -> Self {
        self.0["spec"]["delegates"] = json!(agents);
        self
    }

    /// The verdict of a verb where no rule matches.
    #[must_use]
    pub fn default(mut self, verb: &str, verdict: &str) -> Self {
        self.0["spec"]["permissions"][verb]["default"] = json!(verdict);
        self
    }

    /// The privileges it has by name.
    #[must_use]
    pub fn privileges(mut self, names: &[&str]) -> Self {
        self.0["spec"]["permissions"]["privileges"]["allow"] = json!(names);
        self
    }

    /// Adds rules: `verb` and `list` as in a manifest.
    #[must_use]
    pub fn rules(mut self, verb: &str, list: &str, rules: &[String]) -> Self {
        self.0["spec"]["permissions"][verb][list] = json!(rules);
        self
    }

    /// The text of the file: one value a line, so that lines mean something.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:#}\n", self.0)
    }
}
