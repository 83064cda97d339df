//! `lab check --predict`: what the type information and the configuration of kernels say of objects, without booting one.
//!
//! Only what is certain is told: a kfunc whose name does not occur in the kernel's type information, and that is in no module that is
//! known to have such kfuncs, can't be resolved. That nothing speaks against an object is no proof that it loads.

use super::inputs::CheckInput;
use crate::error::Error;
use lab_check::module_of;
use lab_image::TypeNames;
use lab_kernel_store::BootableKernel;
use std::{fs, panic::resume_unwind, thread};

/// What is known of one object on one kernel.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Predicted {
    /// The kernel's name.
    pub kernel: String,
    /// Its version.
    pub version: String,
    /// The class of the failure to load, if it is certain.
    pub load: Option<&'static str>,
    /// Why.
    pub reasons: Vec<String>,
    /// Whether the kernel has tcx; `None` without type information.
    pub tcx: Option<bool>,
    /// Whether it has netkit.
    pub netkit: Option<bool>,
}

/// What is read of a kernel.
struct KernelNames<'a> {
    kernel: &'a BootableKernel,
    names: Option<TypeNames>,
    /// Whether its configuration has netkit; `None` without a configuration.
    netkit: Option<bool>,
}

/// Reads the kernels once, and looks at each object.
///
/// # Errors
/// An image can't be read.
pub fn predict(inputs: &[CheckInput], kernels: &[BootableKernel]) -> Result<Vec<(String, Vec<Predicted>)>, Error> {
    let read = thread::scope(|scope| {
        let threads: Vec<_> = kernels.iter().map(|kernel| scope.spawn(move || KernelNames::of(kernel))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.collect::<Result<Vec<_>, Error>>()
    })?;
    let of = |input: &CheckInput| (input.name.clone(), read.iter().map(|kernel| kernel.predicted(input)).collect());
    Ok(inputs.iter().map(of).collect())
}

impl<'a> KernelNames<'a> {
    fn of(kernel: &'a BootableKernel) -> Result<Self, Error> {
        let names = TypeNames::of(&kernel.vmlinuz).map_err(|error| Error::Host(error.to_string()))?;
        let config = kernel.config.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let netkit = config.map(|text| text.lines().any(|line| line == "CONFIG_NETKIT=y" || line == "CONFIG_NETKIT=m"));
        Ok(Self { kernel, names, netkit })
    }

    fn predicted(&self, input: &CheckInput) -> Predicted {
        let (mut load, mut reasons) = (None, Vec::new());
        if let Some(names) = &self.names {
            for kfunc in input.object.kfuncs.iter().filter(|kfunc| !names.has(&kfunc.name)) {
                match (module_of(&kfunc.name), kfunc.is_weak) {
                    (Some(module), _) => reasons.push(format!("kfunc {} is in the module {module}", kfunc.name)),
                    (None, true) => reasons.push(format!("no kfunc {}, which is weak", kfunc.name)),
                    (None, false) => {
                        load = Some("kfunc");
                        reasons.push(format!("no kfunc {}", kfunc.name));
                    }
                }
            }
        } else {
            reasons.push("its type information can't be read".to_owned());
        }
        let has = |name: &str| self.names.as_ref().map(|names| names.has(name));
        let netkit = has("BPF_NETKIT_PRIMARY").map(|known| known && self.netkit.unwrap_or(true));
        Predicted {
            kernel: self.kernel.id.to_string(),
            version: self.kernel.version.to_string(),
            load,
            reasons,
            tcx: has("BPF_TCX_INGRESS"),
            netkit,
        }
    }
}

/// The predictions as a table.
pub fn table(predicted: &[(String, Vec<Predicted>)]) -> String {
    let mark = |known: Option<bool>| known.map_or("?", |has| if has { "yes" } else { "no" });
    let mut out = String::new();
    for (object, kernels) in predicted {
        out += &format!("{:26}{:18}{:6}{:6}\n", object, "load (predicted)", "tcx", "netkit");
        for it in kernels {
            let load = match it.load {
                Some(class) => format!("✗ {class}"),
                None if it.reasons.is_empty() => "nothing against it".to_owned(),
                None => "uncertain".to_owned(),
            };
            let reasons = lab_base::text::line(&it.reasons.join("; "), 200);
            let line = format!("  {:24}{load:18} {:6}{:6} {reasons}", it.kernel, mark(it.tcx), mark(it.netkit));
            out += &format!("{}\n", line.trim_end());
        }
        out.push('\n');
    }
    out
}
