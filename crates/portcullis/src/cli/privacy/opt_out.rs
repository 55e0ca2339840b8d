//! `portcullis privacy opt-out` and `opt-outs`: who is not to be logged by name.
//! Must not write down who that is: a keyed hash is enough to recognise them.

use clap::Args;
use portcullis_store::State;
use serde_json::json;

use super::super::context::{Context, actor, open_state};
use super::super::output::{Align, Cell, Screen, Table, tell};
use super::super::{Format, Outcome};
use super::subject::Whose;
use crate::privacy::{digest_of_client, digest_of_user, lasting};

const EXAMPLES: &str = "\
Examples:
  portcullis privacy opt-out 203.0.113.9
  portcullis privacy opt-out alice@example.com
  portcullis privacy opt-out 203.0.113.9 --undo

Requests from then on are logged without user, query, referrer and user agent, and
with a pseudonym in the place of the address; an IPv6 address stands for its /64.
Rules, limits and blocks hold as before. What was logged before stays: \"privacy
erase\" takes it out. Kept is a hash under DATA/privacy.key.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct OptOut {
    #[command(flatten)]
    whose: Whose,

    /// Take the opt-out back
    #[arg(long)]
    undo: bool,

    #[command(flatten)]
    format: Format,
}

impl OptOut {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let data = context.config()?.data;
        let mut state = State::open_or_create(&data)?;
        let key = lasting::read_or_make(&data)?;
        let (digest, kind) = match self.whose.client() {
            Some(client) => (digest_of_client(&key, client), "address"),
            None => (digest_of_user(&key, &self.whose.text()), "user"),
        };
        let has_changed = match self.undo {
            true => state.opt_in(&digest, &actor(), context.now)?,
            false => state.opt_out(&digest, kind, &actor(), context.now)?,
        };
        let outcome = if has_changed { Outcome::Done } else { Outcome::Nothing };
        if self.format.json {
            screen.json(
                &json!({ "kind": kind, "digest": digest, "opted_out": !self.undo, "changed": has_changed }),
            )?;
            return Ok(outcome);
        }
        let who = self.whose.text();
        match (self.undo, has_changed) {
            (false, true) => {
                screen.line(&format!("{who} has opted out. In force at once if the gateway is running."))?;
                let undo = super::super::context::quoted(&who);
                screen
                    .line(&format!("Undo: {}", context.command(&format!("privacy opt-out {undo} --undo"))))?;
            }
            (true, true) => screen.line(&format!("{who} is logged by name again."))?,
            (false, false) => tell("", &format!("{who} had opted out already, or a million others have.")),
            (true, false) => tell("", &format!("{who} had not opted out.")),
        }
        Ok(outcome)
    }
}

const LIST_EXAMPLES: &str = "\
Examples:
  portcullis privacy opt-outs --json";

#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(super) struct OptOuts {
    #[command(flatten)]
    format: Format,
}

impl OptOuts {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let opt_outs = match open_state(&context.config()?.data)? {
            Some(state) => state.opt_outs()?,
            None => Vec::new(),
        };
        if self.format.json {
            screen.json(&opt_outs)?;
            return Ok(Outcome::Done);
        }
        if opt_outs.is_empty() {
            screen.line("Nobody has opted out.")?;
            return Ok(Outcome::Done);
        }
        let mut table = Table::new(&[("hash", Align::Left), ("kind", Align::Left), ("since", Align::Left)]);
        for opt_out in opt_outs {
            table.row(vec![
                Cell::new(&opt_out.digest),
                Cell::new(&opt_out.kind),
                Cell::new(context.short_time(opt_out.created_at)),
            ]);
        }
        screen.table(&mut table)?;
        Ok(Outcome::Done)
    }
}
