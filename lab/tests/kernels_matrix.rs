//! Kernels of every source in one run and one table, and what only the one with debugging notices. `make kernels-matrix`: it
//! compiles two kernels where the cache does not have them.

#[path = "support/apt.rs"]
mod apt;
#[path = "support/archive.rs"]
#[allow(dead_code, reason = "what a source refuses is tested elsewhere")]
mod archive;
#[path = "support/fedora.rs"]
mod fedora;
#[path = "support/rpm.rs"]
mod rpm;
#[path = "support/ubuntu.rs"]
mod ubuntu;

use archive::{Project, ROOT, Signer, text};
use std::{collections::BTreeMap, fs, path::Path, process::Command};

/// Kernels of this checkout's matrix: Debian 12's, Debian 11's, and the one with debugging, each with its entry in the lock.
const DEBIANS: [&str; 3] = ["6.1", "5.10", "6.12+debug"];
/// Kernels of archives that the test makes.
const MADE: [&str; 3] = ["ubuntu-25.10", "fedora-43", "container"];
/// A case of each kind: attached by each mechanism, verdicts, traffic through a tunnel, packet sizes.
const CASES: [&str; 8] = ["A01-*", "A02-*", "A04-*", "V01-*", "T08-*", "U05-*", "U07-*", "U08-*"];

/// `kernels.toml`, and a lock that has the entries of this checkout's kernels.
fn matrix(project: &Project, committed: &Path) {
    let at = |name: &str| project.at(name).display().to_string();
    let own = |file: &str| committed.join(file).display().to_string();
    let debian = |suite: &str, series: &str| {
        format!("source.deb = {{ suite = \"{suite}\", package = \"linux-image-{series}.*-cloud-amd64\" }}\n")
    };
    let text = [
        format!("[kernels.\"6.1\"]\nclass = \"below-6.7\"\ndefault = true\n{}", debian("bookworm-security", "6.1")),
        format!(
            "[kernels.\"ubuntu-25.10\"]\nclass = \"25.10\"\nsource.apt = {{ archive = \"file:{}\", suite = \"plucky\", \
             keyring = \"keyring.gpg\", package = \"linux-image-unsigned-*\", modules = [\"linux-modules-{{release}}\"], \
             extra = [\"linux-modules-extra-{{release}}\"] }}\n",
            at("archive")
        ),
        format!(
            "[kernels.\"fedora-43\"]\nclass = \"6.7+\"\nsource.rpm = {{ repository = \"file:{}\", keyring = \"keyring.gpg\", \
             signed = \"both\", package = \"kernel-core\" }}\n",
            at("repository")
        ),
        "[kernels.container]\nclass = \"6.7+\"\nsource.oci = { layout = \"images\", tag = \"6.12\" }\n".to_owned(),
        format!("[kernels.\"6.12\"]\nclass = \"6.7+\"\n{}", debian("bookworm-security", "6.12")),
        format!(
            "[kernels.\"6.12\".variants.debug]\nfragment = \"{}\"\nmodules = [\"{}\"]\nmemory_mib = 2048\n",
            own("kernels/debug.config"),
            own("kernels/faults")
        ),
        format!("[kernels.\"5.10\"]\nclass = \"below-6.7\"\n{}", debian("bullseye-security", "5.10")),
    ];
    fs::write(project.at("kernels.toml"), text.join("\n")).unwrap();
    let lock = fs::read_to_string(committed.join("kernels.lock")).unwrap();
    let mut lock: toml::Table = lock.parse().unwrap();
    let entries = lock["kernels"].as_table_mut().unwrap();
    entries.retain(|id, _| DEBIANS.contains(&id) || id == "6.12");
    fs::write(project.at("kernels.lock"), lock.to_string()).unwrap();
}

fn lab(project: &Project, arguments: &[&str]) -> (Option<i32>, String) {
    let output = project.lab(arguments, false);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
#[ignore = "compiles a kernel, and runs six"]
fn one_run_has_a_row_for_the_kernels_of_every_source() {
    let root = Path::new(ROOT).canonicalize().unwrap();
    let (project, signer) = (Project::new(), Signer::new());
    project.borrow_build();
    fs::copy(root.join("known.toml"), project.at("known.toml")).unwrap();
    signer.export(&project.at("keyring.gpg"));
    let ubuntu = ubuntu::Shape::of_debians("6.17");
    apt::publish(&project.at("archive"), &ubuntu.packages("6.17.0-8.8"), apt::FRESH, &signer);
    let (_, fedora) = fedora::of_debians("6.12", "6.12.117");
    let signed: Vec<_> = fedora.iter().map(|package| (package, Some(&signer))).collect();
    rpm::publish(&project.at("repository"), &signed, &signer);
    matrix(&project, &root);
    let (code, told) =
        lab(&project, &["kernels", "push", "6.12", project.at("images").to_str().unwrap(), "--tag", "6.12"]);
    assert_eq!(code, Some(0), "{told}");
    for id in MADE {
        let (code, told) = lab(&project, &["kernels", "update", "--kernel", id]);
        assert!(code == Some(0) && told.contains(&format!("{id}: new, ")), "{told}");
    }
    let kernels = DEBIANS.iter().chain(&MADE).copied().collect::<Vec<_>>().join(",");
    let (code, told) = lab(&project, &[&["run", "--no-build", "--kernel", &*kernels][..], &CASES].concat());
    println!("{told}");
    assert_eq!(code, Some(0));
    let run = fs::read(project.at("results/latest/run.json")).unwrap();
    let run: serde_json::Value = serde_json::from_slice(&run).unwrap();
    let passed: BTreeMap<&str, u64> = DEBIANS
        .iter()
        .chain(&MADE)
        .map(|id| (*id, run["kernels"][id]["counts"]["passed"].as_u64().unwrap_or_default()))
        .collect();
    assert!(passed.values().all(|count| *count > 3), "{passed:?}");
    // What has netkit runs the same cells, whatever its source; what has neither netkit nor tcx runs fewer.
    let same = ["ubuntu-25.10", "fedora-43", "container", "6.12+debug"].map(|id| passed[id]);
    assert!(same.iter().all(|count| *count == same[0] && *count > passed["6.1"]), "{passed:?}");
    assert!(passed["6.1"] > passed["5.10"], "{passed:?}");
}

/// A module with a fault, and what the kernel with debugging calls it: the class of the splat, its title, and a frame.
const FAULTS: [(&str, &str, &str, &str); 3] = [
    (
        "lab_use_after_free",
        "kasan",
        "BUG: KASAN: slab-use-after-free in lab_use_after_free_init",
        "lab_use_after_free_init",
    ),
    ("lab_lock_inversion", "lockdep", "WARNING: possible circular locking dependency detected", "lab_inverted"),
    ("lab_leak", "leak", "kmemleak: unreferenced object", "lab_lose"),
];

#[test]
#[ignore = "compiles two kernels"]
fn only_the_kernel_with_debugging_notices_the_faults_of_modules() {
    for (module, class, title, frame) in FAULTS {
        for kernel in ["6.12+plain", "6.12+debug"] {
            let results = tempfile::tempdir().unwrap();
            let output = Command::new(env!("CARGO_BIN_EXE_lab"))
                .args(["--project", ROOT, "exec", "--kernel", kernel, "--results"])
                .arg(results.path())
                .args(["--", "modprobe", module])
                .env("CI", "true")
                .output()
                .unwrap();
            let told = text(&output.stdout) + &text(&output.stderr);
            let run = fs::read(results.path().join("latest/run.json")).unwrap();
            let run: serde_json::Value = serde_json::from_slice(&run).unwrap();
            let splats = run["splats"].as_array().cloned().unwrap_or_default();
            println!("{module} on {kernel}: {:?}\n{told}", output.status.code());
            if kernel.ends_with("plain") {
                assert!(output.status.success() && splats.is_empty(), "{module} on {kernel}: {told}");
                continue;
            }
            assert!(!output.status.success(), "{module} on {kernel}: {told}");
            let ours = splats.iter().find(|splat| splat["title"].as_str().is_some_and(|it| it.starts_with(title)));
            let ours = ours.unwrap_or_else(|| panic!("{module} on {kernel}: {splats:#?}\n{told}"));
            let fingerprint = ours["fingerprint"].as_str().unwrap();
            assert!(fingerprint.starts_with(&format!("{class}-")), "{fingerprint}");
            assert!(ours["frames"].as_array().unwrap().iter().any(|it| it == frame), "{ours:#}");
        }
    }
}
