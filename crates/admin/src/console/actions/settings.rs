//! Settings of the detector: how they stand, and changes of them.
//! Must not judge values; the configuration does, as it does the file's.

use std::sync::Arc;

use portcullis_config::{Config, LiveSetting, SettingProblem};
use portcullis_model::UnixMs;
use portcullis_store::Setting;

use crate::console::error::PageError;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;

/// A setting as it is now.
#[derive(Clone, Debug)]
pub(in crate::console) struct Standing {
    pub(in crate::console) setting: LiveSetting,
    /// In force, as the file would write it.
    pub(in crate::console) value: String,
    pub(in crate::console) in_file: String,
    pub(in crate::console) change: Option<Changed>,
}

/// The change that a value in force comes from.
#[derive(Clone, Debug)]
pub(in crate::console) struct Changed {
    pub(in crate::console) by: Option<String>,
    pub(in crate::console) at: Option<UnixMs>,
}

/// Why a setting was not changed.
#[derive(Debug)]
pub(in crate::console) enum Refused {
    /// The value is no good, or does not fit the others.
    Wrong(Vec<SettingProblem>),
    Failed(PageError),
}

impl From<PageError> for Refused {
    fn from(error: PageError) -> Self {
        Self::Failed(error)
    }
}

/// All settings that can be changed while running.
pub(in crate::console) async fn standing(shared: &Arc<Shared>) -> Result<Vec<Standing>, PageError> {
    let config = shared.config();
    let stored = shared.state(|state| state.settings()).await?;
    Ok(LiveSetting::ALL.into_iter().map(|setting| of(setting, &config, &stored)).collect())
}

fn of(setting: LiveSetting, config: &Config, stored: &[Setting]) -> Standing {
    let is_changed = config.overridden.contains(&setting);
    let stored = stored.iter().find(|stored| stored.key == setting.as_str());
    Standing {
        setting,
        value: setting.written(&config.detection),
        in_file: setting.written(&config.detection_in_file),
        change: is_changed.then(|| Changed {
            by: stored.and_then(|stored| stored.changed_by.clone()),
            at: stored.and_then(|stored| stored.changed_at),
        }),
    }
}

/// Puts a value, written as in the file, in the place of the file's; `None` goes back to that. In force when this
/// returns.
pub(in crate::console) async fn change(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    setting: LiveSetting,
    value: Option<String>,
) -> Result<(), Refused> {
    let config = shared.config();
    let stored = shared.state(|state| state.settings()).await?;
    let before: Vec<(String, String)> = stored.into_iter().map(|one| (one.key, one.value)).collect();
    config.with_change(&before, setting.as_str(), value.as_deref()).map_err(Refused::Wrong)?;
    let (actor, now) = (visitor.actor(), shared.now());
    shared
        .change(visitor, move |state| match value {
            Some(value) => state.set_setting(setting.as_str(), &value, &actor, now),
            None => state.unset_setting(setting.as_str(), &actor, now).map(drop),
        })
        .await?;
    shared.blocking(|shared| shared.running.apply_settings().map_err(PageError::Failed)).await?;
    Ok(())
}
