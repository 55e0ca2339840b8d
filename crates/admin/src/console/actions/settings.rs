//! Settings of the detector: how they stand, and changes of them.
//! Must not judge values; the configuration does, as it does the file's.

use std::sync::Arc;

use portcullis_config::{Config, LiveSetting, SettingProblem};
use portcullis_model::UnixMs;
use portcullis_store::Setting;

use crate::console::error::PageError;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;

use super::{Done, Step};

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
) -> Result<Done, Refused> {
    let key = setting.as_str();
    let stored = shared.state(|state| state.settings()).await?;
    let values: Vec<(String, String)> = stored.into_iter().map(|one| (one.key, one.value)).collect();
    let changed = shared.config().with_change(&values, key, value.as_deref()).map_err(Refused::Wrong)?;
    let before = values.into_iter().find(|(other, _)| other == key).map(|(_, value)| value);
    let after = value.clone();
    shared
        .act(visitor, move |state, author| {
            match value {
                Some(value) => state.set_setting(key, &value, &author.actor, author.now)?,
                None => drop(state.unset_setting(key, &author.actor, author.now)?),
            }
            Ok(())
        })
        .await?;
    shared.blocking(|shared| shared.running.apply_settings().map_err(PageError::Failed)).await?;
    let (is, in_file) = (setting.written(&changed.detection), setting.written(&changed.detection_in_file));
    let text = match after {
        Some(_) => format!("{key} is {is} from now on; the file says {in_file}."),
        None => format!("{key} is {is} from now on, as the file says."),
    };
    let steps = if before == after { Vec::new() } else { vec![Step::Setting { setting, before, after }] };
    Ok(Done::new(text, steps))
}
