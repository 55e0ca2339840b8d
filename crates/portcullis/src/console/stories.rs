//! Decisions and findings in words.
//! Must not know about pages.

use portcullis_admin::running::stories::{Advice, FindingStory, Passage, Stories, Story, Told};
use portcullis_model::RequestId;
use portcullis_store::LogRow;

use crate::cli::{Context, explained, why};
use crate::sentence::sentence;

use super::Backend;

impl Stories for Backend {
    fn finding(&self, id: i64) -> Result<Option<FindingStory>, String> {
        let app = self.app()?;
        explained::explain(id, &app.config(), &Self::context(&app)).map_err(|error| sentence(&error))
    }

    fn decision(&self, id: RequestId) -> Result<Told, String> {
        let app = self.app()?;
        let context = Self::context(&app);
        match why::find(id, &app.config(), &context).map_err(|error| sentence(&error))? {
            why::Found::Nothing(why) => Ok(Told::Nowhere(why)),
            why::Found::Decision(found) => {
                let why::Explanation { request, outcome, because, evidence, lasts, now, advice } = *found;
                let Rests { passages, counted, block, finding } = rests(evidence, &context);
                Ok(Told::Story(Box::new(Story {
                    request,
                    outcome,
                    because,
                    evidence: passages,
                    counted,
                    block,
                    finding,
                    lasts,
                    now,
                    advice: advice.into_iter().map(told).collect(),
                })))
            }
        }
    }
}

fn told(advice: why::Advice) -> Advice {
    let why::Advice { to, command, remedy } = advice;
    Advice { to, command, remedy }
}

/// What a decision rests on.
#[derive(Default)]
struct Rests {
    passages: Vec<Passage>,
    counted: Vec<LogRow>,
    block: Option<i64>,
    finding: Option<i64>,
}

fn rests(evidence: why::Evidence, context: &Context) -> Rests {
    let (block, finding) = match evidence {
        why::Evidence::None | why::Evidence::Allow { .. } => return Rests::default(),
        why::Evidence::Limit(window) => return Rests { counted: window.latest, ..Rests::default() },
        why::Evidence::Block { block, finding } => (block.block.id, finding),
        why::Evidence::PartyBlock { block, finding } => (block.stored.block.id, finding),
    };
    Rests {
        passages: finding.as_ref().map(|finding| finding.passages(context)).unwrap_or_default(),
        counted: Vec::new(),
        block: Some(block),
        finding: finding.map(|finding| finding.stored.id),
    }
}
