//! `--fail-if`: conditions on the figures of a replay, for scripts. Owns the names; must not count.

use std::fmt;
use std::str::FromStr;

/// The most conditions of one budget.
const MAX_CONDITIONS: usize = 32;

/// The figures that a condition can name, and what each is.
pub(crate) const FIGURES: [(&str, &str); 20] = [
    ("requests", "requests"),
    ("clients", "clients (an IPv4 address, an IPv6 /64)"),
    ("bad_lines", "lines that could not be read"),
    ("flagged", "clients that reach --severity"),
    ("blocked", "clients that the detector would block"),
    ("listed", "clients that [[block]] entries would refuse"),
    ("denied", "clients that rules of the access list would refuse"),
    ("limited", "clients that limits would refuse something"),
    ("refused", "clients that would be refused anything"),
    ("requests_refused", "requests that would be refused"),
    ("humans", "clients that look like people"),
    ("humans_flagged", "of these, flagged"),
    ("humans_blocked", "of these, blocked by the detector"),
    ("humans_limited", "of these, limited"),
    ("humans_refused", "of these, refused anything"),
    ("bots", "crawlers in their operators' published networks"),
    ("bots_flagged", "of these, flagged"),
    ("bots_refused", "of these, refused anything"),
    ("newly_blocked", "clients that --policy blocks and --against does not"),
    ("humans_newly_blocked", "of these, those that look like people"),
];

/// The figures of a replay, in the order of [`FIGURES`]; `None` is not known, as without `--against`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures(pub(crate) [Option<u64>; FIGURES.len()]);

impl Figures {
    fn get(&self, figure: usize) -> Option<u64> {
        self.0.get(figure).copied().flatten()
    }

    pub(crate) fn set(&mut self, name: &str, value: u64) {
        if let Some(n) = FIGURES.iter().position(|(known, _)| *known == name) {
            self.0[n] = Some(value);
        }
    }

    /// Those that are known, by their names.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        FIGURES.iter().zip(self.0).filter_map(|((name, _), value)| Some((*name, value?)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
}

impl Operator {
    /// The longer ones first, since `>` begins `>=`.
    const ALL: [(&str, Self); 7] = [
        (">=", Self::GreaterOrEqual),
        ("<=", Self::LessOrEqual),
        ("==", Self::Equal),
        ("!=", Self::NotEqual),
        (">", Self::Greater),
        ("<", Self::Less),
        ("=", Self::Equal),
    ];

    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Equal => left == right,
            Self::NotEqual => left != right,
        }
    }
}

/// `NAME OP NUMBER`
#[derive(Clone, Debug, PartialEq)]
struct Condition {
    figure: usize,
    operator: Operator,
    number: f64,
}

/// Fails when any of its parts does; a part fails when all of its conditions hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Budget(Vec<Vec<Condition>>);

impl Budget {
    /// What of it is exceeded, each part in words. A figure that is not known exceeds nothing.
    pub(crate) fn exceeded(&self, figures: &Figures) -> Vec<String> {
        let holds = |condition: &Condition| {
            let value = figures.get(condition.figure);
            value.is_some_and(|value| condition.operator.holds(value as f64, condition.number))
        };
        let failed = self.0.iter().filter(|part| part.iter().all(holds));
        let in_words = |condition: &Condition| {
            let value = figures.get(condition.figure).unwrap_or_default();
            format!("{condition} (it is {value})")
        };
        failed.map(|part| part.iter().map(in_words).collect::<Vec<_>>().join(" and ")).collect()
    }

    /// The names of figures that are not known.
    pub(crate) fn unknown<'b>(&'b self, figures: &'b Figures) -> impl Iterator<Item = &'static str> + 'b {
        let all = self.0.iter().flatten();
        all.filter(|condition| figures.get(condition.figure).is_none()).map(|c| FIGURES[c.figure].0)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign =
            Operator::ALL.iter().find(|(_, operator)| *operator == self.operator).map_or("", |(s, _)| s);
        write!(f, "{} {sign} {}", FIGURES[self.figure].0, self.number)
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut count = 0;
        let parts = text.split(',').map(|part| {
            let conditions = part.split(" and ").map(condition);
            let conditions = conditions.collect::<Result<Vec<_>, _>>()?;
            count += conditions.len();
            Ok(conditions)
        });
        let parts = parts.collect::<Result<Vec<_>, String>>()?;
        if count > MAX_CONDITIONS {
            return Err(format!("{count} conditions are too many, {MAX_CONDITIONS} at most"));
        }
        Ok(Self(parts))
    }
}

fn condition(text: &str) -> Result<Condition, String> {
    let shape = || format!("expected NAME OP NUMBER such as \"humans_blocked > 0\", got {:?}", text.trim());
    let at = text.find(['<', '>', '=', '!']).ok_or_else(shape)?;
    let (name, rest) = text.split_at(at);
    let name = name.trim();
    let found = Operator::ALL.iter().find_map(|(sign, op)| Some((*op, rest.strip_prefix(sign)?)));
    let (operator, number) = found.ok_or_else(shape)?;
    let figure = FIGURES.iter().position(|(known, _)| *known == name).ok_or_else(|| {
        let names: Vec<&str> = FIGURES.iter().map(|(name, _)| *name).collect();
        format!("there is no figure {name:?}; they are {}", names.join(", "))
    })?;
    let number = number.trim().parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(shape)?;
    Ok(Condition { figure, operator, number })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let mut figures = Figures::default();
        for (name, value) in [("requests", 1_000), ("flagged", 20), ("humans_blocked", 1), ("humans", 50)] {
            figures.set(name, value);
        }
        figures
    }

    fn exceeded(text: &str) -> Vec<String> {
        text.parse::<Budget>().unwrap().exceeded(&figures())
    }

    #[test]
    fn a_budget_fails_when_one_of_its_parts_holds_as_a_whole() {
        assert_eq!(exceeded("humans_blocked > 0"), ["humans_blocked > 0 (it is 1)"]);
        assert!(exceeded("humans_blocked > 1").is_empty());
        assert_eq!(exceeded("flagged>=20 and humans < 10, humans_blocked!=0").len(), 1);
        assert_eq!(
            exceeded("flagged >= 20 and humans = 50"),
            ["flagged >= 20 (it is 20) and humans == 50 (it is 50)"]
        );
        assert_eq!(exceeded("flagged<=20,requests==1000,humans<50").len(), 2);
        assert!(exceeded("newly_blocked < 5").is_empty(), "not known");
    }

    #[test]
    fn a_wrong_budget_says_what_is_right() {
        let error = |text: &str| text.parse::<Budget>().unwrap_err();
        assert!(error("people > 0").contains("humans_blocked"));
        for text in
            ["", "humans_blocked", "humans_blocked > ", "humans_blocked > x", "humans > 0,", "humans => 1"]
        {
            assert!(error(text).contains("NAME OP NUMBER"), "{text}: {}", error(text));
        }
        assert!(error("humans > 0,".repeat(40).trim_end_matches(',')).contains("too many"));
    }
}
