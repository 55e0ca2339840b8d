//! From verdicts and labels to counts and rates. Must not print.

use portcullis_model::Severity;

use crate::corpus::{Label, Site};

/// With fewer attackers or humans whom the forest scored, an AUC says nothing.
const LEAST_SCORED: usize = 5;

/// What counts as flagged, and what as blocked by default.
pub(crate) const LEVELS: [Severity; 2] = [Severity::Medium, Severity::High];

/// How many of a group there are, and how many of them reached each of [`LEVELS`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Group {
    pub(crate) all: usize,
    pub(crate) reached: [usize; 2],
}

/// The counts of a site, or of all sites together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) attacks: Group,
    pub(crate) busy_attacks: Group,
    pub(crate) other_malice: Group,
    pub(crate) humans: Group,
    pub(crate) bots: Group,
    /// Bots whose address belongs to their crawler.
    pub(crate) verified: Group,
    /// Of flagged attackers, from the first hostile request to the flag.
    pub(crate) requests_to_flag: Vec<f64>,
    pub(crate) seconds_to_flag: Vec<f64>,
    pub(crate) auc: Option<f64>,
}

impl Group {
    fn add(&mut self, severity: Option<Severity>) {
        self.all += 1;
        for (count, level) in self.reached.iter_mut().zip(LEVELS) {
            *count += usize::from(severity >= Some(level));
        }
    }

    fn join(&mut self, other: &Self) {
        self.all += other.all;
        self.reached.iter_mut().zip(other.reached).for_each(|(count, more)| *count += more);
    }

    /// The share that reached a level; `None` of nobody.
    pub(crate) fn share(&self, level: usize) -> Option<f64> {
        (self.all > 0).then(|| self.reached[level] as f64 / self.all as f64)
    }
}

impl Figures {
    pub(crate) fn of(site: &Site) -> Self {
        let mut figures = Self::default();
        let (mut bad, mut good) = (Vec::new(), Vec::new());
        for (client, label) in &site.labels {
            let seen = site.verdicts.clients.get(client);
            let severity = seen.and_then(|seen| seen.severity());
            let score = seen.and_then(|seen| seen.score);
            match label {
                Label::Attack { is_busy } => {
                    figures.attacks.add(severity);
                    if *is_busy {
                        figures.busy_attacks.add(severity);
                    }
                    if let Some(flag) = seen.and_then(|seen| seen.flag) {
                        figures.requests_to_flag.push(flag.requests as f64);
                        figures.seconds_to_flag.push(flag.seconds);
                    }
                    bad.extend(score);
                }
                Label::OtherMalice => figures.other_malice.add(severity),
                Label::Human => {
                    figures.humans.add(severity);
                    good.extend(score);
                }
                Label::Bot => {
                    figures.bots.add(severity);
                    if seen.is_some_and(|seen| seen.is_verified) {
                        figures.verified.add(severity);
                    }
                }
                Label::Unclear => {}
            }
        }
        figures.auc = auc(&bad, &good);
        figures
    }

    /// All sites as one.
    pub(crate) fn pooled(sites: &[Self]) -> Self {
        let mut pooled = Self::default();
        for site in sites {
            let groups = [
                (&mut pooled.attacks, &site.attacks),
                (&mut pooled.busy_attacks, &site.busy_attacks),
                (&mut pooled.other_malice, &site.other_malice),
                (&mut pooled.humans, &site.humans),
                (&mut pooled.bots, &site.bots),
                (&mut pooled.verified, &site.verified),
            ];
            groups.into_iter().for_each(|(to, from)| to.join(from));
            pooled.requests_to_flag.extend(&site.requests_to_flag);
            pooled.seconds_to_flag.extend(&site.seconds_to_flag);
        }
        pooled
    }

    /// Of all flagged clients with a label, the malicious ones; `None` if nobody was flagged.
    pub(crate) fn precision(&self, level: usize) -> Option<f64> {
        let malicious = self.attacks.reached[level] + self.other_malice.reached[level];
        let all = malicious + self.humans.reached[level] + self.bots.reached[level];
        (all > 0).then(|| malicious as f64 / all as f64)
    }
}

/// The chance that an attacker scores above a human; `None` with too few of either.
fn auc(bad: &[f64], good: &[f64]) -> Option<f64> {
    if bad.len() < LEAST_SCORED || good.len() < LEAST_SCORED {
        return None;
    }
    let wins = |bad: &f64, good: &f64| match bad.total_cmp(good) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    };
    let all: f64 = bad.iter().flat_map(|bad| good.iter().map(move |good| wins(bad, good))).sum();
    Some(all / (bad.len() * good.len()) as f64)
}

/// The median of the values, the lower one of two; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// The mean of those that there are.
pub(crate) fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let known: Vec<f64> = values.flatten().collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_auc_counts_how_often_an_attacker_scores_higher() {
        assert_eq!(auc(&[0.9; 5], &[0.1; 5]), Some(1.0));
        assert_eq!(auc(&[0.5; 5], &[0.5; 5]), Some(0.5));
        assert_eq!(auc(&[0.9, 0.9, 0.9, 0.9, 0.0], &[0.5; 5]), Some(0.8));
        assert_eq!(auc(&[0.9; 4], &[0.5; 5]), None);
    }

    #[test]
    fn medians_and_means_are_of_what_there_is() {
        assert_eq!(
            (median(&[3.0, 1.0, 2.0]), median(&[1.0, 2.0]), median(&[])),
            (Some(2.0), Some(1.0), None)
        );
        assert_eq!(
            (mean([Some(1.0), None, Some(3.0)].into_iter()), mean([None].into_iter())),
            (Some(2.0), None)
        );
    }

    #[test]
    fn precision_is_of_labelled_clients_that_reached_the_level() {
        let mut figures = Figures::default();
        figures.attacks.add(Some(Severity::High));
        figures.attacks.add(Some(Severity::Low));
        figures.other_malice.add(Some(Severity::Medium));
        figures.humans.add(Some(Severity::Medium));
        figures.humans.add(None);
        let pooled = Figures::pooled(&[figures.clone(), figures]);
        assert_eq!((pooled.precision(0), pooled.precision(1)), (Some(2.0 / 3.0), Some(1.0)));
        assert_eq!((pooled.attacks.share(0), pooled.humans.share(1)), (Some(0.5), Some(0.0)));
        assert_eq!(pooled.bots.share(0), None);
    }
}
