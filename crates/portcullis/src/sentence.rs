//! A failure in one sentence, for people.
//!
//! Owns how an error and its causes become text. Must not print.

/// The error and, behind colons, those of its causes that it does not name itself.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_named_once() {
        let silent = anyhow!("disk full").context("cannot write");
        assert_eq!(sentence(&silent), "cannot write: disk full");
        let speaking = anyhow!("disk full").context("cannot write (disk full); make room");
        assert_eq!(sentence(&speaking.context("detector")), "detector: cannot write (disk full); make room");
    }
}
