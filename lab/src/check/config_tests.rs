use super::*;

fn error(text: &str) -> String {
    CheckConfig::parse("check.toml", text, Path::new("/nonexistent")).unwrap_err().to_string()
}

#[test]
fn a_file_says_what_an_object_needs_and_what_is_expected() {
    let text = r#"
        only = ["main"]
        hooks = ["tc/ingress", "netkit/peer"]
        modules = ["nf_conntrack"]
        [types]
        "classifier/drop" = "sched_cls"
        [globals]
        level = 259
        mac = "hex 01:02"
        [maps.flows]
        max_entries = 16
        pinned = { type = "hash", key_size = 4, value_size = 1, max_entries = 8 }
        entries = [{ key = "hex 01000000", value = "hex 02" }]
        [[slots]]
        map = "jmp"
        index = 3
        program = "tail"
        [packets]
        small = "udp 10.0.0.1:1 > 10.0.0.2:2"
        [[expect]]
        kernels = "<6.4"
        load = "fails: kfunc"
        [[expect]]
        program = "main"
        hook = "netkit/peer"
        packet = "small"
        verdict = "TC_ACT_PIPE"
        fate = "dropped"
    "#;
    let config = CheckConfig::parse("check.toml", text, Path::new("")).unwrap();
    assert_eq!((&*config.order.globals["level"], &*config.order.globals["mac"]), (&[3u8, 1][..], &[1u8, 2][..]));
    assert_eq!(config.order.hooks, [Hook::ClsactIngress, Hook::NetkitPeer]);
    assert_eq!(config.order.maps["flows"].entries, [(vec![1, 0, 0, 0], vec![2])]);
    assert_eq!(config.order.maps["flows"].pinned.as_ref().map(|it| (&*it.kind, it.max_entries)), Some(("hash", 8)));
    let on = |version: &str| {
        let version = version.parse().unwrap();
        let those = config.expected("x", LIBBPF, version);
        those.into_iter().map(|it| it.what).collect::<Vec<_>>()
    };
    let always = [Expected::Verdict(3), Expected::Fate("dropped".into())];
    assert_eq!(on("6.12"), always);
    assert_eq!(on("6.1.192"), [&[Expected::Fails(Some("kfunc".into()))], &always[..]].concat());
}

#[test]
fn errors_name_line_key_and_what_would_be_right() {
    assert_eq!(error("hook = []"), "check.toml:1: unknown key `hook` in the file; did you mean `hooks`?");
    assert!(error("hooks = [\"tc\"]").contains("the hooks are clsact/ingress"), "{}", error("hooks = [\"tc\"]"));
    assert!(
        error("[[expect]]\nload = \"fails: kfnc\"")
            .starts_with("check.toml:2: `kfnc` is no class of failure; did you mean `kfunc`?")
    );
    assert!(error("[packets]\nx = \"udp 1\"").starts_with("check.toml:2: `udp 1` is no packet"));
    assert!(error("[[expect]]\nprogram = \"x\"").contains("expects nothing"));
    assert!(error("[[expect]]\nfate = \"lost\"").contains("is no fate"));
    assert!(error("[[expect]]\npacket = \"p\"\nfate = \"dropped\"").contains("[packets] has no `p`"));
    assert!(error("[globals]\nx = \"one\"").contains("must be a number"));
    assert!(error("[[expect]]\nkernels = \"new\"\nload = \"loads\"").contains("`kernels`:"));
    assert!(error("[maps.m]\npinned = { type = \"hash\" }").contains("key_size"));
    assert!(error("only = 3").contains("must be a list of texts"));
}

#[test]
fn inner_maps_pins_and_counters_are_read() {
    let text = r#"
        pins = "/sys/fs/bpf/tc/globals"
        [maps.outer]
        inner = { type = "hash", key_size = 4, value_size = 8, max_entries = 16 }
        inner_maps = [{ key = "hex 01000000", entries = [{ key = "hex 02000000", value = "hex 0300000000000000" }] }]
        [[expect]]
        hook = "tc/ingress"
        kernels = ">=6.6"
        counter = { map = "seen", key = "hex 00000000", at = 8, adds = 2 }
        runs = 1
        [[expect]]
        counter = { map = "seen", key = "hex 00000000", at = 8, adds = 3 }
    "#;
    let config = CheckConfig::parse("check.toml", text, Path::new("")).unwrap();
    assert_eq!(config.order.pins.as_deref(), Some("/sys/fs/bpf/tc/globals"));
    let outer = &config.order.maps["outer"];
    assert_eq!(outer.inner.as_ref().map(|it| (&*it.kind, it.value_size)), Some(("hash", 8)));
    let entry = (vec![2, 0, 0, 0], vec![3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(outer.inner_maps, [InnerMap { key: vec![1, 0, 0, 0], entries: vec![entry] }]);
    let place = CounterPlace { map: "seen".into(), key: vec![0; 4], at: 8 };
    assert_eq!(config.order.counters, std::slice::from_ref(&place), "each counter is read once");
    let on = |version: &str| -> Vec<Expected> {
        config.expected("x", LIBBPF, version.parse().unwrap()).into_iter().map(|it| it.what).collect()
    };
    assert_eq!(on("6.12"), [Expected::Adds(place.clone(), 2), Expected::Runs(1), Expected::Adds(place.clone(), 3)]);
    assert_eq!(on("6.1"), [Expected::Adds(place, 3)]);
    for (wrong, told) in [
        ("pins = \"/tmp\"", "check.toml:1: `pins`: `/tmp` is no directory below /sys/fs/bpf"),
        ("pins = \"/sys/fs/bpf\"", "no directory below"),
        ("pins = \"/sys/fs/bpf/../x\"", "no directory below"),
        ("[maps.m]\ninner = { type = \"hash\" }", "key_size"),
        ("[maps.m]\ninner_maps = [{ entries = [] }]", "key"),
        ("[[expect]]\ncounter = { map = \"m\", key = \"hex 00\" }", "adds"),
        ("[[expect]]\ncounter = { map = \"m\", key = \"0\", adds = 1 }", "must be bytes in the order of memory"),
    ] {
        assert!(error(wrong).contains(told), "{wrong}: {}", error(wrong));
    }
}

#[test]
fn a_capture_gives_packets_and_its_errors_name_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut capture = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    for byte in [1u8, 2] {
        capture.extend([0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 20, 0, 0, 0]);
        capture.extend([byte; 20]);
    }
    std::fs::write(directory.path().join("two.pcap"), &capture).unwrap();
    let parse = |text: &str| CheckConfig::parse("check.toml", text, directory.path());
    let all = parse("[packets]\nx = \"pcap two.pcap\"\n[[expect]]\npacket = \"x.2\"\nfate = \"dropped\"").unwrap();
    let names: Vec<_> = all.order.packets.iter().map(|packet| (&*packet.name, packet.frame[0])).collect();
    assert_eq!(names, [("x.1", 1), ("x.2", 2)]);
    let second = parse("[packets]\nx = \"pcap two.pcap 2\"").unwrap().order.packets;
    assert_eq!(second, [CheckPacket { name: "x".into(), frame: vec![2; 20] }]);
    let told = |text: &str| parse(text).unwrap_err().to_string();
    assert!(told("[packets]\nx = \"pcap two.pcap 3\"").contains("two.pcap: it has 2 packets, and no packet 3"));
    assert!(told("[packets]\nx = \"pcap gone.pcap\"").contains("gone.pcap: "));
    std::fs::write(directory.path().join("text.pcap"), "no capture, whatever its name is").unwrap();
    assert!(told("[packets]\nx = \"pcap text.pcap\"").contains("text.pcap: it is no capture"));
}

#[test]
fn what_is_expected_of_libbpf_is_not_expected_of_other_loaders() {
    let text = r#"
        [[expect]]
        kernels = "<6.4"
        load = "fails: kfunc"
        [[expect]]
        loader = "tc"
        load = "loads"
        [[expect]]
        loader = "*"
        fate = "dropped"
    "#;
    let config = CheckConfig::parse("check.toml", text, Path::new("")).unwrap();
    let of = |loader: &str, version: &str| -> Vec<Expected> {
        config.expected("x", loader, version.parse().unwrap()).into_iter().map(|it| it.what).collect()
    };
    let dropped = Expected::Fate("dropped".into());
    assert_eq!(of(LIBBPF, "6.1"), [Expected::Fails(Some("kfunc".into())), dropped.clone()]);
    assert_eq!(of("tc", "6.1"), [Expected::Loads, dropped.clone()]);
    assert_eq!(of("aya", "6.1"), [dropped.clone(), Expected::LoadsOrFails]);
    assert_eq!(of("aya", "6.12"), [dropped]);
}
