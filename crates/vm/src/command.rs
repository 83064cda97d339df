//! The command line of a guest.
//!
//! vng joins its arguments to a shell string, and passes `--qemu-opts` to QEMU unquoted, where commas separate options.
//! Therefore every external value is checked against a small set of characters; a value with another character is an
//! error.

use super::{Accel, GuestSpec, VmError};
use lab_base::{arch::Architecture, paths::is_plain};
use lab_protocol::{
    message::PORT_NAME,
    world::{FILES_PORT, SERVICES_PORT},
};
use std::path::{Path, PathBuf};

/// Kernel parameters of every guest, before those of the specification.
const CMDLINE: &[&str] = &[
    // The last console becomes /dev/console; vng's own console comes earlier and does not exist in early boot.
    "console=ttyS0",
    "rdinit=/init",
    // vng sets a quiet console. The whole boot log costs 1/30 of the boot's processor time under TCG, and is the only
    // evidence of a kernel that hangs early.
    "loglevel=7",
    // Disables pressure stall accounting, which takes 1/40 of the suite's time and is used by no case.
    "psi=0",
    // Huge pages only where a program asks for them, as on Ubuntu and Fedora. Debian's kernels give one to the stack of a new
    // thread, and an emulated guest takes 10 ms to clear it.
    "transparent_hugepage=madvise",
    // Disables boot work that no case needs (docs/speed.md has the shares of processor time under TCG): self-tests of
    // the crypto library and of the CPU jitter RNG (virtio-rng provides entropy), five-level page tables, and KASLR,
    // which would also make addresses of different boots incomparable.
    "cryptomgr.notests=1",
    "initcall_blacklist=jent_mod_init",
    "no5lvl",
    "nokaslr",
    // A fault ends the guest at once (with -no-reboot), so that the host need not wait for its silence deadline.
    "panic=-1",
    "oops=panic",
    "softlockup_panic=1",
    // Soft lockups are reported after twice this time, seconds. On a busy host a virtual processor may not run for
    // longer than the kernel's default of 20 s, and hanging cases are detected by their deadlines.
    "watchdog_thresh=30",
    "hung_task_panic=1",
    // On a busy host an emulated timer may be too late for the kernel's check, which panics: "IO-APIC + timer doesn't
    // work!" (7.2.13 under TCG). KVM guests skip this check themselves.
    "no_timer_check",
    // Allows sysrq, by which a hanging guest is queried for its tasks; Debian restricts it. With interrupts disabled
    // only an NMI works, and its panic prints the place.
    "sysrq_always_enabled",
    "unknown_nmi_panic",
    // The agent writes marks to the kernel log; rate limiting could drop them.
    "printk.devkmsg=on",
    "log_buf_len=1M",
];

/// Those of [`CMDLINE`] that only x86-64 has: another kernel would pass them to the agent.
const X86_ONLY: [&str; 4] = ["console=ttyS0", "no5lvl", "no_timer_check", "unknown_nmi_panic"];

/// Kernel parameters of arm64 guests, before the others: the board's serial line, which is used from the first message on.
const ARM64_CMDLINE: &[&str] = &["console=ttyAMA0", "earlycon"];

/// The processor of an emulated arm64 guest: that of common clouds. It has the atomic instructions (LSE) that the JIT uses where
/// they are there (arch/arm64/net/bpf_jit_comp.c, `emit_lse_atomic`). `max` has pointer authentication, whose algorithm takes the
/// emulator a long time in every call of a function.
const ARM64_PROCESSOR: &str = "neoverse-n1";

/// Kernel parameters of guests under KVM.
const KVM_CMDLINE: &[&str] = &[
    // A restored guest's TSC and its clock were saved some milliseconds apart, which the kernel's clocksource
    // watchdog reports as skew ("Marking clocksource 'tsc' as unstable"). The guest uses kvm-clock in any case.
    "tsc=nowatchdog",
];

/// Kernel parameters of emulated x86-64 guests that have several processors.
const TCG_PROCESSORS_CMDLINE: &[&str] = &[
    // The emulator's processors read one counter, the host's, and say that they are AMD's, of which the kernel believes this of
    // one processor only (arch/x86/kernel/tsc.c, `unsynchronized_tsc`). It would take the HPET: each reading of the time would
    // leave the translated code for QEMU's device and its lock, several microseconds instead of a tenth.
    "tsc=reliable",
];

/// The network device of a machine that has one.
pub const NETWORK_DEVICE: &str = "virtio-net-pci,netdev=lab";
/// Its address: locally administered.
const MAC: &str = "02:6c:61:62:00:01";

/// Files of one launch, in a directory of its own.
#[derive(Debug)]
pub struct Files {
    /// Empty directory that vng exports; the export is removed before the machine starts.
    pub root: PathBuf,
    pub port: PathBuf,
    /// The guest's files are served on it, if there are any.
    pub files: PathBuf,
    /// Connections to services of the host are carried on it, if there are any.
    pub services: PathBuf,
    /// The network device, if there is one: passt connects to it.
    pub network: PathBuf,
    /// The memory for a program's streams, if there is any.
    pub streams: PathBuf,
    pub qmp: PathBuf,
    /// Error output of vng and QEMU.
    pub stderr: PathBuf,
    /// File with the command line that vng composes.
    pub words: PathBuf,
}

impl Files {
    pub fn below(dir: &Path) -> Self {
        let below = |name| dir.join(name);
        Self {
            root: below("root"),
            port: below("port"),
            files: below("files"),
            services: below("services"),
            network: below("network"),
            streams: below("streams"),
            qmp: below("qmp"),
            stderr: below("stderr"),
            words: below("words"),
        }
    }
}

/// Arguments for vng. `name` becomes QEMU's `-name`.
pub fn arguments(spec: &GuestSpec, files: &Files, name: &str) -> Result<Vec<String>, VmError> {
    let kernel = path("kernel", &spec.kernel, " (NETKIT_LAB_CACHE)")?;
    let image = path("guest image", &spec.image, " (NETKIT_LAB_CACHE)")?;
    let root = files.root.to_string_lossy();
    check("guest root", &root, " (TMPDIR)", is_plain)?;
    let port = socket(&files.port)?;
    let shared = socket(&files.files)?;
    let services = socket(&files.services)?;
    let qmp = socket(&files.qmp)?;
    for word in &spec.cmdline {
        check("kernel parameter", word, "", |c| is_plain(c) || c == ',')?;
    }
    check("guest name", &spec.name, "", |c| is_plain(c) && !"/:=@%".contains(c))?;
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    add(&["--run", &kernel, "--root", &root, "--name", name]);
    if !spec.architecture.is_own() {
        add(&["--arch", spec.architecture.name()]);
    }
    // Avoids virtiofsd, whose start vng tries for seconds; the export is never mounted anyway.
    add(&["--force-9p"]);
    // The image contains the modules. vng would search for modules next to the kernel and build its own initramfs for
    // them.
    add(&["--skip-modules"]);
    add(&["--disable-monitor"]);
    add(&["--memory", &format!("{}M", spec.memory_mib), "--cpus", &spec.cpus.to_string()]);
    if let Some(qemu) = &spec.qemu {
        add(&["--qemu", &path("QEMU", qemu, "")?]);
    }
    let mut options = vec![
        "-no-reboot".to_owned(),
        format!("-initrd {image}"),
        // The guest's driver waits in a loop, with interrupts off, until QEMU has taken what it writes to a port (`__send_to_port()`,
        // drivers/char/virtio_console.c). With an eventfd another thread of QEMU does that, for which a busy host has no processor;
        // without, the one that runs the guest does.
        "-device virtio-serial-pci,id=lab,ioeventfd=off".to_owned(),
        format!("-chardev socket,id=agent,path={port},server=on,wait=off"),
        format!("-device virtserialport,bus=lab.0,chardev=agent,name={PORT_NAME}"),
        format!("-chardev socket,id=files,path={shared},server=on,wait=off"),
        format!("-device virtserialport,bus=lab.0,chardev=files,name={FILES_PORT}"),
        format!("-chardev socket,id=services,path={services},server=on,wait=off"),
        format!("-device virtserialport,bus=lab.0,chardev=services,name={SERVICES_PORT}"),
        format!("-qmp unix:{qmp},server=on,wait=off"),
        "-device virtio-rng-pci".to_owned(),
    ];
    if spec.network {
        let network = socket(&files.network)?;
        // QEMU listens: the guest that becomes a snapshot has the device, and nobody is at its other end.
        options.push(format!("-netdev stream,id=lab,server=on,addr.type=unix,addr.path={network}"));
        // Without the ROM for booting from it.
        options.push(format!("-device {NETWORK_DEVICE},mac={MAC},romfile="));
    }
    if let Some(direct) = &spec.direct {
        // QEMU uses the last `-kernel`. vng still gets the bzImage, from which it reads the version.
        options.push(format!("-kernel {}", path("unpacked kernel", direct, " (NETKIT_LAB_CACHE)")?));
    }
    if let Some(memory) = &spec.memory_file {
        let (size, file) = (spec.memory_mib, path("memory file", memory, " (NETKIT_LAB_CACHE)")?);
        options.push(format!("-object memory-backend-file,id=ram,size={size}M,mem-path={file},share=on"));
        options.push("-machine memory-backend=ram".to_owned());
    }
    if spec.cpus > 1 {
        // Processors in sockets of their own share no cache, so the guest's kernel does not move a short program to an idle one each time
        // it wakes: every processor has to be emulated apart.
        options.push(format!("-smp {0},sockets={0}", spec.cpus));
    }
    // The same machine with both accelerators: vng only sets it under TCG, and QEMU's default is an i440FX.
    let machine = match spec.architecture {
        Architecture::X86_64 => "q35",
        Architecture::Arm64 => "virt",
    };
    options.push(format!("-machine {machine}"));
    let more = match spec.accel {
        Accel::Tcg if spec.architecture == Architecture::Arm64 => {
            add(&["--disable-kvm"]);
            options.push(format!("-cpu {ARM64_PROCESSOR}"));
            &[]
        }
        Accel::Tcg => {
            add(&["--disable-kvm"]);
            // Without features that QEMU implements badly; QEMU uses the last `-cpu`. With `erms` kernels clear pages
            // by `rep stosb` (clear_page_erms), which is slow when emulated. `fsrm` implies `erms`: 6.1 with the one
            // and without the other copies short buffers wrongly (arch/x86/lib/memmove_64.S) and resets while it boots;
            // QEMU 11's `max` has both. With `cx16` allocators use cmpxchg16b, after
            // which QEMU 7.2 has wrong flags until the next instruction that sets them: an interrupt in between
            // restores a wrong trap flag, for example, and the guest crashes without a kernel bug.
            let hidden = if spec.cx16 { "" } else { ",-cx16" };
            options.push(format!("-cpu max,-erms,-fsrm{hidden}"));
            if spec.cpus > 1 { TCG_PROCESSORS_CMDLINE } else { &[] }
        }
        Accel::Kvm => {
            // vng's default is `kvm:tcg`, which falls back silently.
            options.push("-machine accel=kvm".to_owned());
            KVM_CMDLINE
        }
    };
    let own = spec.cmdline.iter().map(String::as_str);
    let (board, common): (&[&str], Vec<&str>) = match spec.architecture {
        Architecture::X86_64 => (&[], CMDLINE.to_vec()),
        Architecture::Arm64 => {
            (ARM64_CMDLINE, CMDLINE.iter().copied().filter(|word| !X86_ONLY.contains(word)).collect())
        }
    };
    let cmdline =
        board.iter().copied().chain(common).chain(more.iter().copied()).chain(own).collect::<Vec<_>>().join(" ");
    add(&["--append", &cmdline, &format!("--qemu-opts={}", options.join(" "))]);
    Ok(arguments)
}

fn check(what: &'static str, value: &str, mend: &'static str, allowed: impl Fn(char) -> bool) -> Result<(), VmError> {
    match value.chars().find(|c| !allowed(*c)) {
        None => Ok(()),
        Some(found) => Err(VmError::Unquotable { what, value: value.to_owned(), found, mend }),
    }
}

/// Makes paths absolute: vng treats a bare word as a kernel version and downloads it.
fn path(what: &'static str, path: &Path, mend: &'static str) -> Result<String, VmError> {
    let file = |cause| VmError::File { what, path: path.to_owned(), cause };
    let absolute = std::path::absolute(path).map_err(file)?;
    std::fs::metadata(&absolute).map_err(file)?;
    let text = absolute.to_string_lossy().into_owned();
    check(what, &text, mend, is_plain)?;
    Ok(text)
}

fn socket(path: &Path) -> Result<String, VmError> {
    let text = path.to_string_lossy().into_owned();
    check("socket", &text, " (TMPDIR)", is_plain)?;
    if text.len() > 107 {
        return Err(VmError::SocketPath { path: path.to_owned(), length: text.len() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dir: &Path) -> GuestSpec {
        for file in ["vmlinuz", "image.cpio"] {
            std::fs::write(dir.join(file), "").unwrap();
        }
        std::fs::create_dir_all(dir.join("root")).unwrap();
        GuestSpec {
            name: "6.12".to_owned(),
            kernel: dir.join("vmlinuz"),
            image: dir.join("image.cpio"),
            ..crate::fake::specification(dir.to_owned())
        }
    }

    #[test]
    fn the_guest_has_no_writable_export_and_no_network() {
        let dir = tempfile::tempdir().unwrap();
        let words = arguments(&spec(dir.path()), &Files::below(dir.path()), "x").unwrap();
        for never in ["--rw", "--network", "-n", "--net", "--user", "--exec", "--rwdir", "--overlay-rwdir"] {
            assert!(!words.iter().any(|word| word == never), "{never}");
        }
        let root = dir.path().join("root");
        assert_eq!(words.iter().skip_while(|word| *word != "--root").nth(1).unwrap(), root.to_str().unwrap());
        assert!(words.iter().any(|word| word == "--disable-kvm"));
        assert!(words.last().unwrap().contains("-no-reboot"));
    }

    #[test]
    fn both_accelerators_use_the_same_machine() {
        let dir = tempfile::tempdir().unwrap();
        let words = |accel| {
            let spec = GuestSpec { accel, ..spec(dir.path()) };
            arguments(&spec, &Files::below(dir.path()), "x").unwrap().join(" ")
        };
        let (kvm, tcg) = (words(Accel::Kvm), words(Accel::Tcg));
        assert!(kvm.contains("-machine q35") && kvm.contains("-machine accel=kvm") && !kvm.contains("--disable-kvm"));
        assert!(tcg.contains("-machine q35") && !tcg.contains("accel="));
        assert!(kvm.contains(" tsc=nowatchdog") && !tcg.contains("tsc="), "where the clock is not the TSC");
    }

    #[test]
    fn emulated_processors_have_one_clock() {
        let dir = tempfile::tempdir().unwrap();
        let words = |cpus, architecture| {
            let spec = GuestSpec { cpus, architecture, ..spec(dir.path()) };
            arguments(&spec, &Files::below(dir.path()), "x").unwrap().join(" ")
        };
        assert!(words(2, Architecture::X86_64).contains(" tsc=reliable"));
        assert!(!words(1, Architecture::X86_64).contains("tsc=") && !words(2, Architecture::Arm64).contains("tsc="));
    }

    #[test]
    fn an_arm64_guest_has_a_board_a_processor_and_a_serial_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let spec = GuestSpec { architecture: Architecture::Arm64, ..spec(dir.path()) };
        let words = arguments(&spec, &Files::below(dir.path()), "x").unwrap().join(" ");
        for has in
            ["--arch arm64", "-machine virt", "-cpu neoverse-n1", "console=ttyAMA0 ", " oops=panic ", "rdinit=/init"]
        {
            assert!(words.contains(has), "{has}: {words}");
        }
        for never in X86_ONLY.iter().chain(&["q35", "-cpu max", "cx16"]) {
            assert!(CMDLINE.contains(never) == X86_ONLY.contains(never) && !words.contains(never), "{never}: {words}");
        }
    }

    #[test]
    fn only_an_emulator_that_gets_it_wrong_hides_cmpxchg16b() {
        let dir = tempfile::tempdir().unwrap();
        let words = |cx16, accel| {
            let spec = GuestSpec { cx16, accel, ..spec(dir.path()) };
            arguments(&spec, &Files::below(dir.path()), "x").unwrap().join(" ")
        };
        assert!(words(false, Accel::Tcg).contains("-cpu max,-erms,-fsrm,-cx16"));
        assert!(words(true, Accel::Tcg).contains("-cpu max,-erms,-fsrm") && !words(true, Accel::Tcg).contains("cx16"));
        assert!(!words(false, Accel::Kvm).contains("cx16"), "the processor is the host's");
    }

    #[test]
    fn values_that_a_shell_or_qemu_would_split_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let good = spec(dir.path());
        let files = Files::below(dir.path());
        let refused = |spec: GuestSpec| arguments(&spec, &files, "x").unwrap_err().to_string();

        let odd = dir.path().join("a b,c");
        std::fs::write(&odd, "").unwrap();
        let error = refused(GuestSpec { image: odd, ..good.clone() });
        assert!(error.contains("contains ' '") && error.contains("(NETKIT_LAB_CACHE)"), "{error}");

        for parameter in ["a b", "x;reboot", "$(x)", "`x`", "a'b", "a\"b", "a\\b", "a\nb"] {
            let error = refused(GuestSpec { cmdline: vec![parameter.to_owned()], ..good.clone() });
            assert!(error.starts_with("kernel parameter"), "{error}");
        }
        let error = refused(GuestSpec { name: "a/b".to_owned(), ..good.clone() });
        assert!(error.starts_with("guest name"), "{error}");
        let error = refused(GuestSpec { kernel: "/nonexistent/vmlinuz".into(), ..good });
        assert_eq!(error, "kernel /nonexistent/vmlinuz: No such file or directory (os error 2)");
    }

    #[test]
    fn a_socket_path_that_is_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let deep = Files { port: dir.path().join("x".repeat(100)), ..Files::below(dir.path()) };
        let error = arguments(&spec(dir.path()), &deep, "x").unwrap_err().to_string();
        assert!(error.contains("at most 107 are allowed"), "{error}");
    }
}
