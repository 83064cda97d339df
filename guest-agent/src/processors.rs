//! On which processors the agent and its programs run.

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// Keeps the calling thread, and all threads that it starts, to the first processor. A command's requests for files pass through
/// several threads of the agent: waking a second processor for each of them takes an emulated guest a third of the time of a
/// short command. Where it fails, the agent is slower and nothing else.
pub fn keep_to_first() {
    let mut first = CpuSet::new();
    let _ = first.set(0).and_then(|()| sched_setaffinity(Pid::from_raw(0), &first));
}

/// All processors, for [`allow`].
pub fn all() -> CpuSet {
    let mut all = CpuSet::new();
    for processor in 0..CpuSet::count() {
        // Each number below the count is in the set.
        let _ = all.set(processor);
    }
    all
}

/// Allows the calling thread these processors, as far as the machine has them. Makes one system call and allocates nothing: it may
/// be called between fork and exec.
///
/// # Errors
/// The kernel's answer.
pub fn allow(processors: &CpuSet) -> std::io::Result<()> {
    Ok(sched_setaffinity(Pid::from_raw(0), processors)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::sched_getaffinity;

    #[test]
    fn a_program_of_an_agent_on_one_processor_has_them_all() {
        std::thread::spawn(|| {
            let here = || {
                let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
                (0..CpuSet::count()).filter(|processor| allowed.is_set(*processor).unwrap()).collect::<Vec<_>>()
            };
            let before = here();
            keep_to_first();
            assert_eq!(here(), [0]);
            assert_eq!(std::thread::spawn(here).join().unwrap(), [0], "threads inherit it");
            allow(&all()).unwrap();
            assert_eq!(here(), before);
        })
        .join()
        .unwrap();
    }
}
