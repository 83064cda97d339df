use crate::{AttachEvent, Book, EndedProgram, ListedAttachment, decode::SeenDevice, hook_of_type};
use lab_abi::witness::{HEAD, LONG, SHORT, entered, kind};
use lab_protocol::{
    AttachType,
    witness::{Account, AttachWay, LiveLine, LiveVerb, ROWS},
};
use std::collections::HashMap;

const NETNS: u32 = 4_026_532_001;
const TCX_INGRESS: u32 = 46;
const NETKIT_PEER: u32 = 55;
const INGRESS: u32 = 0xffff_fff2;

/// An event as a program writes it.
#[derive(Clone)]
struct Written(Vec<u8>);

impl Written {
    fn new(event_kind: u32, command: u32) -> Self {
        Self(vec![0; HEAD + LONG])
            .word(40, event_kind)
            .word(44, command)
            .word(12, 77)
            .word(52, NETNS)
            .bytes(88, b"loader")
    }

    fn word(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn request(self, at: usize, value: u32) -> Self {
        self.word(HEAD + at, value)
    }

    fn refused(self, errno: i64) -> Self {
        self.bytes(32, &(-errno).to_le_bytes())
    }

    fn on(self, ifindex: u32, name: &str, kind: &str) -> Self {
        self.word(56, ifindex).bytes(104, name.as_bytes()).bytes(120, kind.as_bytes())
    }

    fn program(self, id: u32, name: &str) -> Self {
        self.word(60, id).bytes(136, name.as_bytes()).bytes(152, &[7; 8])
    }

    fn read(&self) -> AttachEvent {
        AttachEvent::decode(&self.0).unwrap()
    }
}

fn nk0(written: Written) -> Written {
    written.on(6, "nk0", "netkit")
}

fn link(attach_type: u32, through: u32, prog: u32, link: u32) -> Written {
    let made = Written::new(kind::COMMAND, 28).request(8, attach_type).word(48, through).word(72, link);
    nk0(made.program(prog, "tc_main"))
}

fn prog_attach(attach_type: u32, through: u32, prog: u32) -> Written {
    nk0(Written::new(kind::COMMAND, 8).request(8, attach_type).word(48, through).program(prog, "tc_main"))
}

fn prog_detach(attach_type: u32, through: u32, prog: u32) -> Written {
    nk0(Written::new(kind::COMMAND, 9).request(8, attach_type).word(48, through).program(prog, "tc_main"))
}

/// A request about filters: the message of rtnetlink behind the head.
fn message(event_kind: u32, parent: u32, prio: u32, classifier: Option<&str>) -> Written {
    let mut attributes = Vec::new();
    if let Some(classifier) = classifier {
        attributes.extend([(5 + classifier.len()) as u16, 1].iter().flat_map(|number| number.to_le_bytes()));
        attributes.extend(classifier.bytes().chain([0]));
        attributes.resize(attributes.len().next_multiple_of(4), 0);
        attributes.extend([12u16, 2, 8, 8].iter().flat_map(|number| number.to_le_bytes()));
        attributes.extend(1u32.to_le_bytes());
    }
    let length = 36 + attributes.len() as u32;
    let written =
        Written::new(event_kind, 0).word(84, length).request(20, 6).request(28, parent).request(32, prio << 16);
    nk0(written.bytes(HEAD + 36, &attributes))
}

fn filter(prog: u32, prio: u32) -> Written {
    message(kind::FILTER_NEW, INGRESS, 0, Some("bpf"))
        .program(prog, "tc_main")
        .word(80, prio)
        .word(48, entered::CLS_BPF)
}

fn gone(link: u32) -> Written {
    Written::new(kind::LINK_GONE, 0).word(72, link)
}

fn account(events: &[Written], after: &[ListedAttachment]) -> Account {
    let mut book = Book::new(HashMap::from([(NETNS, "w0".to_owned())]), 0);
    events.iter().for_each(|event| book.take(event.read()));
    book.close(&[], after, Vec::new(), 0)
}

fn standing(attach_type: u32, prog: u32, link: Option<u32>) -> ListedAttachment {
    let hook = hook_of_type(attach_type);
    ListedAttachment {
        attach: hook.attach,
        hook: hook.name,
        target: SeenDevice { netns: NETNS, ifindex: 6, name: "nk0".to_owned(), kind: "netkit".to_owned() },
        program: link_program(prog),
        link,
        is_detached: false,
    }
}

fn link_program(id: u32) -> crate::decode::SeenProgram {
    crate::decode::SeenProgram { id, name: "tc_main".to_owned(), tag: [7; 8] }
}

#[test]
fn the_mechanism_is_the_function_that_the_kernel_went_through() {
    let told = account(
        &[
            link(NETKIT_PEER, entered::NETKIT_LINK_ATTACH, 3, 1),
            link(TCX_INGRESS, entered::TCX_LINK_ATTACH, 4, 2),
            // Asked for netkit, and the kernel took tcx's way: the account has what it did.
            link(NETKIT_PEER, entered::TCX_LINK_ATTACH, 5, 3),
            prog_attach(TCX_INGRESS, entered::TCX_PROG_ATTACH, 6),
            link(NETKIT_PEER, 0, 7, 0).refused(22),
        ],
        &[],
    );
    let rows: Vec<_> = told.rows.iter().map(|row| (row.place.attach, &*row.place.hook, row.way)).collect();
    assert_eq!(
        rows,
        [
            (Some(AttachType::Netkit), "netkit/peer", AttachWay::Link),
            (Some(AttachType::Tcx), "tcx/ingress", AttachWay::Link),
            (Some(AttachType::Tcx), "tcx/? (asked for netkit/peer)", AttachWay::Link),
            (Some(AttachType::Tcx), "tcx/ingress", AttachWay::Program),
        ]
    );
    // The refused one went no way: it is in the row of what it asked for.
    assert_eq!((told.rows[0].attached, told.rows[0].refused["EINVAL"]), (1, 1));
    let row = &told.rows[0];
    assert_eq!((&*row.place.namespace, &*row.process, row.pid, &*row.tag), ("w0", "loader", 77, "0707070707070707"));
    assert_eq!(row.ids, [3, 7]);
}

#[test]
fn ten_thousand_attachments_are_one_row() {
    let mut events = Vec::new();
    for number in 0..10_000 {
        events.extend([
            prog_attach(TCX_INGRESS, entered::TCX_PROG_ATTACH, 6 + number),
            prog_detach(TCX_INGRESS, entered::TCX_PROG_DETACH, 6 + number),
        ]);
    }
    let told = account(&events, &[]);
    let [row] = &told.rows[..] else { panic!("{:?}", told.rows) };
    assert_eq!((row.attached, row.detached, told.unexplained, told.left.len()), (10_000, 10_000, 0, 0));
    assert_eq!(row.ids.len(), 16);
}

#[test]
fn what_the_kernel_still_lists_is_left_and_has_its_maker() {
    let events = [
        link(TCX_INGRESS, entered::TCX_LINK_ATTACH, 4, 2),
        Written::new(kind::COMMAND, 6).word(72, 2).bytes(HEAD + SHORT, b"/sys/fs/bpf/leak"),
        prog_attach(TCX_INGRESS, entered::TCX_PROG_ATTACH, 6),
        link(TCX_INGRESS, entered::TCX_LINK_ATTACH, 5, 3),
        gone(3),
    ];
    let told = account(&events, &[standing(TCX_INGRESS, 4, Some(2)), standing(TCX_INGRESS, 6, None)]);
    let left: Vec<String> = told.left.iter().map(ToString::to_string).collect();
    assert_eq!(
        left,
        [
            "program tc_main (id 4) at tcx/ingress of nk0 (netkit) in w0, link 2, pinned at /sys/fs/bpf/leak, attached by loader (77)",
            "program tc_main (id 6) at tcx/ingress of nk0 (netkit) in w0, attached by loader (77)",
        ]
    );
    assert_eq!((told.unexplained, told.rows[0].detached), (0, 1));
    // What was there before is nobody's leak, and what nobody was seen to attach has no maker.
    let old = [standing(TCX_INGRESS, 9, None)];
    let mut book = Book::new(HashMap::new(), 0);
    book.take(events[4].read());
    let told = book.close(&old, &[old[0].clone(), standing(NETKIT_PEER, 8, Some(5))], Vec::new(), 0);
    assert_eq!(told.left.len(), 1);
    assert!(told.left[0].to_string().ends_with("link 5, attached by a process that was not seen"), "{}", told.left[0]);
}

/// An index alone does not name a device, and a network namespace has many.
#[test]
fn a_program_that_was_there_before_is_left_on_another_device() {
    let at = |netns, ifindex, name: &str| {
        let target = SeenDevice { netns, ifindex, name: name.to_owned(), kind: "netkit".to_owned() };
        ListedAttachment { target, ..standing(TCX_INGRESS, 9, None) }
    };
    let old = at(NETNS, 6, "nk0");
    let after = [old.clone(), at(NETNS, 7, "nk1"), at(NETNS + 1, 6, "nk2")];
    let told = Book::default().close(&[old], &after, Vec::new(), 0);
    let left: Vec<&str> = told.left.iter().map(|left| &*left.place.device).collect();
    assert_eq!(left, ["nk1", "nk2"]);
}

#[test]
fn an_end_that_was_not_seen_is_told() {
    let told = account(&[link(TCX_INGRESS, entered::TCX_LINK_ATTACH, 4, 2)], &[]);
    assert_eq!((told.unexplained, told.rows[0].detached), (1, 1));
    let told = account(&[prog_detach(TCX_INGRESS, entered::TCX_PROG_DETACH, 4)], &[]);
    assert_eq!((told.unexplained, told.rows.len()), (1, 0));
}

#[test]
fn a_refused_detach_ends_nothing() {
    let events = [
        prog_attach(TCX_INGRESS, entered::TCX_PROG_ATTACH, 6),
        prog_detach(TCX_INGRESS, entered::TCX_PROG_DETACH, 6).refused(2),
    ];
    let told = account(&events, &[standing(TCX_INGRESS, 6, None)]);
    assert_eq!((told.rows[0].detached, told.left.len(), told.unexplained), (0, 1, 0));
}

#[test]
fn a_replaced_program_has_ended_and_its_successor_is_attached() {
    let told = account(
        &[
            prog_attach(TCX_INGRESS, entered::TCX_PROG_ATTACH, 6),
            prog_attach(TCX_INGRESS, entered::TCX_PROG_ATTACH, 7).word(68, 6),
        ],
        &[standing(TCX_INGRESS, 7, None)],
    );
    assert_eq!((told.rows[0].attached, told.rows[0].replaced, told.unexplained), (2, 1, 0));
    assert_eq!(told.left.len(), 1);
    let update = nk0(Written::new(kind::COMMAND, 29).word(72, 2).word(68, 4).program(5, "new"));
    let told = account(&[link(TCX_INGRESS, entered::TCX_LINK_ATTACH, 4, 2), update, gone(2)], &[]);
    assert_eq!((told.rows[0].replaced, told.rows[0].detached), (1, 0));
    assert_eq!((&*told.rows[1].program, &*told.rows[1].detail, told.rows[1].detached), ("new", "update", 1));
}

#[test]
fn filters_are_followed_by_priority_and_by_program() {
    let one = |prog| message(kind::FILTER_DEL, INGRESS, 49_152, Some("bpf")).word(68, prog).word(48, entered::CLS_BPF);
    let told = account(&[filter(4, 49_152), filter(5, 49_151), one(4)], &[]);
    assert_eq!((told.rows.len(), told.rows[0].attached, told.rows[0].detached), (1, 2, 2), "{told:?}");
    assert_eq!(told.unexplained, 1, "the second one's end was not seen");
    assert_eq!((&*told.rows[0].place.hook, &*told.rows[0].detail), ("clsact/ingress", "direct-action"));
    let all = message(kind::FILTER_DEL, INGRESS, 0, None);
    assert_eq!(account(&[filter(4, 1), filter(5, 2), all], &[]).unexplained, 0);
    let prio = message(kind::FILTER_DEL, INGRESS, 2, Some("bpf"));
    assert_eq!(account(&[filter(4, 1), filter(5, 2), prio], &[]).unexplained, 1);
    let egress = message(kind::FILTER_DEL, 0xffff_fff3, 0, None);
    assert_eq!(account(&[filter(4, 1), egress], &[]).unexplained, 1);
    let qdisc = message(kind::QDISC_DEL, 0xffff_fff1, 0, None);
    assert_eq!(account(&[filter(4, 1), filter(5, 2), qdisc.clone()], &[]).unexplained, 0);
    let root = message(kind::QDISC_DEL, 0xffff_ffff, 0, None);
    assert_eq!(account(&[filter(4, 1), root], &[]).unexplained, 1, "clsact does not hang at the root");
    assert!(AttachEvent::decode(&message(kind::FILTER_NEW, INGRESS, 1, Some("u32")).0).is_none());
    let swapped = filter(5, 1).word(68, 4);
    let told = account(&[filter(4, 1), swapped, qdisc], &[]);
    assert_eq!((told.rows[0].replaced, told.rows[0].detached, told.unexplained), (1, 1, 0));
}

/// `tc filter add … parent ffff:`, which the ingress queueing discipline takes beside `ingress`.
#[test]
fn a_filter_below_the_handle_of_the_ingress_discipline_is_on_ingress() {
    let made = message(kind::FILTER_NEW, 0xffff_0000, 1, Some("bpf")).program(4, "tc_main").word(48, entered::CLS_BPF);
    let hook = Some(AttachType::Tc);
    let listed = ListedAttachment { attach: hook, hook: "clsact/ingress".to_owned(), ..standing(TCX_INGRESS, 4, None) };
    let told = account(std::slice::from_ref(&made), &[listed]);
    assert_eq!(
        told.left[0].to_string(),
        "program tc_main (id 4) at clsact/ingress of nk0 (netkit) in w0, attached by loader (77)"
    );
    // Either name of the hook deletes it.
    for parent in [0xffff_0000, INGRESS] {
        let told = account(&[made.clone(), message(kind::FILTER_DEL, parent, 0, None)], &[]);
        assert_eq!((told.rows[0].detached, told.unexplained), (1, 0), "{parent:x}");
    }
}

#[test]
fn a_device_takes_its_attachments_along_and_one_that_moves_only_its_filters() {
    let events = |for_good| {
        [
            filter(4, 1),
            prog_attach(TCX_INGRESS, entered::TCX_PROG_ATTACH, 6),
            link(TCX_INGRESS, 4, 5, 2),
            nk0(Written::new(kind::DEVICE_GONE, 0).word(48, for_good)),
        ]
    };
    assert_eq!(account(&events(entered::UNREGISTERING), &[]).unexplained, 0);
    assert_eq!(account(&events(0), &[]).unexplained, 2);
    let other = Written::new(kind::DEVICE_GONE, 0).word(48, entered::UNREGISTERING).word(52, NETNS + 1).word(56, 6);
    assert_eq!(account(&[filter(4, 1), other], &[]).unexplained, 1, "the same index in another namespace");
}

#[test]
fn a_link_that_lost_its_device_still_has_its_maker() {
    let events = [
        link(TCX_INGRESS, entered::TCX_LINK_ATTACH, 4, 2),
        nk0(Written::new(kind::DEVICE_GONE, 0).word(48, entered::UNREGISTERING)),
    ];
    let idle =
        ListedAttachment { is_detached: true, target: SeenDevice::default(), ..standing(TCX_INGRESS, 4, Some(2)) };
    let told = account(&events, &[idle]);
    assert_eq!(
        told.left[0].to_string(),
        "program tc_main (id 4) at tcx/ingress of nk0 (netkit) in w0, link 2 (detached), attached by loader (77)"
    );
    assert_eq!((told.rows[0].detached, told.unexplained), (1, 0));
}

#[test]
fn runs_are_those_of_all_programs_of_a_row() {
    let unload =
        |prog, runs: u64| Written::new(kind::PROGRAM_GONE, 0).program(prog, "tc_main").bytes(16, &runs.to_le_bytes());
    let mut book = Book::new(HashMap::new(), 0);
    for event in [
        prog_attach(TCX_INGRESS, entered::TCX_PROG_ATTACH, 6),
        unload(6, 40),
        prog_attach(TCX_INGRESS, entered::TCX_PROG_ATTACH, 7),
        prog_attach(NETKIT_PEER, entered::NETKIT_PROG_ATTACH, 8),
    ] {
        book.take(event.read());
    }
    book.ran(EndedProgram { id: 7, runs: Some(2) });
    let told = book.close(&[], &[], Vec::new(), 0);
    assert_eq!((told.rows[0].runs, told.rows[1].runs), (Some(42), None));
}

#[test]
fn hooks_of_another_kind_are_told_and_have_no_attach_type() {
    let cgroup = Written::new(kind::COMMAND, 8).request(8, 1).program(3, "egress");
    let told =
        account(&[cgroup, Written::new(kind::COMMAND, 28).request(8, 37).word(72, 9).on(6, "nk0", "netkit")], &[]);
    let rows: Vec<String> = told.rows.iter().map(|row| row.place.to_string()).collect();
    assert_eq!(rows, ["cgroup_inet_egress", "xdp of nk0 (netkit) in w0"]);
    assert!(told.rows.iter().all(|row| row.place.attach.is_none()));
}

#[test]
fn an_xdp_program_ends_by_the_next_and_by_its_removal_but_not_where_they_are_refused() {
    const REMOVAL: u32 = u32::MAX;
    let xdp = |prog| nk0(Written::new(kind::XDP, 0).program(prog, "pass"));
    let removal = || nk0(Written::new(kind::XDP, REMOVAL));
    let counts = |events: &[Written]| {
        let told = account(events, &[]);
        told.rows.iter().map(|row| (row.attached, row.refused.len(), row.detached)).collect::<Vec<_>>()
    };
    assert_eq!(counts(&[xdp(4), xdp(5).refused(16)]), [(1, 1, 0)]);
    assert_eq!(counts(&[xdp(4), removal().refused(1)]), [(1, 0, 0)]);
    assert_eq!(counts(&[xdp(4), xdp(5)]), [(2, 0, 1)]);
    assert_eq!(counts(&[xdp(4), removal()]), [(1, 0, 1)]);
}

#[test]
fn a_million_events_take_bounded_memory_and_gaps_are_counted() {
    let mut book = Book::new(HashMap::new(), 0);
    for number in 0..1_000_000u32 {
        let event =
            prog_attach(TCX_INGRESS, entered::TCX_PROG_ATTACH, number).bytes(136, format!("p{number}").as_bytes());
        // Each on a device of its own, so that nothing ends.
        book.take(event.word(56, number).read());
    }
    let told = book.close(&[], &[], Vec::new(), 3);
    assert_eq!((told.rows.len(), told.events, told.lost), (ROWS, 1_000_000, 3));
    assert!(told.omitted > 900_000 && !told.is_whole());
}

#[test]
fn names_of_any_bytes_become_text() {
    let event = link(TCX_INGRESS, entered::TCX_LINK_ATTACH, 1, 1)
        .bytes(104, b"\x1b[2J\xff\n\x00x")
        .bytes(88, &[0xff; 16])
        .read();
    assert_eq!((&*event.target.name, event.process.chars().count()), ("?[2J\u{fffd}?", 16));
    for length in 0..HEAD {
        assert!(AttachEvent::decode(&[0xff; HEAD + SHORT][..length]).is_none());
    }
}

#[test]
fn a_device_that_moves_takes_its_programs_along_and_leaves_its_filters() {
    let command = |number| nk0(Written::new(kind::COMMAND, number)).program(9, "tc_main");
    let link = command(28).request(8, NETKIT_PEER).word(48, entered::NETKIT_LINK_ATTACH).word(72, 3);
    let gone = nk0(Written::new(kind::DEVICE_GONE, 0));
    let there = |written: Written| written.word(52, NETNS + 1).on(12, "nk7", "netkit");
    let moved = || {
        let mut book = Book::new(HashMap::from([(NETNS, "w0".to_owned()), (NETNS + 1, "w1".to_owned())]), 0);
        let program = prog_attach(NETKIT_PEER, entered::NETKIT_PROG_ATTACH, 8);
        let events = [link.clone(), program, gone.clone(), there(Written::new(kind::DEVICE_MOVED, 0))];
        events.iter().for_each(|event| book.take(event.read()));
        book
    };
    let mut book = moved();
    assert!(book.on(NETNS, 6, "netkit/peer").is_empty());
    assert_eq!(book.on(NETNS + 1, 12, "netkit/peer"), [(9, Some(3)), (8, None)].into());
    book.take(there(Written::new(kind::DEVICE_GONE, 0)).word(48, entered::UNREGISTERING).read());
    let account = book.close(&[], &[], Vec::new(), 0);
    let detached: Vec<u64> = account.rows.iter().map(|row| row.detached).collect();
    assert_eq!((&detached[..], account.unexplained), (&[1, 1][..], 0));
    // Where it is now is told, not where it was attached.
    let book = moved();
    let on = "at netkit/peer of nk7 (netkit) in w1";
    assert_eq!(
        book.standing(),
        [
            format!("program tc_main (id 8) {on}, by loader (77)"),
            format!("program tc_main (id 9) {on}, link 3, by loader (77)")
        ]
    );
    let listed = |prog, link| {
        let target = SeenDevice { netns: NETNS + 1, ifindex: 12, name: "nk7".to_owned(), kind: "netkit".to_owned() };
        ListedAttachment { target, ..standing(NETKIT_PEER, prog, link) }
    };
    let told = book.close(&[], &[listed(8, None), listed(9, Some(3))], Vec::new(), 0);
    let left: Vec<String> = told.left.iter().map(ToString::to_string).collect();
    assert_eq!(
        left,
        [
            format!("program tc_main (id 8) {on}, attached by loader (77)"),
            format!("program tc_main (id 9) {on}, link 3, attached by loader (77)")
        ]
    );
}

/// What there was before is listed while events come in: an attachment may be in both.
#[test]
fn the_end_of_what_was_there_before_is_no_gap_and_has_a_step() {
    let through = entered::TCX_PROG_ATTACH;
    let old = [standing(TCX_INGRESS, 1, Some(5)), standing(TCX_INGRESS, 2, None), standing(TCX_INGRESS, 3, None)];
    let mut book = Book::new(HashMap::from([(NETNS, "w0".to_owned())]), 0).followed();
    book.knows(&old, 100);
    let late = |event: Written| event.bytes(0, &200u64.to_le_bytes());
    let events = [
        // Listed already.
        link(TCX_INGRESS, entered::TCX_LINK_ATTACH, 1, 5),
        prog_attach(TCX_INGRESS, through, 2),
        // Attached and detached before the list was read.
        prog_detach(TCX_INGRESS, entered::TCX_PROG_DETACH, 9),
        late(prog_detach(TCX_INGRESS, entered::TCX_PROG_DETACH, 3)),
        late(gone(5)),
        late(prog_attach(TCX_INGRESS, through, 4).refused(22)),
    ];
    events.iter().for_each(|event| book.take(event.read()));
    let steps: Vec<(LiveVerb, u32, Option<u32>, bool)> = book
        .steps()
        .iter()
        .map(|line| match line {
            LiveLine::Step(step) => (step.verb, step.prog_id, step.link, step.refused.is_some()),
            other => panic!("{other}"),
        })
        .collect();
    let wanted = [
        (LiveVerb::Attach, 1, Some(5), false),
        (LiveVerb::Attach, 2, None, false),
        (LiveVerb::Detach, 3, None, false),
        (LiveVerb::Detach, 1, Some(5), false),
        (LiveVerb::Attach, 4, None, true),
    ];
    assert_eq!(steps, wanted);
    assert!(book.steps().is_empty(), "a step is told once");
    let account = book.close(&old, &old[1..2], Vec::new(), 0);
    assert_eq!((account.unexplained, account.left.len()), (0, 0), "{account:?}");
    let row = account.rows.iter().find(|row| row.ids == [3]).unwrap();
    assert_eq!((row.attached, row.detached, &*row.detail), (0, 1, "attached before"));
}

/// A source that asks for a program after the event finds none where the process has ended meanwhile.
#[test]
fn a_program_that_could_not_be_asked_any_more_has_its_earlier_name() {
    let mut book = Book::default();
    book.take(prog_attach(TCX_INGRESS, 0, 9).read());
    let mut late = prog_attach(TCX_INGRESS, 0, 9).read();
    late.program.name.clear();
    book.take(late.clone());
    late.program.id = 10;
    book.take(late);
    let told = book.close(&[], &[], Vec::new(), 0);
    let rows: Vec<_> = told.rows.iter().map(|row| (&*row.program, row.attached)).collect();
    assert_eq!(rows, [("tc_main", 2), ("", 1)]);
}
