//! The figures of this second, and the stream that keeps them so.
//! Must not read databases: there is an event each second.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use axum::response::sse::Event;
use maud::{Markup, html};
use portcullis_model::VerdictKind;
use serde::Serialize;

use crate::console::error::PageError;
use crate::console::running::figures::Counters;
use crate::console::shared::Shared;
use crate::console::streams;
use crate::console::visitor::Visitor;

/// One figure of the panel: the name in an event, the words, and the colour of its share.
const FIGURES: [(&str, &str); 7] = [
    ("requests", "requests/s"),
    ("served", "served/s"),
    ("blocked", "blocked/s"),
    ("limited", "limited/s"),
    ("malformed", "malformed/s"),
    ("connections", "connections"),
    ("blocks", "blocks in force"),
];

/// What an event says: rates since the one before, and how it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Live {
    requests: f64,
    /// Sent on to the site, those that a dry run would have refused included.
    served: f64,
    blocked: f64,
    limited: f64,
    malformed: f64,
    connections: u64,
    blocks: u64,
}

impl Live {
    fn between(before: &Counters, now: &Counters, seconds: f64) -> Self {
        let rate = |wanted: &dyn Fn(VerdictKind) -> bool| {
            let of = |counters: &Counters| -> u64 {
                let kinds = VerdictKind::ALL.into_iter().filter(|kind| wanted(*kind));
                kinds.map(|kind| counters.verdicts[kind.index()]).sum()
            };
            // One digit after the point is all that is shown.
            (of(now).saturating_sub(of(before)) as f64 / seconds.max(0.001) * 10.0).round() / 10.0
        };
        Self {
            requests: rate(&|_| true),
            served: rate(&|kind| !kind.is_refusal()),
            blocked: rate(&|kind| kind == VerdictKind::Blocked),
            limited: rate(&|kind| kind == VerdictKind::Limited),
            malformed: rate(&|kind| kind == VerdictKind::Malformed),
            connections: now.connections,
            blocks: now.blocks,
        }
    }
}

/// Empty until the first event; without script it says how to get newer figures, which nobody else sees even for a moment.
pub(super) fn panel() -> Markup {
    html! {
        section.card.live aria-labelledby="live" data-live="/live" {
            div.live-head {
                h2 #live { "Now" }
                span.dim data-live-state role="status" { noscript { "Load the page again for newer figures." } }
                button.quiet.scripted type="button" data-live-pause { "Pause" }
            }
            dl.live-figures {
                @for (name, words) in FIGURES {
                    div { dt { (words) } dd.figure data-live-figure=(name) { "–" } }
                }
            }
            svg.spark viewBox="0 0 60 20" preserveAspectRatio="none" aria-hidden="true" data-live-spark {}
        }
    }
}

#[derive(Clone)]
struct Watched {
    shared: Arc<Shared>,
    last: Option<(Instant, Counters)>,
}

pub(super) async fn live(State(shared): State<Arc<Shared>>, _: Visitor) -> Result<Response, PageError> {
    let streams = Arc::clone(&shared.streams);
    streams::tell(&streams, Watched { shared, last: None }, async |watched: Watched| look(watched))
}

fn look(watched: Watched) -> (Option<Event>, Watched) {
    let Some(now) = watched.shared.running.counters() else { return (None, watched) };
    let at = Instant::now();
    let event = watched.last.and_then(|(before, counters)| {
        let live = Live::between(&counters, &now, at.duration_since(before).as_secs_f64());
        Event::default().event("figures").json_data(live).ok()
    });
    (event, Watched { last: Some((at, now)), ..watched })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_was_added_in_the_time_between() {
        let before = Counters { verdicts: [100, 0, 10, 5, 0, 0, 1], connections: 3, blocks: 7 };
        let now = Counters { verdicts: [150, 2, 20, 5, 4, 0, 2], connections: 4, blocks: 8 };
        let live = Live::between(&before, &now, 2.0);
        let want = Live {
            requests: 33.5,
            served: 28.0,
            blocked: 5.0,
            limited: 0.0,
            malformed: 0.5,
            connections: 4,
            blocks: 8,
        };
        assert_eq!(live, want);
        assert_eq!(Live::between(&now, &before, 1.0).requests, 0.0, "counters that began anew");
    }
}
