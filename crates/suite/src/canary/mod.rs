//! Canaries: cells that must not pass. Each causes one failure on purpose, and a test with real guests checks how
//! the lab reports it. They are listed separately from the suite and run only on request.

mod spoiled;

use lab_bpf::{Config, ProgArray, ProgramKind};
use lab_harness::unpoisoned;
use lab_harness::{
    PINS,
    case::{Area, Case, CaseResult, Direction, Variant},
    ctx::Ctx,
    testbed::{MprogCall, P0, attach_hook},
};
use lab_protocol::{AttachRequest, Capability, Hook, LinkKind};
use lab_topology::{Family, Netns, library};
use lab_traffic::{Proto, UdpProbe};
use nix::mount::{MsFlags, mount};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::SocketAddr,
    path::Path,
    sync::Mutex,
    time::Duration,
};

/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

/// Objects that canaries keep for the lifetime of the agent.
static KEPT: Mutex<Vec<Box<dyn std::any::Any + Send>>> = Mutex::new(Vec::new());

/// Every canary. Canaries that crash the guest are between harmless ones, so that continuing after a crash is tested
/// too.
pub static AREA: Area = Area::new("canary", &[CASES]);

/// In the order in which they run.
const CASES: &[Case] = &[
    MUST_PASS,
    MUST_SEE_NO_HOST,
    MUST_FAIL,
    MUST_SKIP,
    MUST_NOT_ASSERT_NOTHING,
    MUST_LEAK_A_MAP,
    MUST_LEAK_A_PIN,
    MUST_LEAK_A_NAMESPACE,
    MUST_FAIL_TO_CLEAN_UP,
    MUST_NOT_HIDE_ITS_ATTACHMENT,
    MUST_CARRY_TRAFFIC,
    MUST_NAME_THE_ATTACH_TYPE,
    MUST_NAME_TCX_ON_NETKIT,
    MUST_BE_LISTED_BY_THE_KERNEL,
    MUST_HEAR_A_LATE_PACKET,
    MUST_PANIC_THE_CASE,
    MUST_WARN,
    MUST_FLOOD_THE_LOG,
    MUST_PANIC_THE_KERNEL,
    MUST_GO_ON_AFTER_THE_PANIC,
    MUST_HANG,
    MUST_GO_ON_AFTER_THE_HANG,
    MUST_KILL_THE_AGENT,
    MUST_OOPS,
    MUST_GO_ON_AFTER_THE_OOPS,
    MUST_LOCK_UP,
    MUST_SPIN_IN_THE_KERNEL,
    MUST_HANG_THE_AGENT,
    MUST_COME_LAST,
];

fn on(device: LinkKind) -> Variant {
    Variant { device: Some(device), ..Variant::default() }
}

fn keep(thing: impl std::any::Any + Send) {
    unpoisoned(KEPT.lock()).push(Box::new(thing));
}

const MUST_PASS: Case = Case::new("Z01", "must-pass", "The control: a check that is true passes.", must_pass);
const MUST_SKIP: Case = Case::new("Z03", "must-skip", "A missing capability skips with its reason.", must_pass)
    .needs(&[Capability::NetkitSingle]);
const MUST_GO_ON_AFTER_THE_PANIC: Case =
    Case::new("Z15", "must-go-on-after-the-panic", "The next cell has a fresh guest.", must_pass);
const MUST_GO_ON_AFTER_THE_HANG: Case =
    Case::new("Z17", "must-go-on-after-the-hang", "The next cell has a fresh guest.", must_pass);
const MUST_GO_ON_AFTER_THE_OOPS: Case =
    Case::new("Z20", "must-go-on-after-the-oops", "The next cell has a fresh guest.", must_pass);
const MUST_COME_LAST: Case =
    Case::new("Z24", "must-come-last", "The last cell still runs after all other canaries.", must_pass);
fn must_pass(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    ctx.equal("one and one", 1 + 1, 2);
    Ok(())
}

const MUST_SEE_NO_HOST: Case =
    Case::new("Z25", "must-see-no-host", "No resource of the host is accessible.", sees_no_host);
/// Ways by which a guest could reach the host: file systems, network devices, disks. virtme-ng exports two directories
/// over 9p, which a guest without the module can't mount; a guest with the module would find an empty root.
fn sees_no_host(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const OWN: [&str; 8] = ["rootfs", "tmpfs", "ramfs", "devtmpfs", "proc", "sysfs", "bpf", "cgroup2"];
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let kinds = mounts.lines().filter_map(|line| line.split_once(" - ")?.1.split(' ').next());
    let foreign: Vec<&str> = kinds.filter(|kind| !OWN.contains(kind)).collect();
    ctx.equal("file systems of the host", foreign, Vec::<&str>::new());
    // Modules create devices of their own, for example tunl0; a hardware device is on a bus.
    let real = |name: &String| Path::new("/sys/class/net").join(name).join("device").exists();
    let networks: Vec<String> = names("/sys/class/net")?.into_iter().filter(real).collect();
    ctx.equal("network devices with hardware", networks, Vec::<String>::new());
    // A card without a driver in the image has no network device, but is still a card.
    let devices = names("/sys/bus/pci/devices")?;
    let class =
        |device: &String| fs::read_to_string(format!("/sys/bus/pci/devices/{device}/class")).unwrap_or_default();
    let cards: Vec<String> = devices.iter().map(class).filter(|class| class.starts_with("0x02")).collect();
    ctx.equal("network cards", cards, Vec::<String>::new());
    let disks = names("/sys/block")?.into_iter().filter(|name| !name.starts_with("loop") && !name.starts_with("ram"));
    ctx.equal("disks", disks.collect::<Vec<_>>(), Vec::<String>::new());
    let place = Path::new("/run/host");
    fs::create_dir(place)?;
    for tag in ["/dev/root", "ROOTFS", "virtme.guesttools", "virtme.initmount0"] {
        let mounted = mount(Some(tag), place, Some("9p"), MsFlags::empty(), Some("version=9p2000.L,trans=virtio"));
        ctx.check("the host's export can't be mounted", mounted.is_err(), format!("{tag}: {mounted:?}"));
    }
    fs::remove_dir(place)?;
    Ok(())
}

fn names(directory: &str) -> Result<Vec<String>, std::io::Error> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

const MUST_FAIL: Case = Case::new("Z02", "must-fail", "A check that is false fails the cell.", must_fail);
fn must_fail(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    ctx.equal("one and one", 1 + 1, 3);
    Ok(())
}

const MUST_NOT_ASSERT_NOTHING: Case =
    Case::new("Z04", "must-not-assert-nothing", "A case without a check fails.", asserts_nothing);
fn asserts_nothing(_ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    Ok(())
}

const MUST_LEAK_A_MAP: Case = Case::new("Z05", "must-leak-a-map", "A map that is not deleted is a leak.", leaks_a_map);
fn leaks_a_map(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    keep(ProgArray::create(1)?);
    must_pass(ctx, variant)
}

const MUST_LEAK_A_PIN: Case = Case::new("Z06", "must-leak-a-pin", "A pin that is not removed is a leak.", leaks_a_pin)
    .over(|| vec![on(LinkKind::Veth)]);
fn leaks_a_pin(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    fs::create_dir(Path::new(PINS).join("canary"))?;
    must_pass(ctx, variant)
}

const MUST_LEAK_A_NAMESPACE: Case =
    Case::new("Z07", "must-leak-a-namespace", "A namespace that is not deleted is a leak.", leaks_a_netns);
fn leaks_a_netns(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    keep(Netns::new("canary")?);
    must_pass(ctx, variant)
}

const MUST_FAIL_TO_CLEAN_UP: Case =
    Case::new("Z08", "must-fail-to-clean-up", "A failure of clean-up fails the cell.", bad_cleanup);
fn bad_cleanup(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    ctx.defer("the canary's clean-up", || Err("refuses"));
    must_pass(ctx, variant)
}

const MUST_NOT_HIDE_ITS_ATTACHMENT: Case =
    Case::new("Z09", "must-not-hide-its-attachment", "An attachment that is not reported is a mismatch.", hides)
        .on(library::PAIR)
        .over(|| vec![Variant { attach: Some(AttachRequest::Tc), ..on(LinkKind::Veth) }]);
/// Attaches a program without reporting it.
fn hides(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (program, ifindex) = (testbed.counter(ctx, P0)?, testbed.ifindex(P0));
    let options = lab_bpf::TcOptions::default();
    let attached = testbed.run(P0, || lab_bpf::attach_tc(ifindex, lab_bpf::TcDirection::Ingress, &*program, options));
    ctx.check("attached", attached.is_ok(), "clsact");
    Ok(())
}

const MUST_CARRY_TRAFFIC: Case =
    Case::new("Z10", "must-carry-traffic", "A program that never ran fails the cell.", no_traffic)
        .on(library::PAIR)
        .over(|| vec![Variant { attach: Some(AttachRequest::Tc), ..on(LinkKind::Veth) }]);
fn no_traffic(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let _attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    must_pass(ctx, variant)
}

const MUST_NAME_THE_ATTACH_TYPE: Case = Case::new(
    "Z26",
    "must-name-the-attach-type",
    "A program that is attached by tc and reported as tcx is a mismatch.",
    attaches_by_another_type,
)
.on(library::PAIR)
.over(|| vec![Variant { attach: Some(AttachRequest::Tcx), ..on(LinkKind::Veth) }]);
const MUST_NAME_TCX_ON_NETKIT: Case = Case::new(
    "Z27",
    "must-name-tcx-on-netkit",
    "A program that is attached by tcx and reported as netkit is a mismatch.",
    attaches_by_another_type,
)
.on(library::PAIR)
.over(|| vec![Variant { attach: Some(AttachRequest::Netkit), ..on(LinkKind::NetkitL3) }]);
/// Attaches by the type below the requested one, and reports what the kernel lists as an answer to the request.
fn attaches_by_another_type(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (program, ifindex) = (testbed.counter(ctx, P0)?, testbed.ifindex(P0));
    let hook = match variant.attach() {
        AttachRequest::Netkit => Hook::TcxIngress,
        _ => Hook::ClsactIngress,
    };
    let _handle = testbed.run(P0, || attach_hook(hook, ifindex, &*program, MprogCall::Link))?;
    testbed.report(ctx, P0, variant.attach(), program.id(), Some(program.clone()))?;
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    Ok(())
}

const MUST_BE_LISTED_BY_THE_KERNEL: Case = Case::new(
    "Z28",
    "must-be-listed-by-the-kernel",
    "A program that is loaded, reported and attached nowhere is a mismatch.",
    attaches_nothing,
)
.on(library::PAIR)
.over(|| vec![Variant { attach: Some(AttachRequest::Tc), ..on(LinkKind::Veth) }]);
fn attaches_nothing(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    testbed.report(ctx, P0, variant.attach(), program.id(), None)?;
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    Ok(())
}

const MUST_HEAR_A_LATE_PACKET: Case = Case::new(
    "Z29",
    "must-hear-a-late-packet",
    "A packet of a silent flow that arrives after the window fails the cell.",
    arrives_late,
)
.on(library::PAIR)
.over(|| vec![on(LinkKind::Veth)]);
/// A dropped neighbour keeps the flow silent; a datagram to the same port later is what a delayed packet looks like.
fn arrives_late(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.load(ctx, P0, ProgramKind::Count, Config { verdict: DROP, ..Config::new(ctx.marker) })?;
    let filter = testbed.filter(P0, Direction::FromWorkload, &program, lab_bpf::TcOptions::default())?;
    testbed.none_pass(ctx, [("pod", "host", Proto::Udp, Family::V4)]);
    filter.detach()?;
    let to = SocketAddr::new(testbed.net.addr("host", Family::V4), ctx.marker);
    UdpProbe::connect(testbed.net.ns("pod"), to)?.send(&[0; 64])?;
    Ok(())
}

const MUST_PANIC_THE_CASE: Case =
    Case::new("Z11", "must-panic-the-case", "A panic in a case fails that case only.", panics);
fn panics(_ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    panic!("the canary's own panic");
}

const MUST_WARN: Case = Case::new("Z12", "must-warn", "A WARN on the console fails its cell.", warns);
/// Prints a splat without its cause, to test the path from the console to the verdict.
fn warns(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    say("<4>WARNING: CPU: 0 PID: 1 at canary.c:1 canary+0x1/0x2\n")?;
    must_pass(ctx, variant)
}

const MUST_FLOOD_THE_LOG: Case =
    Case::new("Z13", "must-flood-the-log", "A flood of kernel messages fails no cell.", floods);
fn floods(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const LINES: usize = 2_000;
    for line in 0..LINES {
        say(&format!("<4>the canary floods the log, line {line} of {LINES}\n"))?;
        ctx.log(format!("line {line}"));
    }
    must_pass(ctx, variant)
}

fn say(record: &str) -> Result<(), std::io::Error> {
    OpenOptions::new().write(true).open("/dev/kmsg")?.write_all(record.as_bytes())
}

const MUST_PANIC_THE_KERNEL: Case =
    Case::new("Z14", "must-panic-the-kernel", "A kernel panic fails its cell only.", panics_the_kernel);
fn panics_the_kernel(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    fs::write("/proc/sysrq-trigger", "c")?;
    ctx.check("the kernel has crashed", false, "sysrq-c returned");
    Ok(())
}

const MUST_HANG: Case = Case::new("Z16", "must-hang", "A case that never ends is a hang.", hangs).within(300);
fn hangs(_ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

const MUST_KILL_THE_AGENT: Case =
    Case::new("Z18", "must-kill-the-agent", "The guest crashes when the agent exits.", kills_the_agent);
/// PID 1 must not exit: the kernel would panic.
fn kills_the_agent(_ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    std::process::exit(7);
}

fn dies_of(ctx: &mut Ctx, instructions: &[u8]) -> CaseResult {
    spoiled::run(instructions)?;
    ctx.check("the kernel has crashed or hangs", false, "the module was loaded without effect");
    Ok(())
}

const MUST_OOPS: Case =
    Case::new("Z19", "must-oops", "A null pointer dereference in the kernel fails its cell only.", oopses);
fn oopses(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    dies_of(ctx, spoiled::OOPS)
}

const MUST_LOCK_UP: Case = Case::new(
    "Z21",
    "must-lock-up",
    "A task that spins in the kernel is found by the kernel's watchdog or, with preemption, by the agent.",
    locks_up,
)
.within(300);
/// The watchdog reports after twice its threshold, 20 seconds by default.
fn locks_up(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    fs::write("/proc/sys/kernel/watchdog_thresh", "1")?;
    dies_of(ctx, spoiled::SPIN)
}

const MUST_SPIN_IN_THE_KERNEL: Case = Case::new(
    "Z22",
    "must-spin-in-the-kernel",
    "A processor that spins with interrupts off is detected by the host only.",
    spins,
);
fn spins(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    dies_of(ctx, spoiled::DEAF)
}

const MUST_HANG_THE_AGENT: Case = Case::new(
    "Z23",
    "must-hang-the-agent",
    "A frozen agent in a running kernel is detected by its missing heartbeat.",
    freezes,
);
/// Stops every thread of the agent, including its heartbeat; the kernel is not affected.
fn freezes(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let (root, group) = (Path::new("/run/cgroup"), Path::new("/run/cgroup/frozen"));
    fs::create_dir(root)?;
    mount(Some("cgroup"), root, Some("cgroup2"), MsFlags::empty(), None::<&str>)?;
    fs::create_dir(group)?;
    fs::write(group.join("cgroup.procs"), "0")?;
    fs::write(group.join("cgroup.freeze"), "1")?;
    ctx.check("the agent is frozen", false, "the agent still runs");
    Ok(())
}
