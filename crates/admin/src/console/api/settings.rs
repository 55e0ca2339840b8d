//! Settings of the detector that are changed while the gateway runs, and the configuration file.
//! Must not judge values; the configuration does, as it does the file's.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use portcullis_config::{LiveSetting, MAX_SETTING_BYTES, setting_value};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::Caller;
use super::document::Api;
use super::input::{Body, Part};
use super::problem::{FieldError, Kind, Problem};
use super::words::{SettingKey, Time};
use crate::console::actions::settings::{Refused, Standing, change, standing};
use crate::console::error::PageError;
use crate::console::running::chores::Reloaded;
use crate::console::shared::Shared;

pub(super) fn add_to(api: Api) -> Api {
    api.add(__path_list, list)
        .add(__path_set, set)
        .add(__path_unset, unset)
        .add(__path_configuration, configuration)
        .add(__path_reload, reload)
}

/// A setting that can be changed while running.
#[derive(Debug, Serialize, ToSchema)]
struct Setting {
    key: SettingKey,
    /// What it does.
    about: &'static str,
    /// In force, as the file would write it.
    value: String,
    in_file: String,
    /// It does not come from the file.
    is_changed: bool,
    changed_by: Option<String>,
    changed_at: Option<Time>,
}

impl From<Standing> for Setting {
    fn from(standing: Standing) -> Self {
        let is_changed = standing.change.is_some();
        let (changed_by, changed_at) = standing.change.map_or((None, None), |change| (change.by, change.at));
        Self {
            key: SettingKey(standing.setting),
            about: standing.setting.about(),
            value: standing.value,
            in_file: standing.in_file,
            is_changed,
            changed_by,
            changed_at: changed_at.map(Time),
        }
    }
}

/// All settings that can be changed while running.
#[derive(Debug, Serialize, ToSchema)]
struct Settings {
    items: Vec<Setting>,
}

/// Settings that can be changed while running, beside what the file says
#[utoipa::path(get, path = "/settings", tag = "gateway", responses((status = 200, body = Settings)))]
async fn list(State(shared): State<Arc<Shared>>) -> Result<Json<Settings>, Problem> {
    let items = standing(&shared).await?.into_iter().map(Setting::from).collect();
    Ok(Json(Settings { items }))
}

/// A value in the place of the file's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewValue {
    /// As in the file: `200`, `0.5`, `true`, `"1h"`, `["/admin"]`; a text also without its quotes.
    #[schema(max_length = 65536)]
    value: String,
}

/// Change a setting
///
/// In force at once, and over the file until it is taken back.
#[utoipa::path(put, path = "/settings/{key}", tag = "gateway", request_body = NewValue,
    params(("key" = SettingKey, Path, description = "Its name, as in the file")),
    responses((status = 200, body = Setting)))]
async fn set(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    Part(key): Part<SettingKey>,
    Body(asked): Body<NewValue>,
) -> Result<Json<Setting>, Problem> {
    if asked.value.len() > MAX_SETTING_BYTES {
        return Err(Problem::field("value", format!("expected at most {MAX_SETTING_BYTES} bytes")));
    }
    let value = setting_value(&asked.value);
    change(&shared, &caller, key.0, Some(value)).await.map_err(|refused| told(refused, key.0))?;
    now(&shared, key.0).await
}

/// Go back to what the file says
#[utoipa::path(delete, path = "/settings/{key}", tag = "gateway",
    params(("key" = SettingKey, Path, description = "Its name, as in the file")),
    responses((status = 200, body = Setting)))]
async fn unset(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    Part(key): Part<SettingKey>,
) -> Result<Json<Setting>, Problem> {
    if !now(&shared, key.0).await?.is_changed {
        return Err(Problem::not_found(format!("{key} is what the file says already.")));
    }
    change(&shared, &caller, key.0, None).await.map_err(|refused| told(refused, key.0))?;
    now(&shared, key.0).await
}

async fn now(shared: &Arc<Shared>, setting: LiveSetting) -> Result<Json<Setting>, Problem> {
    let all = standing(shared).await?;
    let found = all.into_iter().find(|standing| standing.setting == setting);
    found.map(Setting::from).map(Json).ok_or_else(|| Problem::of(Kind::NotFound))
}

/// A problem with another setting is named by its key.
fn told(refused: Refused, asked: LiveSetting) -> Problem {
    match refused {
        Refused::Failed(error) => error.into(),
        Refused::Wrong(problems) => {
            let each = problems.into_iter().map(|problem| FieldError {
                field: if problem.key == asked.as_str() { "value".to_owned() } else { problem.key },
                message: problem.message,
            });
            Problem::fields(each.collect())
        }
    }
}

/// What became of a reload.
#[derive(Debug, Serialize, ToSchema)]
struct Reload {
    /// Settings, as the file names them, that have changed.
    changed: Vec<&'static str>,
    /// Those of them that wait for the next start.
    waiting: Vec<&'static str>,
}

/// The last reload.
#[derive(Debug, Serialize, ToSchema)]
struct LastReload {
    at: Time,
    changed: Vec<&'static str>,
    waiting: Vec<&'static str>,
    /// Why the old configuration stayed in force.
    problem: Option<String>,
}

/// The configuration file.
#[derive(Debug, Serialize, ToSchema)]
struct Configuration {
    /// None: there is no file.
    file: Option<String>,
    /// None: there was none since the start.
    last_reload: Option<LastReload>,
}

/// Where the configuration is, and what became of its last reload
#[utoipa::path(get, path = "/configuration", tag = "gateway", responses((status = 200, body = Configuration)))]
async fn configuration(State(shared): State<Arc<Shared>>) -> Result<Json<Configuration>, Problem> {
    let (file, last) = shared
        .blocking(|shared| {
            let file = shared.running.config_file().map_err(PageError::Failed)?;
            Ok((file, shared.running.last_reload().map_err(PageError::Failed)?))
        })
        .await?;
    let last_reload = last.map(|(at, reloaded)| {
        let (changed, waiting, problem) = match reloaded {
            Reloaded::Unchanged => (Vec::new(), Vec::new(), None),
            Reloaded::Applied { changed, waiting } => (changed, waiting, None),
            Reloaded::Rejected(why) => (Vec::new(), Vec::new(), Some(why)),
        };
        LastReload { at: Time(at), changed, waiting, problem }
    });
    Ok(Json(Configuration { file: file.map(|file| file.display().to_string()), last_reload }))
}

/// Read the configuration file again
///
/// When it is no good the old configuration stays in force, and every mistake is told.
#[utoipa::path(post, path = "/reload", tag = "gateway", responses(
    (status = 200, body = Reload),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "The file is no good; the old configuration stays in force."),
))]
async fn reload(State(shared): State<Arc<Shared>>) -> Result<Json<Reload>, Problem> {
    let reloaded = shared.blocking(|shared| shared.running.reload().map_err(PageError::Failed)).await?;
    match reloaded {
        Reloaded::Unchanged => Ok(Json(Reload { changed: Vec::new(), waiting: Vec::new() })),
        Reloaded::Applied { changed, waiting } => Ok(Json(Reload { changed, waiting })),
        Reloaded::Rejected(why) => Err(Problem::new(Kind::Conflict, why)),
    }
}
