//! Other users of the machine, and a umask that gives them access.

use crate::{
    attack::{Attack, By, Wanted},
    stage::{ROOT, Seen, Stage},
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    time::Duration,
};

const PROMISE: &str =
    "Launch directories and the cache are the user's own, and nothing is trusted that others can write";

fn row(name: &'static str, what: &'static str, wanted: Wanted, act: fn(&Stage<'_>) -> Seen) -> Attack {
    Attack { name, by: By::User, what, promise: PROMISE, wanted, act }
}

/// The program under a umask of 0.
fn open_to_all(stage: &Stage<'_>, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"umask 0; exec "$@""#, "sh", env!("CARGO_BIN_EXE_lab"), "--project", ROOT]).args(arguments);
    stage.dressed(command)
}

fn with_mode(path: &Path, mode: u32) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn listed(stage: &Stage<'_>) -> Seen {
    stage.finish(open_to_all(stage, &["kernels", "list"]), Duration::from_secs(60))
}

/// The rows.
pub fn attacks() -> Vec<Attack> {
    let refused = || Wanted::exit(&[3], &["can be written by other users", "chmod go-w"]);
    vec![
        row("cache-under-an-open-umask", "a cache is made under a umask of 0", Wanted::exit(&[0], &[]), |stage| {
            with_mode(stage.scratch, 0o755);
            let mut seen = listed(stage);
            for entry in walkdir::WalkDir::new(stage.scratch.join("cache")).into_iter().flatten() {
                let mode = entry.metadata().unwrap().mode() & 0o777;
                let wrong = if entry.depth() == 0 { mode != 0o700 } else { mode & 0o022 != 0 };
                if wrong {
                    seen.wrong.push(format!("{} has mode {mode:o}", entry.path().display()));
                }
            }
            seen
        }),
        row("cache-was-planted", "others could write to the cache", refused(), |stage| {
            with_mode(stage.scratch, 0o755);
            with_mode(&stage.scratch.join("cache"), 0o777);
            fs::write(stage.scratch.join("cache/accelerator.json"), "{}").unwrap();
            listed(stage)
        }),
        row(
            "temporary-directory-is-shared",
            "others can replace what lies in the directory for temporary files",
            Wanted { seconds: 90, ..Wanted::exit(&[3], &["can be written by other users", "chmod go-w"]) },
            |stage| {
                with_mode(stage.scratch, 0o755);
                let shared = stage.scratch.join("shared");
                with_mode(&shared, 0o777);
                let project = crate::guests::project(&stage.scratch.join("run"));
                let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
                command.arg("--project").arg(project).args([
                    "run",
                    "--no-build",
                    "--cold",
                    "--kernel",
                    "6.12",
                    "--case",
                    "X00*",
                ]);
                command.arg("--out").arg(stage.scratch.join("results"));
                let mut command = stage.dressed(command);
                // The kernels of this machine.
                command.env_remove("NETKIT_LAB_CACHE").env("TMPDIR", shared);
                stage.finish(command, Duration::from_secs(90))
            },
        ),
        row("cache-can-be-replaced", "others can write to the directory of the cache", refused(), |stage| {
            with_mode(stage.scratch, 0o777);
            listed(stage)
        }),
    ]
}
