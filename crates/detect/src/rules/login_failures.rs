//! `login_failures`: passwords being guessed. Counts refused logins, attempts that the gateway's own limit
//! stopped, and forms that come back again and again with 200.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit};
use crate::client::{Client, Login, SampleKind};

/// Forms shown again: this many are odd, twice as many with nothing else are guessing.
const QUIET_FOR_MEDIUM: u32 = 20;
const QUIET_FOR_HIGH: u32 = 40;
/// Forms and nothing else: this many are odd, and so many guessing.
const QUIET_ALONE: u32 = 2;
const QUIET_ALONE_FOR_HIGH: u32 = 20;
/// Forms that were sent without one ever having been asked for: this many are odd.
const QUIET_UNSEEN: u32 = 3;
/// XML-RPC in the name of a browser: this many are odd.
const MASKED_CALLS: u32 = 3;
/// User agents that take turns at sending logins and do little else: this many are odd.
const TURNS: usize = 3;
/// Of all requests, the share that a guessing program spends on logins at least.
const GUESSING_SHARE: f64 = 0.8;
/// Who got in at last, or uses a browser, may have mistyped up to this many times the threshold.
const PATIENCE: u32 = 2;
const PERSON_NO_REFERER_SHARE: f64 = 0.5;

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let login = client.login.as_deref()?;
    let all = login.failures.saturating_add(login.limited);
    let neighbours = context.neighbours;
    // Failures that came with a user agent of none of the users here are nobody's typing errors.
    let is_strange = neighbours.users > 0 && neighbours.strange_logins >= context.settings.login_failures;
    let (failed, threshold) = match is_strange {
        true => (neighbours.strange_logins, context.settings.login_failures),
        false => (all, neighbours.raise_for_logins(context.settings.login_failures)),
    };
    let (severity, says) = if failed >= threshold {
        let is_doubtful = !is_strange
            && failed < threshold.saturating_mul(PATIENCE)
            && (login.redirected + login.quiet > 0 || looks_like_a_person(client));
        (
            if is_doubtful { Severity::Medium } else { Severity::High },
            format!(
                "failed {failed} of {} logins ({} refused by the site, {} stopped by a limit)",
                login.attempts, login.failures, login.limited
            ),
        )
    } else if login.redirected == 0
        && (login.quiet >= QUIET_FOR_MEDIUM || is_slow_guessing(client, login) || is_masked(client, login))
    {
        (
            if is_guessing(client, login) { Severity::High } else { Severity::Medium },
            format!("sent {} logins that were answered with a page, and never got in", login.quiet),
        )
    } else {
        return None;
    };
    Some(Hit {
        severity,
        says,
        evidence: json!({
            "attempts": login.attempts,
            "refused_by_site": login.failures,
            "stopped_by_limit": login.limited,
            "redirected": login.redirected,
            "answered_with_a_page": login.quiet,
            "threshold": threshold,
            "with_a_strange_user_agent": is_strange.then_some(neighbours.strange_logins),
        }),
        samples: Some(SampleKind::Login),
    })
}

/// A browser fetches style sheets and names the page that holds the form.
fn looks_like_a_person(client: &Client) -> bool {
    client.assets > 0 && client.no_referer_share() < PERSON_NO_REFERER_SHARE
}

/// Nearly everything it does is sending login forms.
fn is_guessing(client: &Client, login: &Login) -> bool {
    let forms = login.quiet - login.quiet_api;
    let nearly_all = f64::from(forms) >= GUESSING_SHARE * f64::from(client.pages());
    forms >= QUIET_FOR_HIGH && nearly_all || forms >= QUIET_ALONE_FOR_HIGH && is_slow_guessing(client, login)
}

/// Few forms from this address, as when many addresses share the guessing, but nothing besides: a person's
/// browser would have fetched style sheets, named the page that holds the form, and asked for that page first.
fn is_slow_guessing(client: &Client, login: &Login) -> bool {
    let forms = login.quiet - login.quiet_api - login.quiet_programs;
    let others = client.pages().saturating_sub(login.attempts);
    let names_no_page = client.without_referer == client.requests && forms >= QUIET_ALONE && others <= forms;
    let saw_no_form = forms >= QUIET_UNSEEN && others == 0;
    client.assets == 0 && (names_no_page || saw_no_form)
}

/// Guessing in a name that is none: a browser that speaks XML-RPC, or browsers that take turns at one login.
fn is_masked(client: &Client, login: &Login) -> bool {
    let forms = login.quiet - login.quiet_api;
    let calls = login.masked_calls;
    let others = client.pages().saturating_sub(login.attempts);
    let is_bare = client.assets == 0 && others <= forms + calls;
    let tries_both_doors = forms >= 1 && calls >= 1;
    let takes_turns = client.agents() >= TURNS && forms + calls >= TURNS as u32;
    is_bare && (tries_both_doors || takes_turns || calls >= MASKED_CALLS)
}
