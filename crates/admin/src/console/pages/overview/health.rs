//! How the parts of the gateway are, with the remedy for what is wrong.
//! Must not find out itself: the running gateway says.

use maud::{Markup, html};

use crate::console::layout;
use crate::console::running::figures::{Grade, Health, Problem};
use crate::console::words::visible;

/// What keeps the gateway from doing its work, above everything else.
pub(super) fn attention(health: &[Health]) -> Markup {
    html! {
        @for bad in health.iter().filter(|health| health.grade == Grade::Bad) {
            div.notice.error role="alert" {
                p {
                    strong { (bad.part) ": " }
                    (visible(bad.problems.first().map_or(&bad.said, |problem| &problem.seen)))
                }
                a href="#health" { "What to do" }
            }
        }
    }
}

pub(super) fn parts(health: &[Health]) -> Markup {
    let rows = html! {
        thead { tr { th scope="col" { "Part" } th scope="col" { "State" } th scope="col" { "What is known" } } }
        tbody {
            @for health in health {
                tr {
                    th.keep scope="row" { (health.part) }
                    td.keep { (grade(health.grade)) }
                    td {
                        (visible(&health.said))
                        @if !health.problems.is_empty() {
                            ul.problems { @for problem in &health.problems { (self::problem(problem)) } }
                        }
                    }
                }
            }
        }
    };
    html! {
        section aria-labelledby="health" {
            h2 #health { "Health" }
            @if health.is_empty() {
                (layout::empty("The gateway is ending; load the page again in a moment."))
            } @else {
                (layout::table("Health of the gateway's parts", rows))
            }
        }
    }
}

fn grade(grade: Grade) -> Markup {
    let (class, word) = match grade {
        Grade::Off => ("badge calm", "off"),
        Grade::Good => ("badge good", "well"),
        Grade::Warning => ("badge warn", "look at it"),
        Grade::Bad => ("badge bad", "broken"),
    };
    html! { span class=(class) { (word) } }
}

fn problem(problem: &Problem) -> Markup {
    html! {
        li {
            (visible(&problem.seen)) ". " span.dim { (visible(&problem.remedy)) }
            @if let Some(write) = &problem.write { pre { (write.lines().map(visible).collect::<Vec<_>>().join("\n")) } }
        }
    }
}
