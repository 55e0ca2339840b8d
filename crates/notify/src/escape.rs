//! Text that strangers chose, made harmless for mail, HTML and chats. Must not change what a person reads beyond that.

use std::borrow::Cow;

/// Whether a character ends a line, moves or reorders text, cannot be seen, or is obeyed by a terminal.
pub fn is_hidden(c: char) -> bool {
    // C0, DEL and C1.
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Makes text harmless to a terminal and plain to a reader: control characters, escape sequences, bidirectional
/// controls and invisible characters are spelled out, as in `\u{1b}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c if is_hidden(c) => escaped.extend(c.escape_unicode()),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// One line of at most `max` characters; what could not be seen or would break the line is spelled out.
pub(crate) fn line(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max * 4));
    let mut used = 0;
    for c in text.chars() {
        let piece: Cow<'_, str> =
            if is_hidden(c) { c.escape_default().to_string().into() } else { c.to_string().into() };
        let length = piece.chars().count();
        if used + length > max {
            if used == max {
                out.pop();
            }
            out.push('…');
            break;
        }
        used += length;
        out.push_str(&piece);
    }
    out
}

/// For the text and the attributes of HTML.
pub(crate) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c if is_hidden(c) => out.push_str(&c.escape_default().to_string()),
            c => out.push(c),
        }
    }
    out
}

/// For Slack: its three special characters as entities, so that `<!channel>` and links stay text, and nothing after
/// an `@` that could be a name.
pub(crate) fn slack(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' => out.push_str("@\u{200b}"),
            c => out.push(c),
        }
    }
    out
}

/// For Discord: no mentions, no marks of emphasis, no masked links.
pub(crate) fn discord(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '@' => out.push_str("@\u{200b}"),
            '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '<' | '[' | ']' | '(' | ')' | '#' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_and_shows_what_was_hidden() {
        assert_eq!(line("/a\r\nBcc: x\u{202e}gpj\u{1b}[2J", 99), "/a\\r\\nBcc: x\\u{202e}gpj\\u{1b}[2J");
        assert_eq!(line("straße", 99), "straße");
        assert_eq!(line("abcdef", 4), "abc…");
        assert_eq!(line("abcd", 4), "abcd");
        assert!(line(&"\u{1b}".repeat(1_000), 50).chars().count() <= 51);
    }

    #[test]
    fn html_is_text_and_chats_mention_nobody() {
        assert_eq!(html("<img src=x onerror='a'>&\""), "&lt;img src=x onerror=&#39;a&#39;&gt;&amp;&quot;");
        assert_eq!(
            slack("<!channel> @here <http://a|b>"),
            "&lt;!channel&gt; @\u{200b}here &lt;http://a|b&gt;"
        );
        assert_eq!(discord("@everyone **x** [a](b)"), "@\u{200b}everyone \\*\\*x\\*\\* \\[a\\]\\(b\\)");
    }
}
