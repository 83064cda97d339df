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

/// The lines of a program's output, trimmed, without empty ones; of a Python traceback only the exception. An exception that
/// only says that a command failed is left out where anything else was said.
pub fn told_lines(said: &str) -> Vec<&str> {
    let mut told: Vec<&str> = Vec::new();
    let mut in_traceback = false;
    for line in said.lines().filter(|line| !line.trim().is_empty()) {
        let trimmed = line.trim();
        if trimmed.starts_with("Traceback (most recent call last)") {
            in_traceback = true;
        } else if trimmed.starts_with("During handling of the above exception")
            || trimmed.starts_with("The above exception was the direct cause")
        {
            // The exception that is told is the last one.
            told.pop();
        } else if in_traceback && line.starts_with(char::is_whitespace) {
            continue;
        } else {
            in_traceback = false;
            told.push(trimmed);
        }
    }
    let only_says_failed = |line: &&str| line.contains("CalledProcessError: Command");
    if !told.iter().all(only_says_failed) {
        told.retain(|line| !only_says_failed(&line));
    }
    told
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
    fn of_a_traceback_the_exception_is_told() {
        let trace = "Traceback (most recent call last):\n  File \"vng\", line 8, in <module>\n    sys.exit(main())\n             ~~~~^^\n";
        let called = "subprocess.CalledProcessError: Command '['virtme-run']' returned non-zero exit status 1.\n";
        let said = format!(
            "qemu-system-x86_64: no such machine\n{trace}KeyError: 'x'\n\nDuring handling of the above exception, another exception occurred:\n\n{trace}{called}"
        );
        assert_eq!(told_lines(&said), ["qemu-system-x86_64: no such machine"]);
        assert_eq!(told_lines(&format!("{trace}{called}")), [called.trim()]);
        assert_eq!(
            told_lines(&format!("{trace}OSError: [Errno 28] No space left on device")),
            ["OSError: [Errno 28] No space left on device"]
        );
        assert_eq!(told_lines("  a\n\nb "), ["a", "b"]);
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
