//! Programs of the host that fail: one error with their own words, without the lines of Python.

use crate::{Test, fake::Scenario, searches};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

/// What the exception says.
const SAYS: &str = "OSError: [Errno 28] no room for a socket";
/// How many times it may be told: where it happens, as the outcome of the boot, and as the reason of cells that did not run.
const AT_MOST: usize = 3;

pub const TESTS: [Test; 1] = [("a vng that fails is told once, without a traceback", failing_vng)];

fn failing_vng() {
    for (retries, at_once) in [("0", "1"), ("2", "1")] {
        let scratch = tempfile::Builder::new().prefix("program-").tempdir().unwrap();
        let scenario: Scenario = searches::scenario("").after(break_vng);
        let words = ["run", "--no-build", "--cold", "--retries", retries, "--jobs", at_once];
        let output = scenario.other("by-modules", scratch.path(), &words, "6.12").output().unwrap();
        let (errors, summary) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        let told = format!("{errors}{summary}");
        assert_eq!(output.status.code(), Some(3), "{told}");
        assert!(told.contains(SAYS), "{told}");
        for python in ["Traceback", "File \"", "in <module>", "sys.exit", "~~~^"] {
            assert!(!told.contains(python), "{python}: {told}");
        }
        assert!(told.matches(SAYS).count() <= AT_MOST, "{told}");
    }
}

/// Puts a vng into the cache that ends as a Python program with an exception does.
fn break_vng(cache: &Path) {
    let (tools, real) = (cache.join("tools"), fs::canonicalize(cache.join("tools")).unwrap());
    fs::remove_file(&tools).unwrap();
    fs::create_dir(&tools).unwrap();
    for entry in fs::read_dir(real).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if !name.starts_with("virtme-ng-") {
            symlink(entry.path(), tools.join(name)).unwrap();
            continue;
        }
        let bin = tools.join(name).join("bin");
        fs::create_dir_all(&bin).unwrap();
        symlink(entry.path().join("bin/python3"), bin.join("python3")).unwrap();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && echo 'virtme-ng 1.42' && exit\ncat >&2 <<'END'\n\
             Traceback (most recent call last):\n  File \"/x/bin/vng\", line 8, in <module>\n    sys.exit(main())\n             \
             ~~~~^^\n  File \"/x/run.py\", line 12, in main\n    raise OSError(28)\n{SAYS}\nEND\nexit 1\n"
        );
        fs::write(bin.join("vng"), script).unwrap();
        fs::set_permissions(bin.join("vng"), fs::Permissions::from_mode(0o755)).unwrap();
    }
}
