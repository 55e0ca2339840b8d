//! What the console asks of the running gateway, answered: a file for each part.
//!
//! Owns the way from the console to the gateway. Must not know about pages.

mod chores;
mod clients;
mod figures;
mod knowledge;
mod limits;
mod links;
mod settings;
mod sources;
mod stories;

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::app::{App, wall_now};
use crate::cli::Context;
use crate::detection::Control;

use limits::Question;

pub(crate) use links::{first_link, link};

/// The gateway, as long as it runs: the console must not keep it from ending.
pub(crate) struct Backend {
    app: Weak<App>,
    /// Ends what was begun from the console.
    control: Arc<Control>,
    question: Mutex<Option<Question>>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.control.stop();
        if let Some(question) = &*self.question.lock() {
            question.cancel();
        }
    }
}

impl Backend {
    pub(crate) fn new(app: &Arc<App>) -> Self {
        let control = Arc::new(Control::of(app.recording(), app.bots()));
        Self { app: Arc::downgrade(app), control, question: Mutex::default() }
    }

    fn app(&self) -> Result<Arc<App>, String> {
        self.app.upgrade().ok_or_else(|| "The gateway is ending; load the page again in a moment.".to_owned())
    }

    /// What commands about this gateway are written with.
    fn context(app: &App) -> Context {
        Context::of_gateway(app.source(), app.named_data(), wall_now())
    }
}
