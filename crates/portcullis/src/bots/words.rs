//! What a client is of the crawlers, in words.
//! Names that DNS gives are strangers' text: they are quoted.

use portcullis_detect::BotStatus;
use portcullis_detect::bots::{How, Outcome as Dns, Proof, Refusal};

use super::Explained;

/// The word for it.
pub(crate) fn status(status: BotStatus) -> &'static str {
    match status {
        BotStatus::None => "none",
        BotStatus::Claimed => "claimed",
        BotStatus::Verified => "verified",
        BotStatus::False => "false",
    }
}

/// What it rests on, as a clause.
pub(crate) fn why(explained: &Explained) -> String {
    match &explained.judgement.how {
        How::NotNamed => "the user agent names no bot of the table".to_owned(),
        How::Proven(proof) => proven(proof),
        How::ProvenFetcher(proof) => {
            format!("{}; it fetches what strangers ask it for, so it is judged as anybody is", proven(proof))
        }
        How::OutsideOfNetworks => {
            "the address is in none of its networks, and all of them are known".to_owned()
        }
        How::Refuted(Refusal::NoName) => "DNS has no name for the address".to_owned(),
        How::Refuted(Refusal::OtherName(name)) => {
            format!("DNS calls the address {name:?}, which is not its operator's")
        }
        How::Refuted(Refusal::NotConfirmed(name)) => {
            format!("the address calls itself {name:?}, and that name does not have the address")
        }
        How::Unsettled => match explained.dns.as_deref() {
            Some(Dns::Unsettled) => {
                "DNS does not answer; until it does, nothing is held against the client".to_owned()
            }
            Some(Dns::Confirmed { .. } | Dns::Refuted(_)) | None => {
                "the address is in none of its networks as they are known, which may be old".to_owned()
            }
        },
        How::CannotBeKnown => {
            "nothing could tell: its operator says no way, or others use the name too".to_owned()
        }
        How::NotPublic => "the address is private or this machine's: nobody's on the Internet".to_owned(),
    }
}

fn proven(proof: &Proof) -> String {
    match proof {
        Proof::Network => "the address is in its networks".to_owned(),
        Proof::Name(name) => format!("DNS calls the address {name:?}, and that name has the address"),
    }
}
