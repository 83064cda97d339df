//! A job: its definition, its kernel, and what is submitted of its results.

use super::{PullError, Web};
use lab_base::{file::FileError, text};
use lab_guard::Id;
use lab_kernel_store::{sha256_of, unpack_modules};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The type of tests that are cells of the suite; `subset` has their names, and without it all of them run.
const TYPE: &str = "netkit-lab";
/// The architecture of the guests.
const ARCH: &str = "x86_64";
/// Maximum bytes of a kernel, and of an archive of modules. KernelCI's have 15 MiB and 0.1 GiB.
const MOST_KERNEL: u64 = 256 << 20;
const MOST_MODULES: u64 = 1 << 30;
/// Maximum characters of what an error quotes.
const QUOTED: usize = 100;

/// A job of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullJob {
    /// Its node in KernelCI.
    pub node: Id,
    /// The address of its definition.
    pub definition: String,
    /// The node of the kernel's build.
    pub build: Option<Id>,
}

/// What a run of a job needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedJob {
    /// The kernel.
    pub image: PathBuf,
    /// `lib/modules/<release>`.
    pub modules: Option<PathBuf>,
    /// Patterns of cells; all of them where there is none.
    pub cases: Vec<String>,
    /// How long the run may take, seconds.
    pub timeout_s: Option<u64>,
}

/// The parts of a definition that are used (kernelci-core, `config/runtime/base/pull_labs.jinja2`).
#[derive(Deserialize)]
struct JobDefinition {
    artifacts: BTreeMap<String, String>,
    tests: Vec<JobTest>,
    environment: JobEnvironment,
    #[serde(default)]
    integrity: Option<Integrity>,
}

#[derive(Deserialize)]
struct JobTest {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    subset: Vec<String>,
    #[serde(default)]
    timeout_s: Option<u64>,
}

#[derive(Deserialize)]
struct JobEnvironment {
    arch: String,
}

#[derive(Deserialize)]
struct Integrity {
    #[serde(default)]
    sha256: BTreeMap<String, String>,
}

impl JobDefinition {
    /// The tests for this lab.
    fn tests(&self) -> Result<Vec<&JobTest>, PullError> {
        let quoted = |words: &str| text::line(words, QUOTED);
        if self.environment.arch != ARCH {
            return Err(PullError::Unfit(format!(
                "it is for {}, and guests are {ARCH}",
                quoted(&self.environment.arch)
            )));
        }
        let ours: Vec<&JobTest> = self.tests.iter().filter(|test| test.kind == TYPE).collect();
        if ours.is_empty() {
            let kinds: Vec<String> = self.tests.iter().map(|test| quoted(&test.kind)).collect();
            let kinds = if kinds.is_empty() { "none".to_owned() } else { quoted(&kinds.join(", ")) };
            return Err(PullError::Unfit(format!("it has no test of the type {TYPE} (types: {kinds})")));
        }
        Ok(ours)
    }

    /// Fetches an artifact and compares it with its hash.
    fn fetch(&self, web: Web, name: &'static str, most: u64, to: &Path) -> Result<bool, PullError> {
        let Some(url) = self.artifacts.get(name) else { return Ok(false) };
        let sums = self.integrity.as_ref().map(|integrity| &integrity.sha256);
        let wanted = sums.and_then(|sums| sums.get(name)).map(|sum| sum.to_ascii_lowercase());
        let wanted = wanted.filter(|sum| sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(wanted) = wanted else {
            return Err(PullError::Unfit(format!("integrity.sha256 has no hash of its {name}")));
        };
        web.fetch(url, name, most, to)?;
        let found = sha256_of(to)?;
        if found == wanted {
            return Ok(true);
        }
        fs::remove_file(to).map_err(FileError::of("remove", to))?;
        Err(PullError::OtherFile { url: url.clone(), found, wanted })
    }
}

/// Patterns of the cells of these tests, none where all are wanted: a test without a subset is the whole suite.
fn cases(tests: &[&JobTest]) -> Vec<String> {
    let all = tests.iter().any(|test| test.subset.is_empty());
    if all { Vec::new() } else { tests.iter().flat_map(|test| test.subset.clone()).collect() }
}

impl PullJob {
    /// Fetches what the job needs into a directory of its own, which is emptied first.
    ///
    /// # Errors
    /// The definition or an artifact can't be fetched, is none, or has another hash; or the job is for another lab.
    pub fn prepare(&self, web: Web, directory: &Path) -> Result<PreparedJob, PullError> {
        if directory.exists() {
            fs::remove_dir_all(directory).map_err(FileError::of("remove", directory))?;
        }
        fs::create_dir_all(directory).map_err(FileError::of("create", directory))?;
        let definition: JobDefinition = web.json(&self.definition, "a job definition", directory)?;
        let tests = definition.tests()?;
        let (image, archive) = (directory.join("kernel"), directory.join("modules.tar"));
        if !definition.fetch(web, "kernel", MOST_KERNEL, &image)? {
            return Err(PullError::Unfit("it has no kernel".to_owned()));
        }
        let modules = if definition.fetch(web, "modules", MOST_MODULES, &archive)? {
            let found = unpack_modules(&archive, &directory.join("modules"))?;
            fs::remove_file(&archive).map_err(FileError::of("remove", &archive))?;
            Some(found)
        } else {
            None
        };
        let cases = cases(&tests);
        let times: Option<Vec<u64>> = tests.iter().map(|test| test.timeout_s).collect();
        let timeout_s = times.map(|times| times.into_iter().fold(0, u64::saturating_add)).filter(|sum| *sum > 0);
        Ok(PreparedJob { image, modules, cases, timeout_s })
    }

    /// What is submitted of a run's KCIDB report: tests of the build that the job names, which KernelCI has submitted itself. Of
    /// a job without a build the kernel is submitted, too.
    ///
    /// # Errors
    /// The text is no report.
    pub fn submission(&self, report: &str, build_origin: &str) -> Result<String, serde_json::Error> {
        let mut report: Value = serde_json::from_str(report)?;
        let own = report.as_object_mut();
        if let (Some(report), Some(build)) = (own, &self.build) {
            report.remove("checkouts");
            report.remove("builds");
            let tests = report.get_mut("tests").and_then(Value::as_array_mut);
            for test in tests.into_iter().flatten() {
                test["build_id"] = json!(format!("{build_origin}:{build}"));
                test["misc"]["job"] = json!(self.node.as_str());
            }
        }
        Ok(format!("{report:#}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(change: impl Fn(&mut Value)) -> JobDefinition {
        let mut value = json!({
            "artifacts": { "kernel": "http://queue/bzImage" },
            "tests": [
                { "id": "boot", "type": "boot", "depends": [], "timeout_s": 600 },
                { "id": "nk", "type": "netkit-lab", "depends": [], "timeout_s": 900, "subset": ["A01*"] },
            ],
            "environment": { "platform": "qemu-x86", "arch": "x86_64", "console": { "method": "serial", "baud": 115200 } },
            "callback": { "url": "http://queue/node/1", "token_name": "x" },
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_job_for_another_lab_is_told_why() {
        assert_eq!(definition(|_| ()).tests().unwrap().len(), 1);
        let why = |change: &dyn Fn(&mut Value)| definition(change).tests().err().unwrap().to_string();
        assert_eq!(
            why(&|job| job["environment"]["arch"] = json!("arm64")),
            "the job can't be run here: it is for arm64, and guests are x86_64"
        );
        assert_eq!(
            why(&|job| job["tests"][1]["type"] = json!("ltp")),
            "the job can't be run here: it has no test of the type netkit-lab (types: boot, ltp)"
        );
    }

    #[test]
    fn a_test_without_a_subset_is_the_whole_suite_beside_any_other() {
        let of = |second: Value| {
            let job = definition(|job| job["tests"].as_array_mut().unwrap().push(second.clone()));
            cases(&job.tests().unwrap())
        };
        assert_eq!(of(json!({ "type": "ltp" })), ["A01*"]);
        assert_eq!(of(json!({ "type": "netkit-lab", "subset": ["B*", "C*"] })), ["A01*", "B*", "C*"]);
        assert_eq!(of(json!({ "type": "netkit-lab" })), [""; 0]);
    }

    #[test]
    fn tests_belong_to_the_build_of_the_job() {
        let job = |build: Option<&str>| PullJob {
            node: Id::new("n1").unwrap(),
            definition: String::new(),
            build: build.map(|id| Id::new(id).unwrap()),
        };
        let report = r#"{"version":{},"checkouts":[1],"builds":[1],"tests":[{"id":"a","build_id":"own","misc":{}}]}"#;
        let of = |job: &PullJob| serde_json::from_str::<Value>(&job.submission(report, "maestro").unwrap()).unwrap();
        let attached = of(&job(Some("b1")));
        assert_eq!(
            attached,
            json!({ "version": {}, "tests": [{ "id": "a", "build_id": "maestro:b1", "misc": { "job": "n1" } }] })
        );
        assert_eq!(of(&job(None)), serde_json::from_str::<Value>(report).unwrap());
        assert!(job(None).submission("<html>", "maestro").is_err());
    }
}
