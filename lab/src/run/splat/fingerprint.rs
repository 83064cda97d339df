//! Fingerprints of splats, which are the same on every kernel and in every run.

use super::trace::plain;
use lab_base::hex::hex;
use lab_protocol::complaint::SplatClass;
use sha2::{Digest, Sha256};

/// Hexadecimal digits of the hash: enough to distinguish all splats.
const DIGITS: usize = 10;

/// `warn-0123456789`.
pub fn of(class: SplatClass, subject: &str, frames: &[String]) -> String {
    let mut hash = Sha256::new();
    for part in std::iter::once(subject).chain(frames.iter().map(|frame| &**frame)) {
        hash.update(part.as_bytes());
        hash.update(b"\n");
    }
    let digest = hex(&hash.finalize());
    format!("{class}-{}", &digest[..DIGITS])
}

/// The subject of a splat: its title without the parts that differ between releases.
pub fn subject(class: SplatClass, title: &str, lines: &[&str]) -> String {
    match class {
        SplatClass::Warn => warn(title, lines),
        SplatClass::Refcount => {
            let said = lines.iter().find(|line| line.starts_with("refcount_t: "));
            said.map_or_else(|| numberless(title), |said| numberless(said))
        }
        SplatClass::Bug if title.starts_with("kernel BUG at ") => {
            format!("kernel BUG at {}", source(title).unwrap_or_else(|| numberless(title)))
        }
        SplatClass::Oops => {
            // 6.10 added `Oops: ` before every trap; the trap's number and the kernel configuration follow the title.
            let title = title.strip_prefix("Oops: ").unwrap_or(title);
            numberless(title.split_once(": 0").map_or(title, |(title, _)| title))
        }
        // 6.3 distinguishes use-after-free of slab objects and of pages.
        SplatClass::Kasan => numberless(&title.replace("slab-use-after-free", "use-after-free")),
        SplatClass::Ubsan => {
            let what = title.split_once(" in ").map_or(title, |(what, _)| what);
            format!("{what} in {}", source(title).unwrap_or_default())
        }
        SplatClass::RcuStall => {
            let what = title.split(['{', ':']).find(|part| part.contains("stall")).unwrap_or(title);
            let words = what.split_whitespace().skip_while(|word| word.starts_with("rcu_") || *word == "INFO");
            format!("rcu {}", words.collect::<Vec<_>>().join(" "))
        }
        SplatClass::SoftLockup => "soft lockup".to_owned(),
        SplatClass::HardLockup => "hard lockup".to_owned(),
        SplatClass::Workqueue => {
            let known = ["workqueue lockup", "workqueue leaked"];
            known.into_iter().find(|known| title.contains(known)).map_or_else(|| numberless(title), str::to_owned)
        }
        SplatClass::HungTask => {
            let how = if title.contains("I/O wait") { "in I/O wait" } else { "uninterruptibly" };
            format!("task blocked {how}")
        }
        SplatClass::NetnsLeak => "unregister_netdevice: waiting for a device to become free".to_owned(),
        SplatClass::Oom => {
            let kind =
                if title.contains("page allocation failure") { "page allocation failure" } else { "out of memory" };
            kind.to_owned()
        }
        SplatClass::Panic | SplatClass::Bug | SplatClass::Lockdep | SplatClass::Kcsan | SplatClass::Leak => {
            numberless(title)
        }
    }
}

/// `WARNING at net/core/dev.c f`, with the message. Since 6.19 the place comes before processor and task, and the
/// message after the header instead of before it.
fn warn(title: &str, lines: &[&str]) -> String {
    let function =
        title.split([' ', ',']).filter_map(|word| word.split_once("+0x")).map(|(name, _)| plain(name)).next();
    let place = [source(title), function.map(str::to_owned)].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let header = lines.iter().position(|line| *line == title).unwrap_or(0);
    let is_text = |line: &&&str| {
        let starts = [
            "Modules linked in:",
            "CPU: ",
            "Hardware name:",
            "RIP: ",
            "pstate: ",
            "pc : ",
            "lr : ",
            "Call Trace:",
            "Call trace:",
            "---[",
            "Code:",
        ];
        !line.is_empty() && !line.starts_with(' ') && !starts.iter().any(|start| line.starts_with(start))
    };
    let after = lines.get(header + 1).into_iter().filter(is_text);
    let said: Vec<String> = lines[..header].iter().filter(is_text).chain(after).map(|line| numberless(line)).collect();
    let said = if said.is_empty() { String::new() } else { format!(": {}", said.join(" ")) };
    format!("WARNING at {place}{said}")
}

/// The source file in a header, without its line number.
fn source(title: &str) -> Option<String> {
    title.split_whitespace().find_map(|word| {
        let (file, line) = word.split_once(':')?;
        let is_source = file.ends_with(".c") || file.ends_with(".h") || file.ends_with(".S") || file.ends_with(".rs");
        // A build outside of the source tree adds the relative path to it.
        let file = file.trim_start_matches("./").trim_start_matches("../");
        (is_source && line.starts_with(|c: char| c.is_ascii_digit())).then(|| file.to_owned())
    })
}

/// Replaces numbers, addresses and offsets by `#`. A digit inside a name stays: `ip6_input` is not `ip4_input`.
fn numberless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        let word = word.split_once("+0x").map_or(word, |(name, _)| plain(name));
        let mut in_name = false;
        let mut chars = word.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let rest = &word[at..];
            let run = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
            let hex = !in_name && run >= 8 && rest[..run].bytes().any(|byte| byte.is_ascii_digit());
            if !in_name && (c.is_ascii_digit() || hex) {
                let prefixed = rest.starts_with("0x");
                let digits = if prefixed {
                    2 + hex_run(&rest[2..])
                } else if hex {
                    run
                } else {
                    decimal_run(rest)
                };
                out.push('#');
                while chars.next_if(|(next, _)| *next < at + digits).is_some() {}
            } else {
                in_name = c.is_alphanumeric() || c == '_';
                out.push(c);
            }
        }
    }
    out
}

fn hex_run(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_hexdigit).count()
}

fn decimal_run(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_replaced_and_names_kept() {
        for (text, wanted) in [
            ("address: 0000000000000010", "address: #"),
            ("at addr ffff88810a3f0040 by task case/123", "at addr # by task case/#"),
            ("ip6_input+0x1/0x2 0xdead000000000108", "ip6_input #"),
            ("exitcode=0x00000700", "exitcode=#"),
            ("Killed process 77 (x86)", "Killed process # (x86)"),
        ] {
            assert_eq!(numberless(text), wanted);
        }
    }

    proptest! {
        #[test]
        fn any_title_has_a_subject(title in "\\PC{0,80}", line in "\\PC{0,80}") {
            for class in SplatClass::ALL {
                let subject = subject(class, &title, &[&line, &title]);
                prop_assert!(of(class, &subject, &[]).starts_with(class.name()));
            }
        }
    }
}
