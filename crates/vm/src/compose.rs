//! Composes a guest's QEMU command line from virtme-ng's, without parts that the lab's guests don't need.
//!
//! virtme-ng prints how it would start QEMU (`vng --dry-run`), and the lab starts it. Before that, everything by which
//! a guest could reach its host is removed: exports of directories over 9p, a second console of unlimited size, a
//! watchdog. Unknown devices are refused, so that another version of virtme-ng can't add one unnoticed.

use super::{
    GuestSpec, VmError,
    command::{Files, NETWORK_DEVICE, arguments},
    process::{Group, POLL},
    tools::answer,
};
use lab_base::programs;
use std::{
    env,
    fs::File,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Maximum time for virtme-ng to compose a command line: Python starts slowly on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);
/// Maximum bytes of that command line.
const MOST: u64 = 1 << 20;
/// QEMU's sandbox: it can't start programs, gain privileges or change its priority.
const SANDBOX: [&str; 2] = ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"];
/// Devices of a guest in addition to the board's: the agent's ports and a random number generator.
const DEVICES: [&str; 5] = [
    "virtio-serial-pci,id=lab",
    "virtserialport,bus=lab.0,chardev=agent,",
    "virtserialport,bus=lab.0,chardev=files,",
    "virtserialport,bus=lab.0,chardev=services,",
    "virtio-rng-pci",
];

/// Whether this QEMU was built with its sandbox.
pub fn has_sandbox(qemu: &Path) -> bool {
    // QEMU handles options in their order: an unsupported one ends it before it prints its version.
    answer(qemu, &[SANDBOX[0], SANDBOX[1], "-version"]).is_some()
}

/// QEMU and its arguments for this guest.
pub fn machine(spec: &GuestSpec, files: &Files, name: &str) -> Result<Command, VmError> {
    let said = ask(spec, files, name)?;
    let failed = |problem: String| VmError::Tool { program: "vng --dry-run".to_owned(), problem };
    let line = said.lines().rfind(|line| !line.trim().is_empty());
    let words = line.and_then(shlex::split).filter(|words| words.len() > 1);
    let words = words.ok_or_else(|| failed("printed no command line".to_owned()))?;
    let mut words = strip(words, spec.network).map_err(failed)?.into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.env("PATH", programs::search_path()).args(words);
    if spec.sandbox {
        command.args(SANDBOX);
    }
    Ok(command)
}

/// The command that virtme-ng would start.
fn ask(spec: &GuestSpec, files: &Files, name: &str) -> Result<String, VmError> {
    let file = |cause| VmError::File { what: "command line", path: files.words.clone(), cause };
    let stderr = |cause| VmError::File { what: "standard error", path: files.stderr.clone(), cause };
    let mut command = Command::new(&spec.vng);
    command
        .args(arguments(spec, files, name)?)
        .arg("--dry-run")
        // vng calls `virtme-run` by name: in a virtual environment that is next to vng, and nowhere else.
        .env("PATH", programs::search_path_behind(spec.vng.parent()))
        // vng reads default options from the user's home, and any of them would change what is tested.
        .env("HOME", files.words.parent().unwrap_or(Path::new("/")))
        // It becomes a parameter on the kernel's command line.
        .env_remove("TERM")
        .stdin(Stdio::null())
        .stdout(File::create(&files.words).map_err(file)?)
        .stderr(File::options().append(true).create(true).open(&files.stderr).map_err(stderr)?)
        .process_group(0);
    // If vng was installed by `pip install --user`, Python must still find it.
    if let Some(home) = env::home_dir().filter(|_| env::var_os("PYTHONUSERBASE").is_none()) {
        command.env("PYTHONUSERBASE", home.join(".local"));
    }
    let mut child = command.spawn().map_err(|cause| VmError::Spawn { program: spec.vng.clone(), cause })?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(file)? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            Group::led_by(child.id()).kill_all();
            let _ = child.wait();
            break None;
        }
        thread::sleep(POLL);
    };
    let failed = |problem: String| VmError::Tool { program: "vng --dry-run".to_owned(), problem };
    match status {
        Some(status) if status.success() => {
            let said = lab_guard::bounded::head(&files.words, MOST).map_err(file)?;
            Ok(String::from_utf8_lossy(&said).into_owned())
        }
        Some(status) => Err(failed(format!("{status}: {}", super::guest::telling_line(&files.stderr)))),
        None => Err(failed(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// Removes everything by which a guest could reach its host.
fn strip(words: Vec<String>, network: bool) -> Result<Vec<String>, String> {
    let mut kept: Vec<String> = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut value = match &*word {
            "-fsdev" | "-device" | "-chardev" | "-append" => words.next().ok_or(format!("{word} has no value"))?,
            // This option combines an export and its device.
            "-virtfs" => {
                words.next();
                continue;
            }
            _ => {
                kept.push(word);
                continue;
            }
        };
        let stays = match &*word {
            "-fsdev" => false,
            // The kernel log on standard error, which is also on the serial line.
            "-chardev" => !value.contains("path=/proc/self/fd/"),
            "-device" if value.starts_with("virtio-9p-") => false,
            "-device" if is_needless(&value) => false,
            "-device" if DEVICES.iter().any(|known| value.starts_with(known)) => true,
            "-device" if network && value.starts_with(NETWORK_DEVICE) => true,
            "-device" => return Err(format!("virtme-ng added a device that the lab's guests must not have: {value}")),
            _ => {
                let words: Vec<&str> = value.split(' ').filter(|word| *word != "console=hvc0").collect();
                value = words.join(" ");
                true
            }
        };
        if stays {
            kept.extend([word, value]);
        }
    }
    // Remove the drives, cards and ports that QEMU adds by default.
    kept.push("-nodefaults".to_owned());
    Ok(kept)
}

/// Devices of virtme-ng that the lab's guests don't use: a watchdog, and the second console.
fn is_needless(device: &str) -> bool {
    // On boards without a PCI bus in virtme-ng's view the second console has another device.
    let second = ["virtio-serial-pci", "virtio-serial-device"].contains(&device);
    device.starts_with("i6300esb") || second || device.starts_with("virtconsole,chardev=dmesg")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::specification;
    use std::{fs, os::unix::fs::PermissionsExt};

    /// A command line of virtme-ng 1.42.
    const COMPOSED: &str = "/usr/bin/qemu-system-x86_64 -name nkl.1 -m 512M \
        -fsdev local,id=virtfs5,path=/tmp/x/root,security_model=none,readonly=on,multidevs=remap \
        -device virtio-9p-pci,fsdev=virtfs5,mount_tag=/dev/root \
        -fsdev local,id=virtfs9,path=/opt/guest,security_model=none,readonly=on,multidevs=remap \
        -device virtio-9p-pci,fsdev=virtfs9,mount_tag=virtme.guesttools \
        -device i6300esb,id=watchdog0 -machine q35 -cpu max -parallel none -net none -echr 1 \
        -chardev file,path=/proc/self/fd/2,id=dmesg -device virtio-serial-pci -device virtconsole,chardev=dmesg \
        -chardev stdio,id=console,signal=off,mux=off -serial chardev:console -vga none -display none -smp 1 \
        -kernel /k -append 'console=hvc0 quiet console=ttyS0' -no-reboot -initrd /i -device virtio-serial-pci,id=lab \
        -chardev socket,id=agent,path=/tmp/x/port,server=on,wait=off \
        -device virtserialport,bus=lab.0,chardev=agent,name=org.x -qmp unix:/tmp/x/qmp,server=on -device virtio-rng-pci";

    fn stripped() -> String {
        strip(shlex::split(COMPOSED).unwrap(), false).unwrap().join(" ")
    }

    #[test]
    fn a_guest_has_no_export_no_second_console_and_no_watchdog() {
        let left = stripped();
        for gone in ["9p", "fsdev", "i6300esb", "/proc/self/fd", "virtconsole", "hvc0", "virtio-serial-pci -device"] {
            assert!(!left.contains(gone), "{gone}: {left}");
        }
        for kept in ["chardev:console", "virtio-serial-pci,id=lab", "chardev=agent", "-append quiet console=ttyS0"] {
            assert!(left.contains(kept), "{kept}: {left}");
        }
        assert!(left.ends_with("-nodefaults"));
    }

    #[test]
    fn nothing_of_the_host_is_left_to_an_arm64_guest() {
        let composed = "qemu-system-aarch64 -fsdev local,id=virtfs5,path=/tmp/x/root,security_model=none \
            -device virtio-9p-device,fsdev=virtfs5,mount_tag=/dev/root -M virt -cpu cortex-a57 \
            -chardev file,path=/proc/self/fd/2,id=dmesg -device virtio-serial-device -device virtconsole,chardev=dmesg \
            -device virtio-serial-pci,id=lab -append 'console=hvc0 console=ttyAMA0'";
        let left = strip(shlex::split(composed).unwrap(), false).unwrap().join(" ");
        for gone in ["9p", "fsdev", "/proc/self/fd", "virtconsole", "hvc0", "virtio-serial-device"] {
            assert!(!left.contains(gone), "{gone}: {left}");
        }
        assert!(left.contains("-device virtio-serial-pci,id=lab -append console=ttyAMA0"), "{left}");
    }

    #[test]
    fn an_unknown_device_is_refused() {
        let words = shlex::split("qemu -device vhost-vsock-pci,guest-cid=3").unwrap();
        assert!(strip(words, true).unwrap_err().contains("vhost-vsock-pci,guest-cid=3"));
        let words = || shlex::split("qemu -netdev stream,id=lab -device virtio-net-pci,netdev=lab,romfile=").unwrap();
        assert!(strip(words(), false).unwrap_err().contains("virtio-net-pci"), "only where one was asked for");
        assert!(strip(words(), true).is_ok());
    }

    fn told(script: &str) -> Result<Command, VmError> {
        let dir = crate::scratch().unwrap();
        let vng = dir.path().join("vng");
        for (name, text) in [("vng", script), ("vmlinuz", ""), ("image", "")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::set_permissions(&vng, fs::Permissions::from_mode(0o755)).unwrap();
        let (kernel, image) = (dir.path().join("vmlinuz"), dir.path().join("image"));
        let spec = GuestSpec { vng, kernel, image, sandbox: true, ..specification(dir.path().to_owned()) };
        fs::create_dir(dir.path().join("root")).unwrap();
        machine(&spec, &Files::below(dir.path()), "x")
    }

    #[test]
    fn virtme_ngs_command_line_is_used_and_its_error_quoted() {
        let command = told("#!/bin/sh\necho '\"/usr/bin/qemu\" -m 1 -append \"a b\"'\n").unwrap();
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(command.get_program(), "/usr/bin/qemu");
        assert_eq!(words[..4], ["-m", "1", "-append", "a b"]);
        assert!(words.ends_with(&SANDBOX.map(str::to_owned)) && words.iter().any(|word| word.contains("spawn=deny")));
        let error = told("#!/bin/sh\necho 'error: no such kernel' >&2\nexit 1\n").unwrap_err().to_string();
        assert_eq!(error, "vng --dry-run: exit status: 1: error: no such kernel");
        let error = told("#!/bin/sh\n").unwrap_err().to_string();
        assert_eq!(error, "vng --dry-run: printed no command line");
    }
}
