//! Answers: JSON documents, and failures with their kind.

use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use super::authority::Refused;
use super::body::Body;
use crate::api::{Code, Failure};
use crate::engine::{LaunchError, LifeError, LoadError, Stopped};
use crate::files::FileError;
use crate::kernel::KernelError;

/// What a handler gives.
pub(super) type Answer = Result<Response<Body>, Failed>;

/// A failure to be told.
#[derive(Debug)]
pub(super) struct Failed(pub Failure);

impl Failed {
    pub fn new(code: Code, error: impl Into<String>) -> Self {
        Self(Failure {
            code,
            error: error.into(),
            problems: Vec::new(),
        })
    }

    pub fn bad_request(error: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, error)
    }

    pub fn not_found(error: impl Into<String>) -> Self {
        Self::new(Code::NotFound, error)
    }

    pub fn into_response(self) -> Response<Body> {
        let code = self.0.code.http();
        let mut response = document(&self.0);
        *response.status_mut() =
            hyper::StatusCode::from_u16(code).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
        response
    }
}

/// A JSON document.
pub(super) fn json(value: &impl Serialize) -> Answer {
    Ok(document(value))
}

fn document(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            with_type(Body::whole(text), "application/json")
        }
        // The documents are made of strings and numbers: this cannot happen.
        Err(error) => {
            let mut response = with_type(Body::whole(error.to_string()), "text/plain");
            *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

pub(super) fn with_type(body: Body, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

impl From<Stopped> for Failed {
    fn from(stopped: Stopped) -> Self {
        Self::new(Code::Unavailable, stopped.to_string())
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::new(Code::Refused, refused.to_string())
    }
}

impl From<FileError> for Failed {
    fn from(error: FileError) -> Self {
        Self::new(Code::Failed, error.to_string())
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::Failed, error.to_string())
    }
}

impl From<tokio::task::JoinError> for Failed {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::new(
            Code::Failed,
            format!("a worker of the daemon ended early: {error}"),
        )
    }
}

impl From<KernelError> for Failed {
    fn from(error: KernelError) -> Self {
        let code = match error {
            KernelError::Limit { .. } => Code::Unavailable,
            KernelError::Enrol { .. } => Code::Conflict,
            KernelError::Failed { .. } => Code::Failed,
        };
        Self::new(code, error.to_string())
    }
}

impl From<LaunchError> for Failed {
    fn from(error: LaunchError) -> Self {
        let code = match &error {
            LaunchError::NoAgent { .. } => Code::NotFound,
            LaunchError::Ambiguous { .. } => Code::Conflict,
            LaunchError::Refused(_) => Code::Refused,
            LaunchError::Invalid(_) => Code::BadRequest,
            LaunchError::Record(_) | LaunchError::Random(_) | LaunchError::Files(_) => Code::Failed,
            LaunchError::Kernel(_) => {
                let LaunchError::Kernel(error) = error else {
                    return Self::new(Code::Failed, error.to_string());
                };
                return error.into();
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<LifeError> for Failed {
    fn from(error: LifeError) -> Self {
        let code = match &error {
            LifeError::NoAgent(_) => Code::NotFound,
            LifeError::Ambiguous { .. } | LifeError::Already(_) => Code::Conflict,
            LifeError::Load { .. } => Code::PolicyProblems,
            LifeError::Stopped(_) => Code::Unavailable,
            LifeError::Registry(_) | LifeError::Worker(_) => Code::Failed,
        };
        Self::new(code, error.to_string())
    }
}

impl From<LoadError> for Failed {
    fn from(error: LoadError) -> Self {
        let code = match &error {
            LoadError::Manifests { .. } | LoadError::Protections { .. } => Code::PolicyProblems,
            LoadError::Stopped(_) => Code::Unavailable,
            _ => Code::Failed,
        };
        let problems = error.problems();
        let summary = match problems.len() {
            1 => "1 problem".to_owned(),
            many => format!("{many} problems"),
        };
        Self(Failure {
            code,
            error: format!("the policy was not loaded ({summary}); the one in force stays"),
            problems,
        })
    }
}
