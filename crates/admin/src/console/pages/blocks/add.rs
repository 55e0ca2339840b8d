//! A block or an allow that somebody asks for: the form, what is wrong with it, what speaks against it.
//! Must not add what was objected to and not insisted on.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use ipnet::IpNet;
use jiff::tz::TimeZone;
use maud::{Markup, html};
use portcullis_config::Expiry;
use portcullis_model::{Party, PartyBlock, UnixMs, bare, network_of, reason_of, user_of};

use super::{Asked, Which, show};
use crate::console::actions::{self, Entry, Whom};
use crate::console::error::PageError;
use crate::console::forms::{Change, Fields};
use crate::console::layout::form_token;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;

/// How long a block may last, as it is asked for and as it is called.
const DURATIONS: [(&str, &str); 5] = [
    ("+1h", "1 hour"),
    ("+24h", "24 hours"),
    ("+7d", "7 days"),
    ("+30d", "30 days"),
    ("never", "without end"),
];
const USUAL: &str = "+24h";

/// What was typed, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    whom: String,
    reason: String,
    expires: String,
    until: String,
    wrong: Vec<(Part, String)>,
    /// What speaks against it, when nothing is wrong with it.
    objections: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whom,
    Reason,
    Until,
}

impl Draft {
    /// What a link suggests.
    pub(super) fn suggested(asked: &Asked) -> Self {
        let whom = if asked.user.is_empty() { &asked.network } else { &asked.user };
        Self { whom: whom.clone(), reason: asked.reason.clone(), ..Self::default() }
    }

    fn of(fields: &Fields, whom: &str) -> Self {
        Self {
            whom: fields.text(whom).to_owned(),
            reason: fields.text("reason").to_owned(),
            expires: fields.text("expires").to_owned(),
            until: fields.text("until").to_owned(),
            ..Self::default()
        }
    }

    /// The value, or what is wrong with it beside its field.
    fn check<T>(&mut self, part: Part, checked: Result<T, String>) -> Option<T> {
        checked.map_err(|problem| self.wrong.push((part, problem))).ok()
    }

    fn problem(&self, part: Part) -> Option<&str> {
        self.wrong.iter().find(|(of, _)| *of == part).map(|(_, problem)| problem.as_str())
    }

    /// Reason and end, when nothing is wrong with them.
    fn reason_and_end(&mut self, now: UnixMs) -> Option<(String, Option<UnixMs>)> {
        let reason = self.check(Part::Reason, reason_of(&self.reason));
        let end = self.check(Part::Until, expiry(&self.expires, &self.until, now));
        Some((reason?, end?))
    }
}

/// When a block ends: what was typed, or else what was chosen. Days begin in UTC.
pub(in crate::console::pages) fn expiry(
    chosen: &str,
    typed: &str,
    now: UnixMs,
) -> Result<Option<UnixMs>, String> {
    let text = match (typed, chosen) {
        ("", "") => USUAL,
        ("", chosen) => chosen,
        (typed, _) => typed,
    };
    text.parse::<Expiry>()?.resolve(now, &TimeZone::UTC)
}

/// The choice of how long; its label is the caller's.
pub(in crate::console::pages) fn duration_choice(id: &str, chosen: &str) -> Markup {
    let chosen = if chosen.is_empty() { USUAL } else { chosen };
    html! {
        select #(id) name="expires" {
            @for (value, word) in DURATIONS { option value=(value) selected[value == chosen] { (word) } }
        }
    }
}

/// The network that a form names instead of numbers.
pub(super) fn network_if_any(fields: &Fields) -> Result<Option<IpNet>, PageError> {
    match fields.text("network") {
        "" => Ok(None),
        text => network_of(text)
            .map(Some)
            .map_err(|problem| PageError::Invalid(format!("The network: {problem}."))),
    }
}

pub(super) fn is_of(block: &PartyBlock, network: &IpNet) -> bool {
    matches!(&block.party, Party::Anonymous { network: of, .. } if of == network)
}

pub(super) async fn block(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let fields = Fields::new(form);
    let mut draft = Draft::of(&fields, "network");
    let network = draft.check(Part::Whom, network_of(&draft.whom));
    let rest = draft.reason_and_end(shared.now());
    let (Some(network), Some((reason, expires_at))) = (network, rest) else {
        return show(&shared, &visitor, Which::Blocks, &Asked::default(), Some(draft)).await;
    };
    if !fields.is_ticked("force") {
        draft.objections = objections(&shared, &visitor, network).await?;
        if !draft.objections.is_empty() {
            return show(&shared, &visitor, Which::Blocks, &Asked::default(), Some(draft)).await;
        }
    }
    let config = shared.config();
    let entry = Entry { whom: Whom::Network(network), reason, expires_at, finding: None };
    let done = shared
        .act(&visitor, move |state, author| {
            let remarks = actions::remarks(state, &network, &config)?;
            let (_, mut done) = actions::block(state, entry, author)?;
            for remark in remarks {
                done.text.push(' ');
                done.text.push_str(&remark);
            }
            Ok(done)
        })
        .await?;
    Ok(shared.notices.answer(&visitor, &fields, "/blocks", done).into_response())
}

/// What speaks against a block of the network.
pub(super) async fn objections(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    network: IpNet,
) -> Result<Vec<String>, PageError> {
    let from = visitor.from;
    shared.blocking(move |shared| Ok(shared.running.objections(&network, from))).await
}

pub(super) async fn block_user(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let fields = Fields::new(form);
    let mut draft = Draft::of(&fields, "user");
    let user = draft.check(Part::Whom, user_of(&draft.whom));
    let rest = draft.reason_and_end(shared.now());
    let (Some(user), Some((reason, expires_at))) = (user, rest) else {
        return show(&shared, &visitor, Which::Users, &Asked::default(), Some(draft)).await;
    };
    let entry = Entry { whom: Whom::User(user), reason, expires_at, finding: None };
    let (_, done) = shared.act(&visitor, move |state, author| actions::block(state, entry, author)).await?;
    Ok(shared.notices.answer(&visitor, &fields, "/blocks/users", done).into_response())
}

pub(super) async fn allow(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let fields = Fields::new(form);
    let mut draft = Draft::of(&fields, "network");
    let network = draft.check(Part::Whom, network_of(&draft.whom));
    let reason = draft.check(Part::Reason, reason_of(&draft.reason));
    let (Some(network), Some(reason)) = (network, reason) else {
        return show(&shared, &visitor, Which::Allows, &Asked::default(), Some(draft)).await;
    };
    if network.prefix_len() == 0 && !fields.is_ticked("force") {
        draft.objections =
            vec!["it covers every address: no block and no limit would have an effect any more".to_owned()];
        return show(&shared, &visitor, Which::Allows, &Asked::default(), Some(draft)).await;
    }
    let (_, done) =
        shared.act(&visitor, move |state, author| actions::allow(state, network, &reason, author)).await?;
    Ok(shared.notices.answer(&visitor, &fields, "/allows", done).into_response())
}

/// What the form of a list is about.
struct Labels {
    heading: &'static str,
    whom: &'static str,
    name: &'static str,
    example: &'static str,
    button: &'static str,
}

fn labels(which: Which) -> Labels {
    match which {
        Which::Allows => Labels {
            heading: "Allow an address",
            whom: "Address or prefix",
            name: "network",
            example: "198.51.100.7 or 2001:db8::/48",
            button: "Allow",
        },
        Which::Users => Labels {
            heading: "Block a user",
            whom: "User, as the log names it",
            name: "user",
            example: "mallory",
            button: "Block",
        },
        Which::Blocks | Which::Ended => Labels {
            heading: "Block an address",
            whom: "Address or prefix",
            name: "network",
            example: "203.0.113.9 or 203.0.113.0/24",
            button: "Block",
        },
    }
}

pub(super) fn form(visitor: &Visitor, which: Which, draft: &Draft) -> Markup {
    let labels = labels(which);
    let checks = (which == Which::Blocks).then_some("/blocks/check");
    html! {
        section.card aria-labelledby="add" {
            h2 #add { (labels.heading) }
            form action=(which.path()) method="post" data-check=[checks] {
                (form_token(visitor))
                div.fields {
                    (field(draft, Part::Whom, labels.whom, html! {
                        input.mono #whom name=(labels.name) value=(draft.whom) required maxlength="200"
                            placeholder=(labels.example) autocomplete="off" spellcheck="false"
                            aria-invalid=[draft.problem(Part::Whom).map(|_| "true")] aria-describedby="whom-problem check";
                    }))
                    (field(draft, Part::Reason, "Reason", html! {
                        input #reason name="reason" value=(draft.reason) maxlength="1000" autocomplete="off"
                            aria-invalid=[draft.problem(Part::Reason).map(|_| "true")] aria-describedby="reason-problem";
                    }))
                    @if which != Which::Allows {
                        div { label for="expires" { "For how long" } (duration_choice("expires", &draft.expires)) }
                        (field(draft, Part::Until, "Or until", html! {
                            input #until name="until" value=(draft.until) maxlength="40" autocomplete="off"
                                placeholder="2026-12-31 or +12h (UTC)"
                                aria-invalid=[draft.problem(Part::Until).map(|_| "true")]
                                aria-describedby="until-problem";
                        }))
                    }
                    div { button { (labels.button) } }
                }
                div #check role="status" {}
                @if !draft.objections.is_empty() { (insist(draft)) }
            }
        }
    }
}

fn field(draft: &Draft, part: Part, label: &str, input: Markup) -> Markup {
    let id = match part {
        Part::Whom => "whom",
        Part::Reason => "reason",
        Part::Until => "until",
    };
    html! {
        div {
            label for=(id) { (label) }
            (input)
            p.field-error #(format!("{id}-problem")) hidden[draft.problem(part).is_none()] {
                (draft.problem(part).unwrap_or(""))
            }
        }
    }
}

/// What speaks against it, and a box to insist.
fn insist(draft: &Draft) -> Markup {
    let name = network_of(&draft.whom).map_or_else(|_| draft.whom.clone(), |network| bare(&network));
    html! {
        div.notice.warning role="alert" {
            div {
                p { "Nothing was changed yet. What speaks against " code { (name) } ":" }
                ul { @for objection in &draft.objections { li { (objection) } } }
                label.choice { input type="checkbox" name="force" value="yes"; " Do it all the same" }
            }
            button.danger { "Go on" }
        }
    }
}
