//! Blocks and allows: searched, added, imported, exported, lifted.
//! Must not decide about requests.

mod add;
mod check;
mod export;
mod import;
mod list;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use maud::{Markup, html};
use portcullis_model::BlockSource;
use serde::Deserialize;

use crate::console::actions;
use crate::console::error::PageError;
use crate::console::forms::{Change, Fields};
use crate::console::layout::{Tab, page_with};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{address, number};

use add::Draft;

pub(super) use add::{duration_choice, expiry};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/blocks", get(blocks).post(add::block))
        .route("/blocks/users", get(users).post(add::block_user))
        .route("/blocks/ended", get(ended))
        .route("/allows", get(allows).post(add::allow))
        .route("/blocks/lift", post(lift))
        .route("/allows/remove", post(disallow))
        .route("/blocks/check", get(check::check))
        .route("/blocks/import", get(import::ask).post(import::import))
        .route("/blocks/export", get(export::export))
}

/// The lists of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Blocks,
    Users,
    Allows,
    Ended,
}

impl Which {
    const ALL: [Self; 4] = [Self::Blocks, Self::Users, Self::Allows, Self::Ended];

    fn path(self) -> &'static str {
        match self {
            Self::Blocks => "/blocks",
            Self::Users => "/blocks/users",
            Self::Allows => "/allows",
            Self::Ended => "/blocks/ended",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Blocks => "Blocks",
            Self::Users => "Users",
            Self::Allows => "Allows",
            Self::Ended => "Ended",
        }
    }
}

/// What the address says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    q: String,
    source: String,
    before: String,
    /// The key of what was just done.
    done: String,
    /// What to fill the form with.
    network: String,
    user: String,
    reason: String,
}

impl Asked {
    fn source(&self) -> Result<Option<BlockSource>, PageError> {
        let parsed = (!self.source.is_empty()).then(|| self.source.parse()).transpose();
        parsed.map_err(|problem: String| PageError::Invalid(format!("The source of the address: {problem}.")))
    }

    fn before(&self) -> Result<Option<i64>, PageError> {
        let parsed = (!self.before.is_empty()).then(|| self.before.parse()).transpose();
        parsed.map_err(|_| {
            PageError::Invalid("This link to older entries is broken. Begin with the newest.".to_owned())
        })
    }

    /// The address of the list with this search, from the beginning or from a number on.
    fn address(&self, which: Which, before: &str) -> String {
        address(which.path(), &[("q", &self.q), ("source", &self.source), ("before", before)])
    }
}

async fn blocks(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    show(&shared, &visitor, Which::Blocks, &asked, None).await
}

async fn users(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    show(&shared, &visitor, Which::Users, &asked, None).await
}

async fn allows(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    show(&shared, &visitor, Which::Allows, &asked, None).await
}

async fn ended(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    show(&shared, &visitor, Which::Ended, &asked, None).await
}

/// The page; with a draft that was refused, its status says so.
async fn show(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    which: Which,
    asked: &Asked,
    refused: Option<Draft>,
) -> Result<Response, PageError> {
    let (page, standing) = list::read(shared, which, asked).await?;
    let status = if refused.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let draft = refused.unwrap_or_else(|| Draft::suggested(asked));
    let body = html! {
        (shared.notices.show(visitor, &asked.done))
        (tabs(which, [standing.blocks, standing.party_blocks, standing.allows]))
        @if which != Which::Ended && visitor.is_operator() { (add::form(visitor, which, &draft)) }
        (search(which, asked))
        (list::table(visitor, which, &page, asked, shared.now()))
        @match which {
            Which::Blocks => (list::more(asked, visitor)),
            Which::Users | Which::Allows | Which::Ended => {},
        }
    };
    Ok((status, page_with(visitor, Tab::Blocks, "Blocks and allows", &["blocks.js"], body)).into_response())
}

fn tabs(current: Which, counts: [u64; 3]) -> Markup {
    let counts = counts.into_iter().map(Some).chain([None]);
    html! {
        nav aria-label="Lists" {
            ul.tabs {
                @for (which, count) in Which::ALL.into_iter().zip(counts) {
                    li {
                        a href=(which.path()) aria-current=[(which == current).then_some("page")] {
                            (which.label()) @if let Some(count) = count { " (" (number(count)) ")" }
                        }
                    }
                }
            }
        }
    }
}

fn search(which: Which, asked: &Asked) -> Markup {
    html! {
        form.fields action=(which.path()) method="get" role="search" {
            div {
                label for="q" { @if which == Which::Users { "User or reason" } @else { "Address, prefix or reason" } }
                input #q type="search" name="q" value=(asked.q) maxlength="200" autocomplete="off";
            }
            div {
                label for="source" { "From" }
                select #source name="source" {
                    option value="" { "anywhere" }
                    @for source in BlockSource::ALL {
                        option value=(source.as_str()) selected[asked.source == source.as_str()] {
                            (list::source_in_words(source))
                        }
                    }
                }
            }
            div.actions {
                button.quiet { "Search" }
                @if !asked.q.is_empty() || !asked.source.is_empty() { a.button.quiet href=(which.path()) { "All" } }
            }
        }
    }
}

async fn lift(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Vec<(String, String)>>,
) -> Result<Redirect, PageError> {
    let fields = Fields::new(form);
    let network = add::network_if_any(&fields)?;
    let user = fields.text("user").to_owned();
    let chosen = if network.is_some() || !user.is_empty() { Vec::new() } else { fields.chosen()? };
    let done = shared
        .act(&visitor, move |state, author| {
            let mut ids = chosen;
            if let Some(network) = network {
                ids.extend(state.block_of(&network, author.now)?.map(|block| block.id));
                let anonymous = state.block_of_anonymous(network.addr().into(), author.now)?;
                ids.extend(anonymous.filter(|block| add::is_of(block, &network)).map(|block| block.id));
            }
            if !user.is_empty() {
                ids.extend(state.block_of_user(&user, author.now)?.map(|block| block.id));
            }
            actions::lift(state, &ids, author)
        })
        .await?;
    Ok(shared.notices.answer(&visitor, &fields, "/blocks", done))
}

async fn disallow(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Vec<(String, String)>>,
) -> Result<Redirect, PageError> {
    let fields = Fields::new(form);
    let network = add::network_if_any(&fields)?;
    let chosen = if network.is_some() { Vec::new() } else { fields.chosen()? };
    let done = shared
        .act(&visitor, move |state, author| {
            let mut ids = chosen;
            if let Some(network) = network {
                let covering = state.allows_covering(network.addr().into())?.into_iter();
                ids.extend(covering.filter(|allow| allow.network == network).map(|allow| allow.id));
            }
            actions::disallow(state, &ids, author)
        })
        .await?;
    Ok(shared.notices.answer(&visitor, &fields, "/allows", done))
}
