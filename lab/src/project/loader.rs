//! The guest program of `lab check`, which loads objects with libbpf. Only that command needs it, so only it and `lab build` build
//! it. libbpf is compiled from the sources that its crate has, against the libelf and zlib of this host or of the lab's cache.

use super::agent_package::AgentPackage;
use super::artifacts::{AGENT_DIR, AGENT_TARGET, ArtifactError, Builder, executable, read_artifact};
use super::home::Home;
use crate::setup::Tools;
use lab_base::held::HeldFile;
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The program's package, and its file in an installation.
pub const LOADER: &str = "lab-loader";
const WHAT: &str = "the loader";
/// Where Debian has archives; other distributions have them in `usr/lib64`.
const LIBRARIES: [&str; 3] = ["usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib"];

/// Headers and archives of libelf and zlib.
#[derive(Debug, Clone)]
pub struct ElfLibrary {
    /// The directory of the headers.
    pub include: PathBuf,
    /// That of the archives.
    pub libraries: PathBuf,
}

impl ElfLibrary {
    /// The library below a root.
    fn below(root: &Path) -> Option<Self> {
        let include = root.join("usr/include");
        let has_headers = ["gelf.h", "zlib.h"].iter().all(|name| include.join(name).is_file());
        let mut places = LIBRARIES.iter().map(|place| root.join(place));
        let libraries = places.find(|place| ["libelf.a", "libz.a"].iter().all(|name| place.join(name).is_file()))?;
        has_headers.then_some(Self { include, libraries })
    }

    /// That of a cache, else that of this host.
    pub fn find(cache: &Path) -> Option<Self> {
        let private = Tools::in_cache(cache).elf_library();
        private.and_then(|set| Self::below(set.root())).or_else(|| Self::below(Path::new("/")))
    }
}

impl Builder<'_> {
    /// The loader that is there, without building it.
    ///
    /// # Errors
    /// [`ArtifactError::Absent`].
    pub fn existing_loader(&self) -> Result<HeldFile, ArtifactError> {
        if let Home::Installed { library, .. } = self.home {
            return read_artifact(WHAT, library.join(LOADER));
        }
        // cargo takes the old file away before it puts the new one there.
        let _lock = self.beside()?;
        read_artifact(WHAT, self.target_dir(AGENT_DIR).join(AGENT_TARGET).join("release").join(LOADER))
    }

    /// The loader; in a checkout it is built where it is stale.
    ///
    /// # Errors
    /// There is no libelf, or the compiler failed.
    pub fn loader(&self) -> Result<HeldFile, ArtifactError> {
        let Home::Checkout(root) = self.home else { return self.existing_loader() };
        let elf = ElfLibrary::find(self.cache).ok_or(ArtifactError::NoElfLibrary)?;
        let _lock = self.alone(&AgentPackage::load(self.project)?)?;
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let target = self.target_dir(AGENT_DIR);
        let mut args: Vec<OsString> =
            ["build", "--release", "--quiet", "--message-format=json-render-diagnostics"].map(OsString::from).to_vec();
        args.extend(
            ["--package", LOADER, "--features", "libbpf", "--target", AGENT_TARGET, "--target-dir"].map(Into::into),
        );
        args.push(target.into());
        let mut include = OsString::from("-I");
        include.push(&elf.include);
        let command = duct::cmd(&cargo, args)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            // As the agent, so that what both use is compiled once.
            .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
            .env("LIBBPF_SYS_EXTRA_CFLAGS", include)
            .env("LIBBPF_SYS_LIBRARY_PATH", &elf.libraries)
            // It is asked for flags that the two variables above give; nothing else comes of it.
            .env("PKG_CONFIG", "true")
            .dir(root);
        let messages = self.run(WHAT, &cargo.to_string_lossy(), command)?;
        let path = executable(&messages, LOADER).ok_or(ArtifactError::Unnamed { what: WHAT })?;
        read_artifact(WHAT, path)
    }
}
