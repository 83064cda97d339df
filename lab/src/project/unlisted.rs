//! A kernel of this host that is named on the command line, so that no file has to name it.

use super::absolute;
use crate::error::Error;
use lab_base::say::say;
use lab_guard::Id;
use lab_kernel_store::{Debian, Kernel, KernelClass, KernelMatrix, LocalKernel, Source};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Files of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlisted {
    /// A bzImage, with its `lib/modules/<release>`.
    Image {
        /// The image.
        image: PathBuf,
        /// Its modules; without them only what is built in is there.
        modules: Option<PathBuf>,
    },
    /// A kernel tree that has been built.
    Tree(PathBuf),
}

impl Unlisted {
    /// The id by which plans and reports name it.
    pub const fn id(&self) -> &'static str {
        match self {
            Self::Image { .. } => "image",
            Self::Tree(_) => "tree",
        }
    }

    /// The arguments that name it.
    pub fn words(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        match self {
            Self::Image { image, modules } => {
                let modules = modules.iter().flat_map(|it| ["--modules".to_owned(), path(it)]);
                ["--image".to_owned(), path(image)].into_iter().chain(modules).collect()
            }
            Self::Tree(tree) => vec!["--tree".to_owned(), path(tree)],
        }
    }

    /// A matrix of this kernel alone.
    pub(super) fn config(&self, root: &Path) -> Result<KernelMatrix, Error> {
        let source = match self {
            Self::Image { image, modules } => {
                let image = absolute(image)?;
                if modules.is_none() {
                    say(&format!(
                        "hint: {} is tested without modules, so what is not built in fails; --modules DIR names its lib/modules/RELEASE",
                        image.display()
                    ));
                }
                let modules = modules.as_deref().map(absolute).transpose()?;
                LocalKernel::Image { image, modules, config: None }
            }
            Self::Tree(tree) => LocalKernel::Tree { tree: absolute(tree)? },
        };
        let kernel = Kernel {
            id: Id::new(self.id())?,
            variant_of: None,
            files_of: None,
            class: KernelClass::Own("local".to_owned()),
            default: true,
            may_fail: false,
            source: Source::Path(source),
            unsupported: Vec::new(),
            has: Vec::new(),
            believe_probes: None,
            cmdline: Vec::new(),
            memory_mib: None,
        };
        Ok(KernelMatrix {
            kernels: vec![kernel],
            debian: Debian::default(),
            dir: root.to_owned(),
            hints: Vec::new(),
            local: BTreeSet::new(),
        })
    }
}
