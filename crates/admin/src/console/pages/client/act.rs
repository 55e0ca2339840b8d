//! What can be done about a client: blocked, allowed, its findings dismissed. The forms of other pages do it.
//! Must not change anything itself.

use ipnet::IpNet;
use maud::{Markup, html};
use portcullis_model::{ClientIp, FindingStatus, bare};

use super::path;
use super::read::Known;
use crate::console::layout::form_token;
use crate::console::pages::blocks::duration_choice;
use crate::console::visitor::Visitor;

/// Whom a block may mean: an IPv4 client or its /24, an IPv6 client's /64 or /48, or its address alone.
fn networks(client: ClientIp) -> Vec<IpNet> {
    let address = IpNet::from(client.ip());
    let lengths: &[u8] = if client.ip().is_ipv4() { &[32, 24] } else { &[64, 128, 48] };
    lengths
        .iter()
        .filter_map(|length| IpNet::new(address.addr(), *length).ok())
        .map(|net| net.trunc())
        .collect()
}

pub(super) fn card(visitor: &Visitor, known: &Known) -> Markup {
    let back = path(known.client);
    let open = known.state.findings.iter().filter(|stored| stored.status == FindingStatus::Open);
    let open: Vec<i64> = open.map(|stored| stored.id).collect();
    html! {
        section.card aria-labelledby="act" {
            h2 #act { "What to do" }
            (block(visitor, known.client, &back))
            div.actions {
                @for block in &known.state.blocks {
                    (deed(visitor, "/blocks/lift", ("only", &block.id.to_string()), &back,
                        &format!("Lift block {} of {}", block.id, bare(&block.network))))
                }
                @if let Some(block) = &known.state.block_of_anonymous {
                    (deed(visitor, "/blocks/lift", ("only", &block.id.to_string()), &back,
                        &format!("Lift block {} of {}", block.id, block.party)))
                }
                @for allow in &known.state.allows {
                    (deed(visitor, "/allows/remove", ("only", &allow.id.to_string()), &back,
                        &format!("Take back allow {} of {}", allow.id, bare(&allow.network))))
                }
                @if known.state.allows.is_empty() {
                    (deed(visitor, "/allows", ("network", &bare(&known.client.limit_network())), &back, "Allow it"))
                }
                @if !open.is_empty() {
                    form action="/findings" method="post" {
                        (form_token(visitor))
                        input type="hidden" name="back" value=(back);
                        @for id in &open { input type="hidden" name="id" value=(id); }
                        button.quiet name="deed" value="dismiss" { "Dismiss its findings" }
                    }
                }
            }
        }
    }
}

fn block(visitor: &Visitor, client: ClientIp, back: &str) -> Markup {
    html! {
        form.fields action="/blocks" method="post" {
            (form_token(visitor))
            input type="hidden" name="back" value=(back);
            div {
                label for="network" { "Whom" }
                select #network name="network" {
                    @for network in networks(client) { option value=(network) { (bare(&network)) } }
                }
            }
            div { label for="reason" { "Reason" } input #reason name="reason" maxlength="1000" autocomplete="off"; }
            div { label for="expires" { "For how long" } (duration_choice("expires", "")) }
            div { button.danger { "Block" } }
        }
    }
}

/// A form of one button.
fn deed(visitor: &Visitor, path: &str, (name, value): (&str, &str), back: &str, text: &str) -> Markup {
    html! {
        form action=(path) method="post" {
            (form_token(visitor))
            input type="hidden" name="back" value=(back);
            input type="hidden" name=(name) value=(value);
            button.quiet { (text) }
        }
    }
}
