//! The guest's end of `lab check`: loads one eBPF object with libbpf, or has another loader do it, attaches its programs at every hook,
//! sends packets through them, and writes what it found to standard output, a line of JSON for each fact.
//!
//! Its only argument names a bundle: a [`CheckOrder`] in the first line, and the object behind it. It exits with 1 where something is
//! not as expected, and the last line on standard error says what.

mod attempt;
mod hooks;
mod libbpf;
mod others;
mod settings;
mod tell;
mod wire;

use attempt::{LoadedObject, load_object};
use lab_check::{CheckLoader, CheckOrder, FactLine, unmet};
use lab_protocol::KernelVersion;
use std::{env, fs, path::PathBuf, process::ExitCode};
use tell::Teller;

/// The kernel's name, which the lab sets.
const KERNEL: &str = "LAB_KERNEL";

/// Errors of the loader itself, which are no verdict on the object.
#[derive(Debug, thiserror::Error)]
enum LoaderError {
    /// A file can't be read.
    #[error("can't read {path}: {error}")]
    File { path: String, error: std::io::Error },
    /// The order is not one of this version.
    #[error("the order can't be read: {error}")]
    Order { error: serde_json::Error },
    /// There is no order.
    #[error("usage: lab-loader BUNDLE")]
    Usage,
}

fn main() -> ExitCode {
    match check() {
        Ok(lines) if lines.is_empty() => ExitCode::SUCCESS,
        Ok(lines) => {
            lines.iter().rev().for_each(|line| eprintln!("{line}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("lab-loader: {error}");
            ExitCode::from(2)
        }
    }
}

/// Does what the order says; returns what is not as expected.
fn check() -> Result<Vec<String>, LoaderError> {
    let path = env::args_os().nth(1).map(PathBuf::from).ok_or(LoaderError::Usage)?;
    let bundle = fs::read(&path).map_err(|error| LoaderError::File { path: path.display().to_string(), error })?;
    let end = bundle.iter().position(|byte| *byte == b'\n').unwrap_or(bundle.len());
    let (order, object) = bundle.split_at(end);
    let order: CheckOrder = serde_json::from_slice(order).map_err(|error| LoaderError::Order { error })?;
    let object = object.get(1..).unwrap_or_default();
    let mut tell = Teller::new(order.fault);
    let system = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let (release, version) = (system("/proc/sys/kernel/osrelease"), system("/proc/sys/kernel/version"));
    let version = KernelVersion::from_uname(&release, &version);
    tell.fact(FactLine::Loader { loader: others::name_of(&order.loader), release, version });
    let stats = libbpf::count_runs();
    if let Err(error) = &stats {
        tell.note(format!("the kernel does not count how often programs run: {error}"));
    }
    settings::modules(&order, &mut tell);
    if order.loader == CheckLoader::Libbpf {
        let loaded: Vec<LoadedObject> = load_object(&order, object, &mut tell);
        hooks::through_hooks(&order, &loaded, &mut tell);
    } else {
        others::check_by(&order, object, &mut tell);
    }
    tell.fact(FactLine::End);
    let kernel = env::var(KERNEL).unwrap_or_default();
    let expected = order.expect.get(&kernel).map(Vec::as_slice).unwrap_or_default();
    Ok(unmet(tell.facts(), expected))
}
