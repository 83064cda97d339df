//! Escapes text from guests. Their kernels may be broken or hostile, so no guest text reaches a terminal or a file
//! unescaped.

use std::{borrow::Cow, fmt};

/// Length of a parser's reason, characters: with a file's name before it, it fits on a few lines of a terminal.
const REASON: usize = 300;

/// Whether a character is allowed in XML 1.0 and harmless on a terminal. The caller decides about tab and newline.
fn plain(c: char) -> bool {
    // U+FFFE and U+FFFF are not allowed in XML.
    !c.is_control() && !misleads(c) && !matches!(c, '\u{FFFE}' | '\u{FFFF}')
}

/// Characters that make a line look like a different one: bidirectional controls and invisible characters (Unicode's
/// `Default_Ignorable_Code_Point` except for those that join emoji, line and paragraph separators, annotations).
const fn misleads(c: char) -> bool {
    matches!(
        c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
            | '\u{200B}' | '\u{200C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}'
    )
}

/// Escapes text for the program's output: newlines and tabs stay, other control and misleading characters become `\u`
/// and four digits, which is valid in JSON and YAML. With `colours` the lab's own colours stay; with `ci` commands of
/// CI systems are escaped.
pub fn printable(text: &str, colours: bool, ci: bool) -> Cow<'_, str> {
    let ascii = |byte: u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
    let safe = text.bytes().all(ascii) || text.chars().all(|c| plain(c) || c == '\n' || c == '\t');
    if safe && !(ci && (text.contains("##") || text.contains("::"))) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for line in text.split_inclusive('\n') {
        let words = if ci { uncommanded(line) } else { Cow::Borrowed(line) };
        let mut rest = &*words;
        while let Some(c) = rest.chars().next() {
            if let Some(colour) = COLOURS.iter().find(|it| colours && rest.starts_with(**it)) {
                out.push_str(colour);
                rest = &rest[colour.len()..];
                continue;
            }
            rest = &rest[c.len_utf8()..];
            if plain(c) || c == '\n' || c == '\t' {
                out.push(c);
            } else {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            }
        }
    }
    Cow::Owned(out)
}

/// The escape sequences of the lab's own colours.
const COLOURS: [&str; 6] = ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m"];

/// Escapes commands of CI systems in a line: GitHub executes `::name::` at the start of a line, and GitHub, Azure and
/// TeamCity execute `##[`, `##vso[` and `##teamcity[` anywhere.
fn uncommanded(line: &str) -> Cow<'_, str> {
    let blank = line.len() - line.trim_start_matches(|c: char| !plain(c) || c.is_whitespace()).len();
    let (begin, words) = line.split_at(blank);
    let begins = |at: &usize| {
        let rest = words[*at..].strip_prefix('#');
        rest.is_some_and(|it| it.trim_start_matches(|c: char| c.is_ascii_alphanumeric()).starts_with('['))
    };
    // The second character of a command's prefix.
    let seconds = words.match_indices('#').map(|(at, _)| at).filter(|at| words[..*at].ends_with('#'));
    let commands: Vec<usize> = seconds.filter(begins).collect();
    if !words.starts_with("::") && commands.is_empty() {
        return Cow::Borrowed(line);
    }
    let mut words = words.to_owned();
    commands.iter().rev().for_each(|&at| words.replace_range(at..at + 1, "\\u0023"));
    Cow::Owned(match words.strip_prefix(':') {
        Some(rest) if rest.starts_with(':') => format!("{begin}\\u003a{rest}"),
        _ => format!("{begin}{words}"),
    })
}

/// Escapes text for Markdown, as one line: it contains no link, image, HTML, table cell or heading.
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in line(text, usize::MAX).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '@' => out.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '+' | '-' | '!' | '|' | '~' | ':' => {
                out.extend(['\\', c]);
            }
            other => out.push(other),
        }
    }
    out
}

/// Returns text as one line: control characters, newlines included, are escaped; what is longer than `max` characters then is
/// cut.
pub fn line(text: &str, max: usize) -> String {
    cut_line(text, max).into_owned()
}

/// What a parser says of somebody else's file, as one line: it quotes words of the file as they are, however long.
pub fn reason(error: &dyn fmt::Display) -> String {
    line(&error.to_string(), REASON)
}

/// As [`line()`], without a copy if the text needs no change.
pub fn cut_line(text: &str, max: usize) -> Cow<'_, str> {
    escape(text, max, |_| false)
}

/// As [`line()`], but keeps newlines and tabs.
pub fn block(text: &str, max: usize) -> String {
    cut_block(text, max).into_owned()
}

/// As [`block`], without a copy if the text needs no change.
pub fn cut_block(text: &str, max: usize) -> Cow<'_, str> {
    escape(text, max, |c| c == '\n' || c == '\t')
}

fn escape(text: &str, max: usize, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let stays = |c: char| plain(c) || keep(c);
    // `max` counts characters, and there are never more characters than bytes. Nearly all text is ASCII, for which
    // checking bytes is several times as fast.
    let ascii = |byte: u8| matches!(byte, b' '..=b'~') || byte.is_ascii() && keep(byte.into());
    // Piece by piece without a branch per byte: the compiler checks many bytes at once.
    let all_ascii = || text.as_bytes().chunks(64).all(|piece| piece.iter().fold(true, |all, byte| all & ascii(*byte)));
    if text.len() <= max && (all_ascii() || text.chars().all(stays)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().min(max));
    let mut count = 0;
    for c in text.chars() {
        // An escaped character is up to ten of the result.
        count += if stays(c) { 1 } else { c.escape_default().len() };
        if count > max {
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

/// Cuts a string in place at a character boundary, at most `max` bytes, so that one report can't fill the disk.
pub fn cap(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

/// The lines of a program's output, trimmed, without empty ones; of a Python traceback only the exception. An
/// exception that only says that a command failed is left out if there is any other line.
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
            // Only the last exception is returned.
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
        told.retain(|line| !only_says_failed(line));
    }
    told
}

/// A number with a noun: `1 cell`, `2 cells`. The plural must end with `s`.
pub fn count(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Quotes a word for a POSIX shell.
pub fn shell_quote(word: &str) -> String {
    // The quoter refuses only NUL, which no argument can contain; with NUL allowed it never fails.
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
        assert_eq!(cut_line("\0\0\0", 10), "\\u{0}\\u{0}…", "what is escaped counts as it is written");
        assert!(matches!(cut_line("plain", 5), Cow::Borrowed("plain")));
        assert!(matches!(cut_block("pläin\n\t", 99), Cow::Borrowed("pläin\n\t")));
        assert_eq!(cut_line("pläin\u{85}", 99), "pläin\\u{85}");
    }

    #[test]
    fn printed_text_has_no_control_characters_and_is_valid_json() {
        assert!(matches!(printable("plain\n\tpläin", false, true), Cow::Borrowed(_)));
        assert_eq!(printable("\x1b[2J\u{202e}\u{e0041}\x7f", false, false), r"\u001b[2J\u202e\udb40\udc41\u007f");
        assert_eq!(printable("\x1b[31mred\x1b[0m\x1b[8m", true, false), "\x1b[31mred\x1b[0m\\u001b[8m");
        assert_eq!(printable("\x1b[31m", false, false), r"\u001b[31m");
        for invisible in ['\u{200b}', '\u{200f}', '\u{2028}', '\u{2066}', '\u{ad}', '\u{feff}', '\u{e0001}'] {
            assert!(!plain(invisible), "{invisible:?}");
        }
        let json = serde_json::to_string("\u{202e}##[x]\x7f").unwrap();
        let read: String = serde_json::from_str(&printable(&json, false, true)).unwrap();
        assert_eq!(read, "\u{202e}##[x]\x7f");
    }

    #[test]
    fn no_line_is_a_command_for_a_ci_system() {
        for (text, told) in [
            ("::error::x\n", "\\u003a:error::x\n"),
            (" \t ::set-output name=x::y", " \t \\u003a:set-output name=x::y"),
            ("\u{feff}::add-mask::x", "\\ufeff\\u003a:add-mask::x"),
            ("a\n::b\nc::d", "a\n\\u003a:b\nc::d"),
            ("x ##[group]y", "x #\\u0023[group]y"),
            ("##vso[task.x]", "#\\u0023vso[task.x]"),
            ("###[x]", "##\\u0023[x]"),
            ("## heading [x]", "## heading [x]"),
        ] {
            assert_eq!(printable(text, false, true), told);
            assert_eq!(printable(text, false, false), text.replace('\u{feff}', "\\ufeff"));
        }
    }

    #[test]
    fn markdown_in_text_is_escaped() {
        let text = markdown("[x](javascript:1) ![i](http://e/) <img> | `c` # @all\n- [ ] y");
        assert!(!text.contains(['<', '>', '\n', '@']), "{text}");
        assert!(text.starts_with(r"\[x\]\(javascript\:1\) \!\[i\]"), "{text}");
    }

    #[test]
    fn only_the_exception_of_a_traceback_is_returned() {
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
