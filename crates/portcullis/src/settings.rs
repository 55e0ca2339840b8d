//! Settings that people have changed while the gateway runs: kept in the state database, and put in the place of the
//! configuration file's wherever a configuration is loaded.
//!
//! Must not judge values; the configuration does, as it does the file's.

use std::path::Path;

use portcullis_config::{Config, ConfigErrors, Loaded, Overridden, Overrides};
use portcullis_store::{Setting, State, StoreError};

use crate::cli::quoted;

/// The configuration as it is in force: the file's, and what was changed while running. What that is, and what of it
/// cannot be used, is among the notes.
///
/// # Errors
/// Everything that is wrong with the file.
pub(crate) fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded, ConfigErrors> {
    let mut loaded = portcullis_config::load(file, overrides)?;
    let problems = match stored(&loaded.config.data) {
        Ok(settings) => put_over(&mut loaded.config, &settings),
        Err(error) => vec![format!("settings that were changed while running cannot be read: {error}")],
    };
    loaded.notes.extend(loaded.config.overridden().iter().map(in_words));
    loaded.notes.extend(problems);
    Ok(loaded)
}

/// What the state database has; nothing where there is none yet.
///
/// # Errors
/// The database cannot be read.
pub(crate) fn stored(data: &Path) -> Result<Vec<Setting>, StoreError> {
    match State::open_read_only(data) {
        Ok(state) => state.settings(),
        Err(StoreError::NoState(_)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Puts them in force, and says of each that cannot be why.
pub(crate) fn put_over(config: &mut Config, settings: &[Setting]) -> Vec<String> {
    let values: Vec<(String, String)> =
        settings.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect();
    let left_out = config.override_with_the_good_of(&values);
    left_out
        .iter()
        .map(|problem| {
            format!(
                "the value that {} was given while running is left out: {}; \"portcullis settings unset {}\" ends this",
                problem.key,
                problem.message,
                quoted(&problem.key)
            )
        })
        .collect()
}

/// `detection.requests_per_hour is 200 since somebody changed it while running; the file says 100`
pub(crate) fn in_words(overridden: &Overridden) -> String {
    let Overridden { setting, value, in_file } = overridden;
    format!(
        "{} = {value} was set while running, in the place of the file's {in_file}; \"portcullis settings\" shows by whom",
        setting.as_str()
    )
}
