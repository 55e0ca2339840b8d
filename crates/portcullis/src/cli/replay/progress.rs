//! How far a replay is, on a terminal. Must not write anything elsewhere.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two looks at the clock.
const EVERY: Duration = Duration::from_millis(100);
const BAR: &str = "{prefix:9} {bar:24} {percent:>3} %  {msg}  {eta} left";
const SPINNER: &str = "{prefix:9} {spinner}  {msg}";

/// A line at the bottom of the terminal.
pub(super) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// `total`: the bytes of one reading; `None` when that is not known.
    pub(super) fn new(total: Option<u64>) -> Self {
        if !io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden() };
        }
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total), BAR),
            None => (ProgressBar::no_length(), SPINNER),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr());
        // The templates are constants; without one there is the library's own.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }

    /// Begins a reading; what is returned is to be told requests and bytes. `requests`: how many there are, if that is
    /// known already: reading is ahead of judging, so bytes say less.
    pub(super) fn step(&mut self, name: &'static str, requests: Option<u64>) -> impl FnMut(u64, u64) {
        self.bar.reset();
        self.bar.set_prefix(name);
        if let Some(requests) = requests {
            self.bar.set_length(requests);
        }
        let is_by_requests = requests.is_some();
        let bar = self.bar.clone();
        let started = Instant::now();
        let mut shown = started;
        move |requests, bytes| {
            if bar.is_hidden() || shown.elapsed() < EVERY {
                return;
            }
            shown = Instant::now();
            let rate = requests as f64 / started.elapsed().as_secs_f64().max(0.001);
            bar.set_message(format!("{} requests, {}/s", HumanCount(requests), HumanCount(rate as u64)));
            bar.set_position(if is_by_requests { requests } else { bytes });
        }
    }

    /// Leaves nothing behind.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
