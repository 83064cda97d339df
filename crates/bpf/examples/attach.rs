//! Attaches programs as its arguments say, for tests of the witness, which knows nothing of it.
//!
//!     attach STEP …
//!     link HOOK DEVICE         BPF_LINK_CREATE of a new program
//!     prog HOOK DEVICE         BPF_PROG_ATTACH of a new program
//!     filter HOOK DEVICE       a cls_bpf filter of a new program
//!     best DEVICE              netkit, else tcx, else tc; says that it was netkit
//!     cycle COUNT HOOK DEVICE  attaches and detaches a program so often
//!     pin PATH                 pins the last link
//!     update                   another program for the last link
//!     close                    gives up everything but pins and what the kernel keeps by itself
//!     stay PATH                waits until this file is there
//!     send ADDRESS             one UDP packet
//!     netkit DEVICE POLICY     makes a netkit pair in L2 mode (pass, drop), or, where the device is there, changes its policy
//!     userns DEVICE            loads a program, enters a user and a network namespace of its own, makes the device there, a
//!                              veth, and attaches the program to it: as a filter, which it may, and as a link, which it may not
//!
//! A step that the kernel refuses is told, and the next one follows.

use lab_bpf::{
    BpfError, BpfLink, Mprog, TcDirection, TcFilter, TcOptions, attach_link, attach_prog, attach_tc, detach_prog,
    raw::{self, BPF_PROG_TYPE_SCHED_CLS, RawProgram},
};
use lab_netlink::{
    NLM_F_CREATE, NLM_F_EXCL, Netlink,
    route::{
        RouteNetlinkMessage,
        link::{InfoData, InfoKind, InfoNetkit, LinkAttribute, LinkInfo, LinkMessage, NetkitMode, NetkitPolicy},
    },
};
use lab_protocol::Hook;
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use std::{
    env, fs, mem,
    net::UdpSocket,
    os::fd::AsFd,
    path::Path,
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

#[derive(Default)]
struct Held {
    links: Vec<BpfLink>,
    programs: Vec<RawProgram>,
    filters: Vec<TcFilter>,
}

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let mut held = Held::default();
    while let Some(step) = words.next() {
        let mut word = || words.next().expect("a step has too few words");
        let told = match &*step {
            "link" => link(&mut held, hook(&word()), &word()),
            "prog" => program(&mut held, hook(&word()), &word()),
            "filter" => filter(&mut held, hook(&word()), &word()),
            "best" => best(&mut held, &word()),
            "cycle" => cycle(word().parse().expect("a number"), hook(&word()), &word()),
            "pin" => held.links.last().expect("a link before `pin`").pin(Path::new(&word())),
            "update" => update(&mut held),
            "close" => {
                held = Held::default();
                Ok(())
            }
            "stay" => {
                let path = word();
                while !Path::new(&path).exists() {
                    thread::sleep(Duration::from_millis(50));
                }
                Ok(())
            }
            "send" => {
                let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
                socket.send_to(b"x", (&*word(), 9)).expect("a route");
                Ok(())
            }
            "netkit" => netkit(&word(), &word()),
            "userns" => in_user_namespace(&mut held, &word()),
            other => panic!("no step `{other}`"),
        };
        if let Err(error) = told {
            println!("{step}: {error}");
        }
    }
    // A filter that is dropped is deleted: like other loaders, this one leaves it.
    mem::forget(held.filters);
    ExitCode::SUCCESS
}

fn hook(name: &str) -> Hook {
    let all = [
        Hook::ClsactIngress,
        Hook::ClsactEgress,
        Hook::TcxIngress,
        Hook::TcxEgress,
        Hook::NetkitPrimary,
        Hook::NetkitPeer,
    ];
    all.into_iter().find(|hook| hook.name() == name).unwrap_or_else(|| panic!("no hook `{name}`"))
}

/// In the network namespace of the process, which /sys need not show.
fn index(device: &str) -> u32 {
    if_nametoindex(device).unwrap_or_else(|errno| panic!("{device}: {errno}"))
}

fn new() -> Result<RawProgram, BpfError> {
    raw::minimal(BPF_PROG_TYPE_SCHED_CLS, 0, 0)
}

fn link(held: &mut Held, hook: Hook, device: &str) -> Result<(), BpfError> {
    held.links.push(attach_link(hook, index(device), &new()?, &Mprog::default())?);
    Ok(())
}

fn program(held: &mut Held, hook: Hook, device: &str) -> Result<(), BpfError> {
    let program = new()?;
    attach_prog(hook, index(device), &program, &Mprog::default())?;
    held.programs.push(program);
    Ok(())
}

fn filter(held: &mut Held, hook: Hook, device: &str) -> Result<(), BpfError> {
    let direction = if hook == Hook::ClsactEgress { TcDirection::Egress } else { TcDirection::Ingress };
    held.filters.push(attach_tc(index(device), direction, &new()?, TcOptions::default())?);
    Ok(())
}

fn best(held: &mut Held, device: &str) -> Result<(), BpfError> {
    println!("attached by netkit");
    link(held, Hook::NetkitPrimary, device)
        .or_else(|_| link(held, Hook::TcxIngress, device))
        .or_else(|_| filter(held, Hook::ClsactIngress, device))
}

fn cycle(count: u32, hook: Hook, device: &str) -> Result<(), BpfError> {
    let (program, index) = (new()?, index(device));
    for _ in 0..count {
        match hook {
            Hook::ClsactIngress | Hook::ClsactEgress => {
                let direction = if hook == Hook::ClsactEgress { TcDirection::Egress } else { TcDirection::Ingress };
                attach_tc(index, direction, &program, TcOptions::default())?.detach()?;
            }
            _ => {
                attach_prog(hook, index, &program, &Mprog::default())?;
                detach_prog(hook, index, Some(program.as_fd()), &Mprog::default())?;
            }
        }
    }
    Ok(())
}

fn update(held: &mut Held) -> Result<(), BpfError> {
    held.links.last().expect("a link before `update`").update(&new()?, None)
}

fn in_user_namespace(held: &mut Held, device: &str) -> Result<(), BpfError> {
    let program = new()?;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).expect("namespaces");
    fs::write("/proc/self/uid_map", "0 0 1").expect("a map of users");
    let made = Command::new("ip").args(["link", "add", device, "type", "veth"]).status().expect("ip");
    assert!(made.success(), "{device} can't be made");
    // Who holds a program may attach it in a network namespace of its own (tcx_link_attach asks for no capability).
    match attach_link(Hook::TcxIngress, index(device), &program, &Mprog::default()) {
        Ok(link) => {
            println!("userns: attached");
            held.links.push(link);
        }
        Err(error) => println!("userns: refused, {error}"),
    }
    held.filters.push(attach_tc(index(device), TcDirection::Ingress, &program, TcOptions::default())?);
    Ok(())
}

fn netkit(device: &str, policy: &str) -> Result<(), BpfError> {
    let policy = InfoNetkit::Policy(if policy == "drop" { NetkitPolicy::Drop } else { NetkitPolicy::Pass });
    let is_new = if_nametoindex(device).is_err();
    let data = if is_new { vec![InfoNetkit::Mode(NetkitMode::L2), policy] } else { vec![policy] };
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(device.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Netkit), LinkInfo::Data(InfoData::Netkit(data))]),
    ];
    let flags = if is_new { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
    Ok(Netlink::open()?.request(RouteNetlinkMessage::NewLink(message), flags)?)
}
