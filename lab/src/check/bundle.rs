//! The cells of a check, and the files that their loader reads.

use super::{inputs::CheckInput, loaders::ChosenLoader};
use crate::{
    error::Error,
    exec::ExecRequest,
    world::{ClosureProgram, Options, RootChoice, World},
};
use lab_base::held::HeldFile;
use lab_check::CheckOrder;
use lab_protocol::{CellInfo, Raw, witness::AttachRules, work::Inherit};
use lab_record::plan::KernelFacts;
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// Area of the cells.
const AREA: &str = "check";
/// Where the loader and the bundles are in the guest.
const PLACE: &str = "/check";

/// What a check runs.
pub struct CheckPlan {
    /// A cell for each object.
    pub cells: Vec<CellInfo>,
    /// The files for guests.
    pub world: Arc<World>,
    /// The bundles, and the artefacts as guests write them.
    pub bundles: Bundles,
}

/// Files that exist as long as this value.
pub struct Bundles {
    directory: TempDir,
}

impl Bundles {
    /// Where guests put artefacts.
    fn artifacts(&self) -> PathBuf {
        self.directory.path().join("artifacts")
    }

    /// Moves what guests wrote to the run's directory. Returns the number of files.
    ///
    /// # Errors
    /// A file can't be copied.
    pub fn keep_artifacts(&self, run: &Path) -> Result<usize, Error> {
        let mut count = 0;
        for entry in walkdir::WalkDir::new(self.artifacts()).into_iter().flatten() {
            let Ok(below) = entry.path().strip_prefix(self.artifacts()) else { continue };
            if entry.file_type().is_file() {
                let to = run.join("verifier").join(below);
                let copy = || fs::create_dir_all(to.parent().unwrap_or(run)).and_then(|()| fs::copy(entry.path(), &to));
                copy().map_err(Error::file("write", &to))?;
                count += 1;
            }
        }
        Ok(count)
    }
}

impl CheckPlan {
    /// Writes the bundles.
    ///
    /// # Errors
    /// The disk is full, or a file can't be served.
    pub fn new(
        inputs: &[CheckInput],
        kernels: &[KernelFacts],
        loader: &HeldFile,
        loaders: &[ChosenLoader],
        timeout: Option<Duration>,
        cache: &Path,
    ) -> Result<Self, Error> {
        let directory = lab_vm::scratch()?;
        let bundles = Bundles { directory };
        let mut files = Vec::new();
        let place = |name: &str| PathBuf::from(format!("{PLACE}/{name}"));
        // The one that was built and read: a build beside this run replaces the file.
        let program = bundles.directory.path().join("loader");
        let bytes = loader.bytes().map_err(Error::file("read", loader.path()))?;
        fs::write(&program, bytes).map_err(Error::file("write", &program))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&program, mode).map_err(Error::file("change", &program))?;
        files.push((program, place("loader")));
        for (input, by) in pairs(inputs, loaders) {
            let name = by.cell(&input.name);
            let path = bundles.directory.path().join(format!("{name}.bundle"));
            let order =
                serde_json::to_string(&order(input, by, kernels)).map_err(|error| Error::Host(error.to_string()))?;
            let written = File::create(&path).and_then(|mut file| {
                file.write_all(order.as_bytes())?;
                file.write_all(b"\n")?;
                file.write_all(&input.bytes)
            });
            written.map_err(Error::file("write", &path))?;
            files.push((path, place(&name)));
        }
        files.extend(loaders.iter().flat_map(|by| by.programs.iter().cloned()));
        let as_they_are = loaders.iter().flat_map(|by| by.files.iter().cloned()).collect();
        let options = Options {
            root: RootChoice::None,
            program: ClosureProgram { files, as_they_are, ..ClosureProgram::default() },
            cwd: PathBuf::from("/"),
            out: Some(bundles.artifacts()),
            ..Options::default()
        };
        let world = Arc::new(World::new(options, cache)?);
        let cells = pairs(inputs, loaders).flat_map(|(input, by)| cells(input, by, &world, timeout)).collect();
        Ok(Self { cells, world, bundles })
    }
}

/// Each object with each loader.
fn pairs<'a>(
    inputs: &'a [CheckInput],
    loaders: &'a [ChosenLoader],
) -> impl Iterator<Item = (&'a CheckInput, &'a ChosenLoader)> {
    inputs.iter().flat_map(move |input| loaders.iter().map(move |by| (input, by)))
}

/// What the loader is to do.
fn order(input: &CheckInput, by: &ChosenLoader, kernels: &[KernelFacts]) -> CheckOrder {
    let expect = kernels
        .iter()
        .map(|kernel| (kernel.id.to_string(), input.config.expected(&input.name, &by.name, kernel.version)));
    let (name, loader) = (input.name.clone(), by.loader.clone());
    CheckOrder { name, loader, expect: expect.collect(), ..input.config.order.clone() }
}

fn cells(input: &CheckInput, by: &ChosenLoader, world: &World, timeout: Option<Duration>) -> Vec<CellInfo> {
    let name = by.cell(&input.name);
    let request = ExecRequest {
        argv: [format!("{PLACE}/loader"), format!("{PLACE}/{name}")].map(|word| Raw::from(&*word)).to_vec(),
        name: Some(name),
        stages: Vec::new(),
        node: None,
        env: Vec::new(),
        inherit: Inherit::Named(Vec::new()),
        world: Some(world.spec().clone()),
        cwd: Raw::from(&world.spec().cwd),
        user: None,
        timeout_ms: timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        core_bytes: 0,
        sysctl: Vec::new(),
        // What another program attaches, and where, nobody but the kernel says.
        witness: (!by.is_libbpf()).then(AttachRules::default),
        requires: Vec::new(),
    };
    let mut cells = request.cells(false, None);
    for cell in &mut cells {
        cell.area = AREA.to_owned();
        let with = if by.is_libbpf() { String::new() } else { format!(" with {}", by.name) };
        cell.title = format!("{} loads, attaches and treats packets as expected{with}", input.path.display());
        cell.file = input.path.display().to_string();
    }
    cells
}
