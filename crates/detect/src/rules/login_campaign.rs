//! `login_campaign`: passwords guessed from many addresses, each of which tries too seldom to be noticed. Counts
//! clients that send nothing but logins and never get in, by network and by user agent: which account they try is in
//! the body, which nobody reads.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit};
use crate::client::{Client, SampleKind};
use crate::together::Logins;

/// Of one network (IPv4 /24, IPv6 /48): so many clients.
const CLIENTS_OF_A_NETWORK: u32 = 3;
/// With one user agent: clients of so many networks. Well-known programs have users everywhere, who mistype.
const NETWORKS_WITH_AN_AGENT: u32 = 5;
/// From so many times the threshold of logins on, from one network, it is plain.
const PLAIN: u32 = 3;

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let threshold = context.settings.login_failures;
    let is_campaign = |logins: &Logins| {
        logins.attempts >= threshold
            && match logins.is_one_network {
                true => logins.clients >= CLIENTS_OF_A_NETWORK,
                false => logins.networks >= NETWORKS_WITH_AN_AGENT,
            }
    };
    let logins = context.around?.logins.into_iter().flatten().find(is_campaign)?;
    let is_plain = logins.is_one_network && logins.attempts >= threshold.saturating_mul(PLAIN);
    let own = client.login.as_deref().map_or(0, |login| login.attempts);
    let whom = match logins.is_one_network {
        true => "of its network".to_owned(),
        false => format!("of {} networks with the same user agent", logins.networks),
    };
    Some(Hit {
        severity: if is_plain { Severity::High } else { Severity::Medium },
        says: format!(
            "sent {own} logins that did not get in, and nothing else, as did {} other addresses {whom} ({} logins \
             together)",
            logins.clients - 1,
            logins.attempts
        ),
        evidence: json!({
            "attempts": own,
            "clients": logins.clients,
            "networks": logins.networks,
            "attempts_together": logins.attempts,
            "threshold": threshold,
            "by": if logins.is_one_network { "network" } else { "user_agent" },
        }),
        samples: Some(SampleKind::Login),
    })
}
