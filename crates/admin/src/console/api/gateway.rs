//! The gateway itself: how its parts are, what it counts.
//! Must not know where that is known.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use portcullis_model::VerdictKind;
use serde::Serialize;
use utoipa::ToSchema;

use super::document::Api;
use super::problem::{Kind, Problem};
use super::words::Verdict;
use crate::console::running::figures::{Counters as Live, Grade, Health as Known, Problem as Wrong};
use crate::console::shared::Shared;

pub(super) fn add_to(api: Api) -> Api {
    api.add(__path_health, health).add(__path_counters, counters)
}

/// How well something is.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum HealthGrade {
    /// Nobody has asked for it.
    Off,
    Good,
    Warning,
    Bad,
}

impl From<Grade> for HealthGrade {
    fn from(grade: Grade) -> Self {
        match grade {
            Grade::Off => Self::Off,
            Grade::Good => Self::Good,
            Grade::Warning => Self::Warning,
            Grade::Bad => Self::Bad,
        }
    }
}

/// What is wrong, and what to do about it.
#[derive(Debug, Serialize, ToSchema)]
struct HealthProblem {
    seen: String,
    remedy: String,
    /// The lines for the configuration, or the command.
    write: Option<String>,
}

impl From<Wrong> for HealthProblem {
    fn from(Wrong { seen, remedy, write }: Wrong) -> Self {
        Self { seen, remedy, write }
    }
}

/// A part of the gateway.
#[derive(Debug, Serialize, ToSchema)]
struct Part {
    part: &'static str,
    /// The worst of its problems.
    grade: HealthGrade,
    /// How it is, in a few words.
    said: String,
    problems: Vec<HealthProblem>,
}

impl From<Known> for Part {
    fn from(Known { part, grade, said, problems }: Known) -> Self {
        let problems = problems.into_iter().map(HealthProblem::from).collect();
        Self { part, grade: grade.into(), said, problems }
    }
}

/// How the gateway is.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Of the worst part.
    grade: HealthGrade,
    parts: Vec<Part>,
}

/// How the parts of the gateway are, and what to do about those that are not well
#[utoipa::path(get, path = "/health", tag = "gateway", responses((status = 200, body = Health)))]
async fn health(State(shared): State<Arc<Shared>>) -> Result<Json<Health>, Problem> {
    let parts = shared.blocking(|shared| Ok(shared.running.health())).await?;
    let worst = parts.iter().map(|part| part.grade).max().unwrap_or(Grade::Good);
    Ok(Json(Health { grade: worst.into(), parts: parts.into_iter().map(Part::from).collect() }))
}

/// Requests that ended with one verdict.
#[derive(Debug, Serialize, ToSchema)]
struct Ended {
    verdict: Verdict,
    requests: u64,
}

/// What is counted since the start.
#[derive(Debug, Serialize, ToSchema)]
struct Counters {
    requests: Vec<Ended>,
    /// Connections from clients that are open.
    connections: u64,
    /// Blocks in force.
    blocks: u64,
}

impl From<Live> for Counters {
    fn from(live: Live) -> Self {
        let ended = VerdictKind::ALL.into_iter().zip(live.verdicts);
        Self {
            requests: ended
                .map(|(verdict, requests)| Ended { verdict: Verdict(verdict), requests })
                .collect(),
            connections: live.connections,
            blocks: live.blocks,
        }
    }
}

/// What the gateway counts
#[utoipa::path(get, path = "/counters", tag = "gateway", responses((status = 200, body = Counters)))]
async fn counters(State(shared): State<Arc<Shared>>) -> Result<Json<Counters>, Problem> {
    let live = shared.running.counters();
    live.map(|live| Json(live.into())).ok_or_else(|| Problem::new(Kind::Busy, "The gateway is ending."))
}
