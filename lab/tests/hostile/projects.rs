//! Hostile repositories and directories: reading their settings must not run any of their code. Building or running
//! their agent does run their code.

use crate::{
    attack::{Attack, By, Wanted},
    stage::{Seen, Stage},
};
use nix::{sys::stat::Mode, unistd::mkfifo};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    process::Command,
    time::Duration,
};

const SETTINGS: &str = "Settings are refused with the key that is wrong, and are not executed";
const FILES: &str = "A project names files, and nothing else is opened or printed";
const PATHS: &str = "A program is never taken from the working directory";

/// A project with this `kernels.toml`.
fn project(stage: &Stage<'_>, matrix: &str) -> PathBuf {
    let project = stage.run().join("project");
    fs::create_dir_all(&project).unwrap();
    fs::write(project.join("kernels.toml"), matrix).unwrap();
    project
}

fn told(stage: &Stage<'_>, arguments: &[&str]) -> Seen {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(stage.run().join("project")).args(arguments);
    stage.finish(stage.dressed(command), Duration::from_secs(60))
}

/// A matrix with one kernel, with these lines.
fn kernel(lines: &str) -> String {
    format!("[kernels.\"6.7\"]\nclass = \"6.7+\"\ndefault = true\n{lines}\n")
}

/// The error about a kernel of this host whose image is this path.
fn image(stage: &Stage<'_>, image: &str) -> Seen {
    project(stage, &kernel(&format!("source.path = {{ image = \"{image}\" }}")));
    told(stage, &["kernels", "fetch", "--all"])
}

/// The rows.
pub fn attacks() -> Vec<Attack> {
    let mut all = settings();
    all.extend(files());
    all.push(Attack::by(By::Project)(
        "programs-are-planted",
        "the working directory is on PATH, and has programs with the names of those that the lab starts",
        PATHS,
        Wanted::exit(&[0, 3], &["QEMU"]),
        |stage| {
            let planted = stage.run().join("planted");
            fs::create_dir(&planted).unwrap();
            project(stage, &kernel("source.deb = { suite = \"sid\", package = \"linux-image-6.7*\" }"));
            for name in [
                "apt-cache",
                "apt-config",
                "apt-get",
                "bpftool",
                "busybox",
                "cargo",
                "cc",
                "depmod",
                "dpkg",
                "dpkg-deb",
                "dpkg-query",
                "file",
                "git",
                "ip",
                "pip",
                "python3",
                "qemu-system-x86_64",
                "rustc",
                "sh",
                "sudo",
                "vng",
                "xz",
            ] {
                let path = planted.join(name);
                fs::write(&path, format!("#!/bin/sh\necho {name} >>{}/planted\n", stage.outside().display())).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            }
            let lab = |arguments: &[&str]| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
                command.arg("--project").arg(stage.run().join("project")).args(arguments);
                let mut command = stage.dressed(command);
                command.current_dir(&planted);
                let path = lab_base::programs::search_path().into_string().unwrap();
                // An empty entry is the working directory, too.
                command.env("PATH", format!(".::{path}")).env("NETKIT_LAB_DEBIAN_MIRROR", "http://127.0.0.1:1/");
                stage.finish(command, Duration::from_secs(60))
            };
            let mut seen = lab(&["kernels", "update"]);
            let doctor = lab(&["doctor"]);
            seen.printed.push_str(&doctor.printed);
            seen
        },
    ));
    all
}

fn settings() -> Vec<Attack> {
    let row = Attack::by(By::Project);
    vec![
        row(
            "kernel-of-the-matrix-climbs",
            "a kernel's id in kernels.toml is `../evil`",
            SETTINGS,
            Wanted::exit(&[2], &["kernels.toml"]),
            |stage| {
                project(stage, "[kernels.\"../evil\"]\nclass = \"6.7+\"\nsource.path = { image = \"x\" }\n");
                told(stage, &["kernels", "list"])
            },
        ),
        row(
            "command-line-is-split",
            "words of a kernel's command line have quotes, commas, blanks and shell commands",
            SETTINGS,
            Wanted::exit(&[2], &["`cmdline`", "must be one word without quotes"]),
            |stage| {
                let words =
                    ["a b", "x -append y", "a\\\"b", "a'b", "$(touch x)", "`touch x`", "a\\nb", "a\\u0000b", "é"];
                let mut last = Seen::default();
                for word in words {
                    project(stage, &kernel(&format!("cmdline = [\"{word}\"]\nsource.path = {{ image = \"x\" }}")));
                    let wrong = std::mem::take(&mut last.wrong);
                    last = told(stage, &["kernels", "list"]);
                    last.wrong.extend(wrong);
                    if last.exit != Some(2) {
                        last.wrong.push(format!("{word} was taken"));
                    }
                }
                last
            },
        ),
        row(
            "mirror-is-an-option",
            "the mirror's address holds an option that turns signatures off",
            SETTINGS,
            Wanted::exit(&[2, 3], &["is not a mirror's address"]),
            |stage| {
                let source = "source.deb = { suite = \"sid\", package = \"linux-image-6.7*\" }";
                let matrix = kernel(source) + "[debian]\nmirror = \"[trusted=yes] http://127.0.0.1:1/debian\"\n";
                project(stage, &matrix);
                told(stage, &["kernels", "update"])
            },
        ),
        row(
            "suite-is-an-option",
            "a suite's name is another line of apt's sources",
            SETTINGS,
            Wanted::exit(&[2], &["kernels.toml"]),
            |stage| {
                let suite = "sid main\\ndeb [trusted=yes] file:/ x";
                project(
                    stage,
                    &kernel(&format!("source.deb = {{ suite = \"{suite}\", package = \"linux-image-6.7*\" }}")),
                );
                told(stage, &["kernels", "update"])
            },
        ),
        row(
            "reference-is-an-option",
            "a git reference begins as an option that runs a program",
            SETTINGS,
            Wanted::exit(&[2, 3], &["error: "]),
            |stage| {
                let reference = format!("--upload-pack=touch {}/planted;", stage.outside().display());
                project(stage, &kernel(&format!("source.git = {{ tree = \".\", ref = \"{reference}\" }}")));
                told(stage, &["kernels", "update"])
            },
        ),
    ]
}

fn files() -> Vec<Attack> {
    let row = Attack::by(By::Project);
    vec![
        row(
            "matrix-is-a-fifo",
            "kernels.toml is a FIFO that nobody writes to",
            FILES,
            Wanted::exit(&[2, 3], &["no kernels.toml in"]),
            |stage| {
                let matrix = project(stage, "").join("kernels.toml");
                fs::remove_file(&matrix).unwrap();
                mkfifo(&matrix, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
                told(stage, &["kernels", "list"])
            },
        ),
        row(
            "settings-are-a-key",
            "known.toml, lab.toml and kernels.lock are links to a key",
            FILES,
            Wanted::exit(&[2], &["error: "]),
            |stage| {
                let mut last = Seen::default();
                for (name, arguments) in [
                    ("known.toml", &["kernels", "list"][..]),
                    ("kernels.lock", &["kernels", "list"]),
                    ("lab.toml", &["cache", "list"]),
                ] {
                    let project = project(stage, &kernel("source.path = { image = \"x\" }"));
                    symlink(stage.outside().join("key"), project.join(name)).unwrap();
                    let printed = std::mem::take(&mut last.printed);
                    last = told(stage, arguments);
                    last.printed.insert_str(0, &printed);
                    fs::remove_file(project.join(name)).unwrap();
                }
                last
            },
        ),
        row(
            "agent-is-a-key",
            "the agent's package in lab.toml is a directory whose manifest is a link to a key",
            FILES,
            Wanted::exit(&[2, 3], &["Cargo.toml"]),
            |stage| {
                let project = project(stage, &kernel("source.path = { image = \"x\" }"));
                fs::create_dir(project.join("agent")).unwrap();
                symlink(stage.outside().join("key"), project.join("agent/Cargo.toml")).unwrap();
                fs::write(project.join("lab.toml"), "[agent]\npackage = \"agent\"\n").unwrap();
                told(stage, &["list", "--no-build"])
            },
        ),
        row(
            "image-is-endless",
            "a kernel's image is /dev/zero",
            FILES,
            refused(&["a device instead of a file"]),
            |stage| image(stage, "/dev/zero"),
        ),
        row("image-is-a-fifo", "a kernel's image is a FIFO", FILES, refused(&["a FIFO instead of a file"]), |stage| {
            let fifo = stage.run().join("fifo");
            mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
            image(stage, fifo.to_str().unwrap())
        }),
        row("image-is-a-key", "a kernel's image is a key", FILES, refused(&["is not an x86 bzImage"]), |stage| {
            image(stage, stage.outside().join("key").to_str().unwrap())
        }),
        row(
            "configuration-is-endless",
            "the configuration beside a kernel's image is /dev/zero",
            FILES,
            refused(&["a device instead of a file"]),
            |stage| {
                let bytes = bzimage();
                let path = stage.run().join("vmlinuz");
                fs::write(&path, bytes).unwrap();
                let source = format!("source.path = {{ image = \"{}\", config = \"/dev/zero\" }}", path.display());
                project(stage, &kernel(&source));
                told(stage, &["kernels", "fetch", "--all"])
            },
        ),
    ]
}

const fn refused(told: &'static [&'static str]) -> Wanted {
    Wanted::exit(&[2, 3], told)
}

/// The smallest image that has a version.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 0x400];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    let banner = b"6.7.1 (a@b) #1 SMP";
    image[0x300..0x300 + banner.len()].copy_from_slice(banner);
    image
}
