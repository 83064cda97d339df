//! `lab --help`: lists the commands under headings. clap has no headings for commands, so the list is generated
//! here from clap's data.

use super::Cli;
use clap::{Command, CommandFactory};
use std::fmt::Write;

/// Headings, with all commands that are not hidden.
const GROUPS: [(&str, &[&str]); 7] = [
    ("Begin", &["init", "setup", "doctor"]),
    (
        "Run",
        &["run", "exec", "kselftest", "mark", "check", "watch-attach", "rerun", "serve", "shell", "list", "topology"],
    ),
    ("Read results", &["report", "compare", "history", "splats", "trend", "results"]),
    ("Kernels", &["kernels", "capabilities", "bisect", "bisect-step"]),
    ("Split a run among machines", &["plan", "merge", "durations", "pull"]),
    ("Measure", &["bench", "mutants"]),
    ("This machine", &["build", "cache", "completions", "man"]),
];
/// Width of the text, columns.
const WIDTH: usize = 80;
/// Column at which descriptions begin: the longest name, and two columns on each side.
const INDENT: usize = 2 + "capabilities".len() + 2;
const TEMPLATE: &str = "{about-with-newline}\n{usage-heading} {usage}{after-help}\nOptions:\n{options}\n\n\
                        `lab help COMMAND` describes a command.\n";

/// The command line, with its commands under headings.
pub(super) fn command() -> Command {
    let command = Cli::command();
    let list = list(&command);
    command.help_template(TEMPLATE).after_help(list)
}

fn list(command: &Command) -> String {
    let mut text = String::new();
    for (heading, names) in GROUPS {
        // clap itself puts an empty line before the first one.
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{gap}{heading}:");
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about).map(ToString::to_string);
            entry(name, &about.unwrap_or_default(), &mut text);
        }
    }
    text
}

fn entry(name: &str, about: &str, text: &mut String) {
    let mut line = format!("  {name:<width$}", width = INDENT - 2);
    let mut empty = true;
    for word in about.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            line = " ".repeat(INDENT);
            empty = true;
        }
        if !std::mem::replace(&mut empty, false) {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_command_is_under_one_heading_and_fits() {
        let command = command();
        let all = command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help");
        let all: BTreeSet<&str> = all.map(Command::get_name).collect();
        let listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        assert_eq!(listed.len(), all.len(), "a command is listed twice, or not at all");
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), all);
        let text = list(&command);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("\n\nRun:\n  run           Run cases on kernels\n"), "{text}");
    }

    /// Two arguments of a command may not have one name, also those that it takes from a shared group: clap refuses the
    /// command line then, only in debug builds and only once the command is used.
    #[test]
    fn every_command_has_valid_arguments() {
        command().debug_assert();
    }

    #[test]
    fn the_whole_text() {
        insta::assert_snapshot!(command().render_help());
    }
}
