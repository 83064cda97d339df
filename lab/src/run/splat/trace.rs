//! Frames of a backtrace.

use lab_protocol::complaint::SplatClass;

/// Number of frames in a fingerprint.
const MOST: usize = 3;

/// Functions of reporting, traps and kernel entry. They are in every backtrace, and their names and number differ between
/// releases. A name that ends with `*` is a prefix.
const GLUE: [&str; 75] = [
    "__alloc_pages_slowpath*",
    "__arm64_sys_*",
    "__asan_*",
    "__die*",
    "__do_kernel_fault*",
    "__do_sys_*",
    "__handle_bug*",
    "__lock_acquire*",
    "__might_*",
    "__report_bug*",
    "__schedule*",
    "__se_sys_*",
    "__ubsan_*",
    "__warn*",
    "__x64_sys_*",
    "_raw_spin_*",
    "asm_*",
    "bad_area*",
    "brk_handler*",
    "bug_handler*",
    "check_noncircular*",
    "check_panic_on_warn*",
    "common_interrupt*",
    "die*",
    "do_debug_exception*",
    "do_el0_svc*",
    "do_error_trap*",
    "do_mem_abort*",
    "do_syscall_64",
    "do_translation_fault*",
    "do_trap*",
    "do_user_addr_fault*",
    "dump_header*",
    "dump_stack*",
    "el0_*",
    "el0t_*",
    "el1_*",
    "el1h_*",
    "entry_SYSCALL*",
    "entry_INT80*",
    "exc_*",
    "fixup_exception*",
    "handle_bug*",
    "invoke_syscall*",
    "kasan_*",
    "kernelmode_fixup_or_oops*",
    "kfence_*",
    "kthread",
    "lock_acquire*",
    "lock_release*",
    "lockdep_*",
    "nmi_*",
    "oom_kill_process*",
    "oops_*",
    "out_of_memory*",
    "page_fault_oops*",
    "panic*",
    "print_*",
    "process_one_work*",
    "process_scheduled_works*",
    "refcount_warn_saturate*",
    "report_bug*",
    "ret_from_fork*",
    "rwsem_down_*",
    "schedule*",
    "search_*",
    "show_*",
    "sysvec_*",
    "ubsan_*",
    "valid_user_*",
    "validate_chain*",
    "vpanic*",
    "warn_slowpath*",
    "worker_thread*",
    "x64_sys_call",
];

/// The innermost frames, at most [`MOST`], without [`GLUE`].
pub fn frames(class: SplatClass, lines: &[&str]) -> Vec<String> {
    match class {
        // Only some kernels print who holds the device, and the text varies.
        SplatClass::NetnsLeak => return Vec::new(),
        SplatClass::Leak => return of_lost_object(lines),
        _ => {}
    }
    // Lockdep prints a backtrace for every lock of the chain, at the place where it was first taken.
    let begin = match class {
        SplatClass::Lockdep => lines.iter().position(|line| line.trim() == "stack backtrace:").unwrap_or(0),
        _ => 0,
    };
    // The code that the processor was running when the timer interrupt occurred, not the interrupt.
    let skip_interrupts = matches!(class, SplatClass::RcuStall | SplatClass::SoftLockup | SplatClass::HardLockup);
    let mut frames: Vec<String> = Vec::new();
    let mut interrupts = 0_u32;
    for line in &lines[begin..] {
        let line = line.trim();
        match line {
            "<IRQ>" | "<NMI>" => interrupts += 1,
            "</IRQ>" | "</NMI>" => interrupts = interrupts.saturating_sub(1),
            // KASAN prints further backtraces: allocation and release of the object.
            _ if line.starts_with("Allocated by task") || line.starts_with("Freed by task") => break,
            _ if skip_interrupts && interrupts > 0 => {}
            _ => {
                if let Some(name) = function(line)
                    && !is_glue(name)
                    && frames.last().is_none_or(|last| *last != untagged(name))
                {
                    frames.push(untagged(name));
                }
            }
        }
        if frames.len() == MOST {
            break;
        }
    }
    frames
}

/// Where kmemleak's object was allocated, without the allocator.
fn of_lost_object(lines: &[&str]) -> Vec<String> {
    const ALLOCATOR: [&str; 7] = [
        "__kmalloc",
        "kmalloc",
        "kmem_cache_alloc",
        "__kmem_cache_alloc",
        "kmemleak_alloc",
        "krealloc",
        "slab_post_alloc",
    ];
    let said = lines.iter().filter_map(|line| line.strip_prefix("kmemleak:"));
    let frames = said.skip_while(|line| !line.trim_start().starts_with("backtrace")).skip(1).map(|line| {
        let line = line.trim();
        // Before 6.9 the address comes first: `[<00000000ab>] f+0x1/0x2`.
        line.strip_prefix("[<").and_then(|rest| rest.split_once(">] ")).map_or(line, |(_, place)| place)
    });
    let names = frames.filter_map(function).filter(|name| !ALLOCATOR.iter().any(|start| name.starts_with(start)));
    names.filter(|name| !is_glue(name)).map(untagged).take(MOST).collect()
}

/// The function of a frame `f+0x1/0x2 [module]`, of a `RIP: 0010:f+0x1/0x2` (x86-64) or of a `pc : f+0x1/0x2` (arm64,
/// `show_regs_print_info` in arch/arm64/kernel/process.c), without suffixes added by the compiler. A
/// frame with a question mark was found on the stack and need not be a caller.
fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("RIP: ").map_or(line, |rip| rip.split_once(':').map_or(rip, |(_, place)| place));
    let line = line.strip_prefix("pc : ").unwrap_or(line);
    let (name, rest) = line.split_once("+0x")?;
    let sized = rest.split_once("/0x").is_some_and(|(offset, _)| offset.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let is_name = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$')) && !name.is_empty()
    };
    (sized && is_name(name)).then(|| plain(name))
}

/// Removes `.isra.0`, `.constprop.1`, `.part.0`, `.cold` and `.llvm.123`.
pub fn plain(name: &str) -> &str {
    name.split_once('.').map_or(name, |(name, _)| name)
}

/// Removes the tag from the name of an eBPF program, which is a hash of its instructions: `bpf_prog_0123456789abcdef_name`.
fn untagged(name: &str) -> String {
    let tagged = name.strip_prefix("bpf_prog_").and_then(|rest| rest.split_once('_'));
    match tagged {
        Some((tag, program)) if tag.len() == 16 => format!("bpf_prog_{program}"),
        _ => name.to_owned(),
    }
}

fn is_glue(name: &str) -> bool {
    GLUE.iter().any(|glue| match glue.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *glue,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_function_with_offset_and_size() {
        for (line, name) in [
            ("do_it.isra.0+0x1f/0x2a0 [netkit]", Some("do_it")),
            ("RIP: 0010:tcx_entry_update+0x12/0x40", Some("tcx_entry_update")),
            ("pc : netkit_xmit+0x20/0x158 [x]", Some("netkit_xmit")),
            ("lr : dev_hard_start_xmit+0x8c/0x1e0", None),
            ("? maybe+0x1/0x2", None),
            ("RIP: 0033:0x7f1c2b0d5a4d", None),
            ("CPU: 0 PID: 7 Comm: x Not tainted 6.12 #1", None),
            ("a b+0x1/0x2", None),
            ("f+0x1", None),
        ] {
            assert_eq!(function(line), name, "{line}");
        }
    }
}
