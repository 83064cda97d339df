use super::*;

fn load(errno: i32, failed: Option<&str>, said: &[&str], verifier: &[&str]) -> LoadFact {
    let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
    LoadFact {
        attempt: LoadAttempt::AsIs,
        program: None,
        errno: Some(errno),
        failed: failed.map(str::to_owned),
        said: lines(said),
        verifier: lines(verifier),
        took_ms: 1,
    }
}

#[test]
fn the_program_that_failed_is_the_last_that_is_named() {
    let failed = |said: &[&str]| failed_program(&said.iter().map(|&line| line.to_owned()).collect::<Vec<_>>());
    let warned = "libbpf: prog 'first': BPF program is too large";
    let refused = "libbpf: prog 'second': BPF program load failed: -EACCES";
    let about_all = "libbpf: failed to load object 'x.o'";
    assert_eq!(failed(&[warned, refused, about_all]).as_deref(), Some("second"));
    assert_eq!(failed(&[about_all, "libbpf: map 'm': failed to create: -E2BIG"]), None);
    assert_eq!(failed(&["libbpf: prog '': no name"]), None);
}

#[test]
fn the_first_cause_wins_and_a_number_alone_decides_nothing_that_words_say() {
    use LoadClass as C;
    for (wanted, errno, said, verifier) in [
        (C::Kfunc, -22, "libbpf: extern (func ksym) 'bpf_nosuch': not found in kernel or module BTFs", ""),
        (C::KfuncModule, -22, "libbpf: extern (func ksym) 'bpf_skb_ct_lookup': not found in kernel or module BTFs", ""),
        (
            C::KfuncSignature,
            -22,
            "libbpf: extern (func ksym) 'x': func_proto [4] incompatible with vmlinux [58678]",
            "",
        ),
        (C::Kfunc, -22, "", "kfunc 'bpf_dynptr_from_skb' is referenced but wasn't resolved"),
        (C::NotAllowed, -13, "", "calling kernel function bpf_fentry_test1 is not allowed"),
        (C::NotAllowed, -22, "", "program of this type cannot use helper bpf_probe_write_user#36"),
        (C::NotAllowed, -22, "", "unknown func bpf_redirect_peer#155"),
        (C::Helper, -22, "", "invalid func unknown#211"),
        (
            C::Section,
            -22,
            "libbpf: prog 'x': missing BPF prog type, check ELF section name 'classifier/ingress/drop'",
            "",
        ),
        (C::LegacyMaps, -95, "libbpf: legacy map definitions in 'maps' section are not supported by libbpf v1.0+", ""),
        (C::StaticProgram, -95, "libbpf: program 'static_fn' is static and not supported", ""),
        (C::Core, -22, "", "failed to resolve CO-RE relocation <byte_off> [9] struct x.y (0:1 @ offset 8)"),
        (C::Kconfig, -2, "libbpf: failed to open system Kconfig", ""),
        (C::PinnedMap, -22, "libbpf: couldn't reuse pinned map at '/sys/fs/bpf/m': parameter mismatch", ""),
        (C::Memory, -12, "libbpf: map 'flows': failed to create: -ENOMEM", ""),
        (C::Map, -22, "libbpf: map 'flows': failed to create: -EINVAL", ""),
        (C::ProgArray, -22, "libbpf: map 'jmp': failed to initialize slot [0] to prog 'tail' fd=7: -EINVAL", ""),
        (C::TooComplex, -7, "", "BPF program is too large. Processed 1000001 insn"),
        (C::TooComplex, -14, "", "The sequence of 8193 jumps is too complex to be verified."),
        (C::Verifier, -13, "libbpf: prog 'x': BPF program load failed: -EACCES", "R1 invalid mem access 'scalar'"),
        (C::Refused, -1, "libbpf: prog 'x': BPF program load failed: -EPERM", ""),
    ] {
        let found = explain(&load(errno, None, &[said], &[verifier]));
        assert_eq!(found.class, wanted, "{said}{verifier}: {}", found.sentence);
    }
}

#[test]
fn a_helper_that_a_lockdown_takes_away_is_no_helper_that_the_kernel_lacks() {
    let verifier = ["program of this type cannot use helper bpf_probe_read_kernel#113"];
    let free = load(-22, Some("reads"), &[], &verifier);
    assert_eq!(explain(&free).class, LoadClass::NotAllowed);
    let locked = explain(&load(-22, Some("reads"), &["the kernel is locked down (confidentiality)"], &verifier));
    assert_eq!(
        (locked.class, &*locked.sentence),
        (
            LoadClass::Refused,
            "program reads: the kernel is locked down (confidentiality): it refuses bpf_probe_read_kernel"
        )
    );
    let other = ["program of this type cannot use helper bpf_redirect#23"];
    let other = load(-22, Some("reads"), &["the kernel is locked down (confidentiality)"], &other);
    assert_eq!(explain(&other).class, LoadClass::NotAllowed, "lockdown does not take this one away");
}

#[test]
fn the_sentence_names_the_program_that_sinks_the_object_and_the_version_that_has_what_it_needs() {
    let strong = load(-13, Some("benchmark"), &[], &["calling kernel function bpf_fentry_test1 is not allowed"]);
    assert_eq!(explain(&strong).sentence, "program benchmark: calling kernel function bpf_fentry_test1 is not allowed");
    let weak = load(-22, Some("cls"), &[], &["kfunc 'bpf_dynptr_from_skb' is referenced but wasn't resolved"]);
    assert_eq!(
        explain(&weak).sentence,
        "program cls: the kernel has no kfunc bpf_dynptr_from_skb; mainline has it since 6.4 (bpf: Add skb dynptrs)"
    );
}

#[test]
fn the_verifiers_reason_is_neither_an_instruction_nor_a_state() {
    let log = [
        "0: R1=ctx() R10=fp0",
        "0: (61) r0 = *(u32 *)(r1 +4096)",
        "invalid bpf_context access off=4096 size=4",
        "processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0",
    ];
    let found = explain(&load(-13, Some("bad"), &[], &log));
    assert_eq!(
        (found.class, &*found.sentence),
        (LoadClass::Verifier, "program bad: invalid bpf_context access off=4096 size=4")
    );
}

#[test]
fn names_lead_back_to_classes() {
    for class in LoadClass::ALL {
        assert_eq!(LoadClass::named(class.name()), Some(class));
    }
    assert_eq!(LoadClass::named("nothing"), None);
}

#[test]
fn the_long_explanations_of_newer_verifiers_do_not_hide_the_reason() {
    let long = [
        "At:",
        "  sinks @ not-allowed.c:5:50",
        "        | ^-- error: policy check failed for helper bpf_redirect_peer#155",
        "Suggestion:",
        "  Use a helper allowed for this program type, or move the logic to a compatible program type.",
    ];
    let short = [
        "program of this type cannot use helper bpf_redirect_peer#155",
        "verification time 608 usec",
        "stack depth max 0",
        "subprog 0 (sinks) main insns_self 3 insns_total 3 stack 0",
        "processed 3 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0",
    ];
    let found = explain(&load(-22, Some("sinks"), &[], &[&long[..], &short].concat()));
    assert_eq!(found.class, LoadClass::NotAllowed, "{}", found.sentence);
    let other = ["R1 invalid mem access 'scalar'", short[3], short[4]];
    let found = explain(&load(-13, Some("bad"), &[], &[&long[..], &other].concat()));
    assert_eq!(
        (found.class, &*found.sentence),
        (LoadClass::Verifier, "program bad: R1 invalid mem access 'scalar'"),
        "the line in front of the statistics"
    );
}

#[test]
fn an_object_fails_as_its_last_attempt_as_a_whole_does() {
    let attempt = |attempt, load: LoadFact| LoadFact { attempt, ..load };
    let section = "libbpf: prog 'x': missing BPF prog type, check ELF section name 'x'";
    let first = load(-22, None, &[section], &[]);
    let told = attempt(LoadAttempt::AsTold, load(-22, None, &["libbpf: map 'flows': failed to create: -EINVAL"], &[]));
    let alone = attempt(LoadAttempt::Alone, load(-13, Some("x"), &[], &["R1 invalid mem access 'scalar'"]));
    let of = |loads: &[&LoadFact]| {
        failure(&CheckFacts { loads: loads.iter().map(|&load| load.clone()).collect(), ..CheckFacts::default() })
    };
    assert_eq!(of(&[&first]), Some(LoadClass::Section));
    assert_eq!(of(&[&first, &told, &alone]), Some(LoadClass::Map));
    let loads = LoadFact { errno: None, ..told };
    assert_eq!(of(&[&first, &loads]), None, "it loads with what check.toml says");
    assert_eq!(of(&[&alone]), None, "a program alone is not the object");
}
