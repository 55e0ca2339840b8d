//! The form of the filter: fields with what is wrong beside them, and the columns.
//! Must not read the log.

use maud::{Markup, html};
use portcullis_model::VerdictKind;

use super::asked::{Asked, Fault, Field};
use super::columns::{Column, verdict_word};

/// Fields that are always seen; the others are folded away until one of them is used.
const FIRST: [Field; 6] =
    [Field::Ip, Field::Path, Field::Status, Field::Verdict, Field::Since, Field::UserAgent];

pub(super) fn filters(asked: &Asked, faults: &[Fault]) -> Markup {
    let more = || Field::ALL.into_iter().filter(|field| !FIRST.contains(field));
    let uses_more = more().any(|field| !asked.value(field).is_empty());
    html! {
        form #filters.card action="/requests" method="get" role="search" aria-label="Filter requests" {
            div.filter-grid { @for field in FIRST { (self::field(asked, faults, field)) } }
            div.filter-foot {
                button { "Show" }
                @if !asked.is_everything() { a.button.quiet href="/requests" { "Clear" } }
                details.more open[uses_more] {
                    summary { "More filters" }
                    div.filter-grid { @for field in more() { (self::field(asked, faults, field)) } }
                }
                details.more {
                    summary { "Columns" }
                    fieldset.columns-choice {
                        legend.hidden { "Columns of the table" }
                        @for column in Column::ALL {
                            label {
                                input type="checkbox" name="column" value=(column.as_str())
                                    data-usual[Column::USUAL.contains(&column)]
                                    checked[asked.columns.contains(&column)];
                                (column.label())
                            }
                        }
                    }
                }
            }
        }
    }
}

fn field(asked: &Asked, faults: &[Fault], field: Field) -> Markup {
    let id = format!("filter-{}", field.as_str());
    let wrong = format!("wrong-{}", field.as_str());
    let fault = faults.iter().find(|(faulty, _)| *faulty == field).map(|(_, why)| why.as_str());
    let described = fault.is_some().then_some(&wrong);
    html! {
        div {
            label for=(id) { (field.label()) }
            @match field {
                Field::Verdict => (choice(&id, field, asked, &verdicts())),
                Field::Suspicious => (choice(&id, field, asked, &[("yes", "yes"), ("no", "no")])),
                _ => input #(id) name=(field.as_str()) value=(asked.value(field)) placeholder=(field.example())
                    autocomplete="off" spellcheck="false" aria-invalid=[fault.map(|_| "true")]
                    aria-describedby=[described];,
            }
            p.field-error #(wrong) data-fault hidden[fault.is_none()] { (fault.unwrap_or("")) }
        }
    }
}

fn verdicts() -> [(&'static str, &'static str); VerdictKind::ALL.len()] {
    VerdictKind::ALL.map(|verdict| (verdict.as_str(), verdict_word(verdict)))
}

fn choice(id: &str, field: Field, asked: &Asked, values: &[(&str, &str)]) -> Markup {
    html! {
        select #(id) name=(field.as_str()) {
            option value="" { "any" }
            @for (value, word) in values {
                option value=(value) selected[asked.value(field) == *value] { (word) }
            }
        }
    }
}
