//! Text from guests: their kernel may be broken or hostile, so nothing of it reaches a terminal or a file unescaped.

use std::borrow::Cow;

/// Whether a character may stand in XML 1.0 and on a terminal as it is. Tab and newline are the caller's choice.
fn plain(c: char) -> bool {
    // U+FFFE and U+FFFF are no XML characters; the bidirectional controls can make a line read as another one.
    !c.is_control() && !matches!(c, '\u{FFFE}' | '\u{FFFF}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// One line: every control character, newlines included, becomes a visible escape; longer than `max` characters is cut.
pub fn line(text: &str, max: usize) -> String {
    cut_line(text, max).into_owned()
}

/// As [`line()`], without a copy where the text can stand as it is.
pub fn cut_line(text: &str, max: usize) -> Cow<'_, str> {
    escape(text, max, |_| false)
}

/// Several lines: newlines and tabs stay.
pub fn block(text: &str, max: usize) -> String {
    cut_block(text, max).into_owned()
}

/// As [`block`], without a copy where the text can stand as it is.
pub fn cut_block(text: &str, max: usize) -> Cow<'_, str> {
    escape(text, max, |c| c == '\n' || c == '\t')
}

fn escape(text: &str, max: usize, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let stays = |c: char| plain(c) || keep(c);
    // A byte is a character at most. Nearly all text is ASCII, and its bytes are looked at several times as fast.
    let ascii = |byte: u8| matches!(byte, b' '..=b'~') || byte.is_ascii() && keep(byte.into());
    if text.len() <= max && (text.bytes().all(ascii) || text.chars().all(stays)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().min(max));
    for (count, c) in text.chars().enumerate() {
        if count == max {
            out.push('…');
            break;
        }
        if stays(c) {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    Cow::Owned(out)
}

/// Cuts a string in place at a character boundary, so that one report can't fill the disk.
pub fn cap(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

/// A number of things: `1 cell`, `2 cells`. The word must take a plain `s`.
pub fn count(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// A word quoted for a POSIX shell.
pub fn shell_quote(word: &str) -> String {
    // Only a NUL is refused, which no argument can hold, and which is allowed here.
    shlex::Quoter::new().allow_nul(true).quote(word).map_or_else(|_| word.to_owned(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_visible() {
        assert_eq!(line("\x1b[31mred\0\n]]>\u{FFFF}\u{202E}", 99), r"\u{1b}[31mred\u{0}\n]]>\u{ffff}\u{202e}");
        assert_eq!(block("a\n\tb\r", 99), "a\n\tb\\r");
        assert_eq!(line("abcdef", 3), "abc…");
        assert_eq!(cut_line("abcdef", 3), "abc…");
        assert_eq!(cut_line("a\n", 3), "a\\n");
        assert!(matches!(cut_line("plain", 5), Cow::Borrowed("plain")));
        assert!(matches!(cut_block("pläin\n\t", 99), Cow::Borrowed("pläin\n\t")));
        assert_eq!(cut_line("pläin\u{85}", 99), "pläin\\u{85}");
    }

    #[test]
    fn cuts_between_characters() {
        let mut text = "äöü".to_owned();
        cap(&mut text, 3);
        assert_eq!(text, "ä…");
    }

    #[test]
    fn quoting_survives_a_shell() {
        assert_eq!(shell_quote("6.12"), "6.12");
        assert_eq!(shell_quote("A02[tcx,veth]"), "'A02[tcx,veth]'");
        for word in ["it's", "a b", "$HOME", "", "`id`", "\"!\"", "~", "a\\b"] {
            assert_eq!(shlex::split(&shell_quote(word)), Some(vec![word.to_owned()]));
        }
    }
}
