//! `lab check --predict`: what the type information and the configuration of kernels say of objects, without booting one. Beside a
//! boot the same is compared with what the boot showed.

use super::{answers::CheckAnswer, inputs::CheckInput};
use crate::error::Error;
use lab_check::{CheckFault, KernelTypes, LIBBPF, Prediction};
use lab_image::type_info;
use lab_kernel_store::BootableKernel;
use lab_protocol::AttachType;
use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroUsize,
    panic::resume_unwind,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Characters of a line of reasons.
const LINE: usize = 200;
/// Kernels that are read at a time, at most: each takes 30 MB meanwhile, and its image 60 more the first time.
const AT_ONCE: usize = 8;

/// What is predicted of one object on one kernel.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Predicted {
    /// The kernel's name.
    pub kernel: String,
    /// Its version.
    pub version: String,
    /// Whether it is certain that the object does not load.
    pub fails: bool,
    /// The class of that failure, if it is certain too.
    pub load: Option<&'static str>,
    /// Why.
    pub reasons: Vec<String>,
    /// Whether the kernel has tcx; `None` without type information.
    pub tcx: Option<bool>,
    /// Whether it has netkit.
    pub netkit: Option<bool>,
}

/// The predictions for an object, in the order of the kernels.
pub type ForObject = (String, Vec<Predicted>);

/// Reads each kernel once, and looks at each object.
///
/// # Errors
/// An image can't be read.
pub fn predict(inputs: &[CheckInput], kernels: &[BootableKernel], cache: &Path) -> Result<Vec<ForObject>, Error> {
    let fault = inputs.first().and_then(|input| input.config.order.fault);
    let newest = kernels.iter().max_by_key(|kernel| kernel.version);
    let names = newest.map(|kernel| with_types(kernel, cache, fault, |types| types.helpers().collect())).transpose()?;
    let names: BTreeMap<u32, String> = names.flatten().unwrap_or_default();
    let columns = in_parallel(kernels, |kernel| {
        let found = with_types(kernel, cache, fault, |types| {
            inputs.iter().map(|input| of(input, kernel, types, &names)).collect::<Vec<_>>()
        });
        Ok(found?.unwrap_or_else(|| inputs.iter().map(|_| unread(kernel)).collect()))
    });
    let columns: Vec<Vec<Predicted>> = columns.into_iter().collect::<Result<_, Error>>()?;
    let row = |at: usize| columns.iter().filter_map(|column| column.get(at).cloned()).collect();
    Ok(inputs.iter().enumerate().map(|(at, input)| (input.name.clone(), row(at))).collect())
}

/// Calls a function for each, in their order, on all processors.
fn in_parallel<T: Sync, U: Send>(all: &[T], call: impl Fn(&T) -> U + Sync) -> Vec<U> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(it) = all.get(at) else { return done };
            done.push((at, call(it)));
        }
    };
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(AT_ONCE);
    let mut done: Vec<(usize, U)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, it)| it).collect()
}

/// Reads a kernel; `None` if it has no type information that can be read.
fn with_types<T>(
    kernel: &BootableKernel,
    cache: &Path,
    fault: Option<CheckFault>,
    call: impl FnOnce(&KernelTypes<'_>) -> T,
) -> Result<Option<T>, Error> {
    let bytes = type_info(&kernel.vmlinuz, cache).map_err(|error| Error::Host(error.to_string()))?;
    let config = kernel.config.as_ref().and_then(|path| fs::read_to_string(path).ok());
    let types = bytes.as_deref().and_then(|bytes| KernelTypes::read(bytes, config.as_deref(), kernel.version));
    Ok(types.map(|types| call(&types.with_fault(fault))))
}

fn of(
    input: &CheckInput,
    kernel: &BootableKernel,
    types: &KernelTypes<'_>,
    names: &BTreeMap<u32, String>,
) -> Predicted {
    let unknown = || Prediction {
        reasons: vec!["open: the object's code or its type information is not understood".to_owned()],
        ..Prediction::default()
    };
    let found = input.code.as_ref().map_or_else(unknown, |code| types.predict(code, &input.config.order, names));
    let netkit = types.has_attach_type("BPF_NETKIT_PRIMARY");
    Predicted {
        kernel: kernel.id.to_string(),
        version: kernel.version.to_string(),
        fails: found.fails,
        load: found.class.map(lab_check::LoadClass::name),
        reasons: found.reasons,
        tcx: types.has_attach_type("BPF_TCX_INGRESS"),
        netkit: netkit.map(|known| known && types.has_option("CONFIG_NETKIT").unwrap_or(true)),
    }
}

/// Of a kernel without type information.
fn unread(kernel: &BootableKernel) -> Predicted {
    Predicted {
        kernel: kernel.id.to_string(),
        version: kernel.version.to_string(),
        fails: false,
        load: None,
        reasons: vec!["open: the kernel's type information can't be read".to_owned()],
        tcx: None,
        netkit: None,
    }
}

/// What boots have shown of predictions.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Compared {
    /// Predictions that were certain, and that a boot has tried.
    pub certain: usize,
    /// Failures to load that were not predicted.
    pub unforeseen: usize,
    /// Certain predictions that a boot contradicts: faults of the prediction.
    pub contradicted: Vec<Contradiction>,
}

/// A certain prediction that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Contradiction {
    /// The object.
    pub object: String,
    /// The kernel.
    pub kernel: String,
    /// In words.
    pub text: String,
}

/// Holds predictions against boots.
pub fn compare(predicted: &[ForObject], answers: &[CheckAnswer]) -> Compared {
    let mut compared = Compared::default();
    for answer in answers.iter().filter(|answer| answer.facts.complete && answer.loader == LIBBPF) {
        let object = predicted.iter().find(|(object, _)| *object == answer.object);
        let Some(it) = object.and_then(|(_, all)| all.iter().find(|it| it.kernel == answer.kernel)) else { continue };
        let mut wrong = Vec::new();
        let (loads, class) = (answer.facts.loaded_whole(), lab_check::failure(&answer.facts));
        if it.fails {
            compared.certain += 1;
            let why = it.reasons.iter().find(|reason| !reason.starts_with("open: ")).cloned().unwrap_or_default();
            match it.load {
                _ if loads => wrong.push(format!("predicted: it does not load ({why}); it loads")),
                Some(load) if class.is_some_and(|class| class.name() != load) => {
                    let class = class.map(lab_check::LoadClass::name).unwrap_or_default();
                    wrong.push(format!("predicted: the load fails by {load} ({why}); it fails by {class}"));
                }
                _ => {}
            }
        } else if !loads {
            compared.unforeseen += 1;
        }
        for (kind, name, known) in [(AttachType::Tcx, "tcx", it.tcx), (AttachType::Netkit, "netkit", it.netkit)] {
            // A kernel without veth has devices for no hook at all.
            let hooks = answer.facts.hooks.iter().filter(|hook| hook.hook.attach_type() == kind);
            let absent: Vec<bool> = hooks.map(|hook| matches!(hook.attach, lab_check::AttachFact::Absent(_))).collect();
            let (Some(known), Some(is_absent)) = (known, absent.first()) else { continue };
            compared.certain += 1;
            if known == *is_absent {
                let words = |has: bool| if has { "has" } else { "does not have" };
                wrong.push(format!("predicted: the kernel {} {name}; it {} it", words(known), words(!is_absent)));
            }
        }
        let (object, kernel) = (&answer.object, &answer.kernel);
        let contradiction = |text| Contradiction { object: object.clone(), kernel: kernel.clone(), text };
        compared.contradicted.extend(wrong.into_iter().map(contradiction));
    }
    compared
}

/// The predictions as a table.
pub fn table(predicted: &[ForObject]) -> String {
    let mark = |known: Option<bool>| known.map_or("?", |has| if has { "yes" } else { "no" });
    let mut out = String::new();
    for (object, kernels) in predicted {
        out += &format!("{:26}{:18}{:6}{:6}\n", object, "load (predicted)", "tcx", "netkit");
        for it in kernels {
            let load = match it.load {
                Some(class) => format!("✗ {class}"),
                None if it.fails => "✗".to_owned(),
                None if it.reasons.is_empty() => "nothing against it".to_owned(),
                None => "uncertain".to_owned(),
            };
            let reasons = lab_base::text::line(&it.reasons.join("; "), LINE);
            let line = format!("  {:24}{load:18} {:6}{:6} {reasons}", it.kernel, mark(it.tcx), mark(it.netkit));
            out += &format!("{}\n", line.trim_end());
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_check::{CheckFacts, FactLine, LoadAttempt, LoadFact};
    use lab_record::verdict::Standing;

    fn answer(kernel: &str, errno: Option<i32>, said: &str) -> CheckAnswer {
        let mut facts = CheckFacts::default();
        facts.add(FactLine::Load(LoadFact {
            attempt: LoadAttempt::AsIs,
            program: None,
            errno,
            failed: None,
            said: vec![said.to_owned()],
            verifier: Vec::new(),
            took_ms: 0,
        }));
        facts.add(FactLine::End);
        CheckAnswer {
            object: "x".into(),
            kernel: kernel.into(),
            loader: LIBBPF.into(),
            facts,
            unmet: Vec::new(),
            standing: Standing::Passed,
            ended: None,
            splats: Vec::new(),
            attached: Vec::new(),
        }
    }

    #[test]
    fn a_boot_that_contradicts_what_is_certain_is_told_and_counted() {
        let certain = |kernel: &str, load| Predicted {
            kernel: kernel.into(),
            version: "6.1".into(),
            fails: true,
            load,
            reasons: vec!["open: maybe".into(), "no kfunc f".into()],
            tcx: None,
            netkit: None,
        };
        let predicted =
            vec![("x".to_owned(), vec![certain("a", Some("kfunc")), certain("b", Some("kfunc")), certain("c", None)])];
        let missing = "libbpf: extern (func ksym) 'f': not found in kernel or module BTFs";
        let other = "libbpf: map 'flows': failed to create: -EINVAL";
        let held = [answer("a", Some(-22), missing), answer("c", Some(-22), other), answer("d", Some(-22), other)];
        assert_eq!(compare(&predicted, &held), Compared { certain: 2, unforeseen: 0, contradicted: Vec::new() });
        let wrong = compare(&predicted, &[answer("a", None, ""), answer("b", Some(-22), other)]);
        let texts: Vec<&str> = wrong.contradicted.iter().map(|it| &*it.text).collect();
        assert_eq!(
            (wrong.certain, texts),
            (
                2,
                vec![
                    "predicted: it does not load (no kfunc f); it loads",
                    "predicted: the load fails by kfunc (no kfunc f); it fails by map"
                ]
            )
        );
    }
}
