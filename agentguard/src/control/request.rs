//! Reading requests: routes, queries, bodies, with limits.

use std::collections::BTreeMap;
use std::error::Error;

use agentguard_common::verdict::Verdict;
use http_body_util::{BodyExt, Limited};
use hyper::Method;
use hyper::body::Body;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::answers::Failed;
use crate::api::Code;

/// Bytes of a request's body. A command line is the largest thing in it; the
/// kernel itself allows 2 MiB of arguments, of which this many are recorded.
const BODY_BYTES: usize = 256 * 1024;

/// Events that are read back from the ledger at most.
const LAST_EVENTS: usize = 10_000;

/// Ended runs that are listed at most.
const ENDED_RUNS: usize = 1_000;

/// A request, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    StartRun,
    Adopt,
    Runs {
        agent: Option<String>,
        ended: usize,
    },
    Run(Uuid),
    Ps,
    Events(EventQuery),
    Agents,
    Agent {
        name: String,
        environment: Option<String>,
    },
    Decide {
        name: String,
        retire: bool,
    },
    Reload,
    Status,
    Doctor,
}

/// Which events.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EventQuery {
    pub follow: bool,
    pub agent: Option<String>,
    pub run: Option<Uuid>,
    pub verdict: Option<Verdict>,
    pub last: usize,
}

/// Understands method, path and query.
pub(super) fn route(method: &Method, path: &str, query: Option<&str>) -> Result<Route, Failed> {
    let mut query = Query::parse(query)?;
    let route = match (method.as_str(), path) {
        ("POST", "/v1/runs") => Route::StartRun,
        ("POST", "/v1/adoptions") => Route::Adopt,
        ("GET", "/v1/runs") => Route::Runs {
            agent: query.take("agent"),
            ended: query.number("ended", 20, ENDED_RUNS)?,
        },
        ("GET", "/v1/ps") => Route::Ps,
        ("GET", "/v1/events") => Route::Events(EventQuery {
            follow: query.flag("follow")?,
            agent: query.take("agent"),
            run: query.run()?,
            verdict: query.verdict()?,
            last: query.number("last", 0, LAST_EVENTS)?,
        }),
        ("GET", "/v1/agents") => Route::Agents,
        ("POST", "/v1/policy/reload") => Route::Reload,
        ("GET", "/v1/status") => Route::Status,
        ("GET", "/v1/doctor") => Route::Doctor,
        (method, path) if path.starts_with("/v1/agents/") => {
            about_an_agent(method, &path["/v1/agents/".len()..], &mut query)?
        }
        ("GET", path) if path.starts_with("/v1/runs/") => Route::Run(run_id(&path[9..])?),
        _ => {
            return Err(Failed::not_found(format!(
                "no endpoint {method} {path}; docs/openapi.yaml lists them"
            )));
        }
    };
    query.finish()?;
    Ok(route)
}

/// `NAME`, `NAME/retire`, `NAME/reinstate`. A name holds no `/`.
fn about_an_agent(method: &str, rest: &str, query: &mut Query<'_>) -> Result<Route, Failed> {
    let (name, what) = rest.split_once('/').unwrap_or((rest, ""));
    let name = name.to_owned();
    match (method, what) {
        ("GET", "") => Ok(Route::Agent {
            name,
            environment: query.take("environment"),
        }),
        ("POST", "retire") => Ok(Route::Decide { name, retire: true }),
        ("POST", "reinstate") => Ok(Route::Decide {
            name,
            retire: false,
        }),
        _ => Err(Failed::not_found(format!(
            "no endpoint {method} /v1/agents/{rest}; docs/openapi.yaml lists them"
        ))),
    }
}

fn run_id(text: &str) -> Result<Uuid, Failed> {
    Uuid::parse_str(text).map_err(|_| {
        Failed::bad_request(format!(
            "`{text}` is not a run id; `agentguard runs list` shows them"
        ))
    })
}

/// Parameters of a query. Values are names, numbers and ids: nothing in them is
/// ever escaped, and an escape is refused rather than misread.
struct Query<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Query<'a> {
    fn parse(query: Option<&'a str>) -> Result<Self, Failed> {
        let mut parameters = BTreeMap::new();
        let pairs = query.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
            if pair.contains(['%', '+']) || parameters.insert(name, value).is_some() {
                return Err(Failed::bad_request(format!(
                    "the parameter `{pair}` is escaped or given twice"
                )));
            }
        }
        Ok(Self(parameters))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).map(str::to_owned)
    }

    fn flag(&mut self, name: &str) -> Result<bool, Failed> {
        match self.0.remove(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Failed::bad_request(format!(
                "`{name}` is true or false, not `{other}`"
            ))),
        }
    }

    fn number(&mut self, name: &str, default: usize, most: usize) -> Result<usize, Failed> {
        let Some(text) = self.0.remove(name) else {
            return Ok(default);
        };
        text.parse()
            .ok()
            .filter(|number| *number <= most)
            .ok_or_else(|| {
                Failed::bad_request(format!("`{name}` is a number up to {most}, not `{text}`"))
            })
    }

    fn run(&mut self) -> Result<Option<Uuid>, Failed> {
        self.0.remove("run").map(run_id).transpose()
    }

    fn verdict(&mut self) -> Result<Option<Verdict>, Failed> {
        let Some(text) = self.0.remove("verdict") else {
            return Ok(None);
        };
        [Verdict::Allow, Verdict::Ask, Verdict::Deny]
            .into_iter()
            .find(|verdict| verdict.name() == text)
            .map(Some)
            .ok_or_else(|| {
                Failed::bad_request(format!("`verdict` is allow, ask or deny, not `{text}`"))
            })
    }

    fn finish(self) -> Result<(), Failed> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Failed::bad_request(format!(
                "this endpoint has no parameter `{name}`"
            ))),
        }
    }
}

/// Reads a JSON body.
pub(super) async fn body<T, B>(body: B) -> Result<T, Failed>
where
    T: DeserializeOwned,
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let bytes = Limited::new(body, BODY_BYTES)
        .collect()
        .await
        .map_err(|error| {
            Failed::bad_request(format!(
                "the body could not be read ({error}); at most {BODY_BYTES} bytes are"
            ))
        })?
        .to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| {
        Failed::new(
            Code::BadRequest,
            format!("the body is not understood: {error}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, query: &str) -> Result<Route, String> {
        route(&Method::GET, path, Some(query)).map_err(|failed| failed.0.error)
    }

    #[test]
    fn queries_are_understood_or_refused() {
        let route = get("/v1/events", "follow=true&verdict=deny&last=5&agent=a").unwrap();
        assert_eq!(
            route,
            Route::Events(EventQuery {
                follow: true,
                agent: Some("a".into()),
                run: None,
                verdict: Some(Verdict::Deny),
                last: 5,
            })
        );
        for (query, message) in [
            (
                "verdict=maybe",
                "`verdict` is allow, ask or deny, not `maybe`",
            ),
            ("last=10001", "`last` is a number up to 10000, not `10001`"),
            ("folow", "this endpoint has no parameter `folow`"),
            (
                "agent=a%20b",
                "the parameter `agent=a%20b` is escaped or given twice",
            ),
            (
                "agent=a&agent=b",
                "the parameter `agent=b` is escaped or given twice",
            ),
            ("follow=1", "`follow` is true or false, not `1`"),
        ] {
            assert_eq!(get("/v1/events", query).unwrap_err(), message);
        }
    }

    #[test]
    fn paths_and_methods() {
        assert!(
            get("/v1/runs/nonsense", "")
                .unwrap_err()
                .contains("is not a run id")
        );
        assert!(
            get("/v1/run", "")
                .unwrap_err()
                .contains("no endpoint GET /v1/run")
        );
        assert!(
            matches!(route(&Method::POST, "/v1/status", None), Err(Failed(failure)) if failure.code == Code::NotFound)
        );
    }
}
