//! What a command in a real guest sees as `/`: docs/roots.md, on every kernel of the default matrix.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output, Stdio},
    sync::Once,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// The default matrix.
const KERNELS: [&str; 3] = ["6.1", "6.12", "6.17"];
/// Where one kernel shows it.
const KERNEL: &str = "6.12";

fn lab(arguments: &[&str], cwd: &Path) -> Output {
    // The first build takes minutes on a busy machine.
    static BUILT: Once = Once::new();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.args(["--project", ROOT]).args(arguments).stdin(Stdio::null());
        command
    };
    BUILT.call_once(|| {
        let listed = command(&["list", "--case", "P03*"]).output().unwrap();
        assert!(listed.status.success(), "{}", text(&listed.stderr));
    });
    command(arguments).current_dir(cwd).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a script on a kernel and returns what it wrote.
#[track_caller]
fn told(kernel: &str, options: &[&str], script: &str, cwd: &Path) -> String {
    let results = tempfile::tempdir().unwrap();
    let fixed = ["exec", "-k", kernel, "--results", results.path().to_str().unwrap()];
    let output = lab(&[&fixed[..], options, &["--", "sh", "-c", script]].concat(), cwd);
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{kernel}: {out}\n{errors}");
    out
}

/// Each line was red in a guest without the thing that it is about: foreign tests failed, which pass on any Linux.
const NORMAL: &str = r#"
check() { what=$1; shift; "$@" >/tmp/said 2>&1 || { echo "NOT $what: $(cat /tmp/said)"; }; }
holds() { what=$1; shift; eval "$*" || echo "NOT $what"; }
holds 'no device but loopback' '[ "$(ls /sys/class/net)" = lo ]'
holds 'tunnel devices of new namespaces' '[ "$(cat /proc/sys/net/core/fb_tunnels_only_for_init_net)" = 0 ]'
holds 'no device but loopback in a new namespace' '[ "$(unshare -n grep -c : /proc/self/net/dev)" = 1 ]'
check 'tunnels where they are asked for' unshare -n sh -c 'ip link add own type ipip remote 10.0.0.2 && ip link show tunl0'
holds 'new namespaces with settings of their own' '[ "$(cat /proc/sys/net/core/devconf_inherit_init_net)" = 0 ]'
holds 'duplicate address detection' '[ "$(cat /proc/sys/net/ipv6/conf/default/accept_dad)" = 1 ]'
check 'a dummy device by its usual name' sh -c 'modprobe dummy && ip link add dummy0 type dummy && ip link del dummy0'
holds 'loopback up' 'ip link show lo | grep -q "LOOPBACK,UP"'
check 'loopback answers' python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); socket.create_connection(s.getsockname(), 20)'
check 'modules are the guest kernel'"'"'s' test -f "/lib/modules/$(uname -r)/modules.dep"
check 'a module on demand' ip link add auto0 type geneve id 7 remote 10.0.0.2
check 'a module by its alias' ip link add gre9 type gre local 10.0.0.1 remote 10.0.0.2
check 'modprobe' modprobe sch_netem
holds 'cgroup2 by its name' 'grep -q "^cgroup2 /sys/fs/cgroup cgroup2 " /proc/mounts'
check 'a control group' mkdir /sys/fs/cgroup/own
holds 'controllers' 'grep -q pids /sys/fs/cgroup/own/cgroup.controllers'
check 'the configuration' grep -q CONFIG_BPF_SYSCALL=y "/boot/config-$(uname -r)"
check 'user namespaces' unshare -Ur true
for kind in bpf debugfs tracefs securityfs mqueue devpts; do
    holds "$kind" "cut -d' ' -f3 /proc/mounts | grep -qx $kind"
done
check 'shared memory' sh -c 'echo x >/dev/shm/x'
check 'descriptors' sh -c 'echo x | cat /dev/fd/0 /dev/stdin >/dev/stdout'
check 'tun' test -c /dev/net/tun
check 'a terminal' test -c /dev/ptmx -a -c /dev/pts/ptmx
holds 'open files' '[ "$(ulimit -n)" -ge 65536 ]'
holds 'locked memory' '[ "$(ulimit -l)" = unlimited ]'
check 'the own name' getent hosts "$(hostname)"
holds 'an empty /run' '[ ! -e /run/systemd ] && [ ! -e /run/dpkg ]'
holds 'the root is the top' '[ "$(stat -c %i /)" = "$(stat -c %i /..)" ] && ! grep -q " /lab/" /proc/self/mountinfo'
holds 'pings for everybody' '[ "$(cut -f1 /proc/sys/net/ipv4/ping_group_range)" = 0 ]'
check 'writing anywhere' sh -c 'echo x >/etc/own && echo x >>/etc/passwd && rm -r /usr/lib/git-core && mv /usr/share/keyrings /usr/moved && mkdir /usr/share/keyrings && rm -r /usr/moved'
echo done
"#;

#[test]
fn a_command_finds_a_linux_that_has_booted() {
    let dir = tempfile::tempdir().unwrap();
    for kernel in KERNELS {
        assert_eq!(told(kernel, &[], NORMAL, dir.path()), "done\n", "{kernel}");
    }
}

/// The modules of these devices are removed for commands that have no topology.
#[test]
fn a_topology_keeps_its_tunnels() {
    let dir = tempfile::tempdir().unwrap();
    for (topology, device) in [("two-node-ipip", "ipip0"), ("two-node-ip6tnl", "ip6t0")] {
        let script =
            format!("for node in $(ls /run/netns); do ip netns exec $node grep -c {device}: /proc/self/net/dev; done");
        let counts = told("6.12", &["--topology", topology], &format!("{{ {script}; }} | sort | uniq -c"), dir.path());
        let counts: Vec<&str> = counts.split_whitespace().collect();
        assert!(counts.chunks(2).any(|pair| *pair == ["2", "1"]), "two nodes have {device}: {counts:?}");
    }
}

#[test]
fn the_hosts_files_are_at_their_places_and_changes_stay_in_the_guest() {
    // Below /tmp, where `go test` puts its binaries.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("here"), "of the host\n").unwrap();
    fs::write(dir.path().join("x"), "#!/bin/sh\ncat here; pwd\n").unwrap();
    fs::set_permissions(dir.path().join("x"), fs::Permissions::from_mode(0o755)).unwrap();
    let script =
        "./x; echo changed >here; cat here; rm here; ls; mkdir new; echo deep >new/file; mv new newer; cat newer/file";
    for kernel in KERNELS {
        let said = told(kernel, &[], script, dir.path());
        assert_eq!(said, format!("of the host\n{}\nchanged\nx\ndeep\n", dir.path().display()), "{kernel}");
    }
    assert_eq!(fs::read_to_string(dir.path().join("here")).unwrap(), "of the host\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// The guest's root goes behind the overlay, to the file system of the host's files, and tries everything there.
const ATTACK: &str = r#"
share=/proc/1/root/lab/share
at=$share/root$HERE
[ "$(cat $at/file)" = kept ] || echo "NO WAY THERE"
for attack in "echo x >$at/file" "echo x >$at/new" "rm $at/file" "rm -r $at/dir" "mkdir $at/newdir" "mv $at/file $at/moved" \
    "ln -s x $at/link2" "ln $at/file $at/hard" "chmod 777 $at/file" "chown 5 $at/file" "truncate -s 0 $at/file" \
    "mknod $at/null c 1 3" "mkfifo $at/pipe" "touch $at/file" "echo x >$share/modules/modules.dep" "echo x >$share/extra/config" \
    "mkdir $share/new" "mv $at/file $share/artifacts/file" "ln $at/file $share/artifacts/file"; do
    sh -c "$attack" 2>/dev/null && echo "WRITTEN: $attack"
done
for secret in "$share/root/proc/1" "$share/root/sys/kernel" "$share/root/dev/pts/0"; do
    [ -e "$secret" ] && echo "SEEN: $secret"
done
rm -f $share/artifacts/file
ln -s .. $share/artifacts/up
ln -s "$HERE/file" $share/artifacts/file
python3 - "$share" <<'END'
import os, sys
# Past links: the host's end must not follow them either.
for name in ["up/stolen", "file"]:
    try:
        os.close(os.open(sys.argv[1] + "/artifacts/" + name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW))
        print("OPENED", name)
    except OSError:
        pass
END
mknod $share/artifacts/null c 1 3 2>/dev/null && echo "DEVICE"
cp /bin/true $share/artifacts/suid; chmod 4755 $share/artifacts/suid; [ -u $share/artifacts/suid ] && echo "SUID"
chown 5:5 $share/artifacts/suid 2>/dev/null && echo "OWNER"
echo done
"#;

#[test]
fn root_in_a_guest_can_not_write_to_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("dir")).unwrap();
    fs::write(path("file"), "kept").unwrap();
    symlink("/etc", path("link")).unwrap();
    let out = path("out");
    let here = format!("HERE={}", dir.path().display());
    for kernel in KERNELS {
        let _ = fs::remove_dir_all(&out);
        let said = told(kernel, &["--env", &here, "--out", out.to_str().unwrap()], ATTACK, dir.path());
        assert_eq!(said, "done\n", "{kernel}");
        assert_eq!(fs::read_to_string(path("file")).unwrap(), "kept", "{kernel}");
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["dir", "file", "link", "out"], "{kernel}");
        let mode = fs::metadata(out.join(kernel).join("suid")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7000, 0, "{kernel}");
    }
}

#[test]
fn a_directory_is_shared_for_writing_and_artefacts_are_there_when_the_guest_dies() {
    let dir = tempfile::tempdir().unwrap();
    let (shared, out) = (dir.path().join("shared"), dir.path().join("out"));
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("input"), "1\n").unwrap();
    let script = format!(
        "cd {}; cat input; echo 2 >output; mkdir -p a/b; mv output a/b/; head -c 3000000 /dev/zero >$LAB_ARTIFACTS/big; \
         echo log >$LAB_ARTIFACTS/log; echo more >>$LAB_ARTIFACTS/log; cat $LAB_ARTIFACTS/log",
        shared.display()
    );
    let options = ["--rw", shared.to_str().unwrap(), "--out", out.to_str().unwrap()];
    assert_eq!(told(KERNEL, &options, &script, dir.path()), "1\nlog\nmore\n");
    assert_eq!(fs::read_to_string(shared.join("a/b/output")).unwrap(), "2\n");
    assert_eq!(fs::metadata(out.join(KERNEL).join("big")).unwrap().len(), 3_000_000);
    let results = dir.path().join("results");
    let script = "echo last words >$LAB_ARTIFACTS/log; echo c >/proc/sysrq-trigger";
    let out = out.to_str().unwrap();
    let results = results.to_str().unwrap();
    let output = lab(&["exec", "-k", KERNEL, "--results", results, "--out", out, "--", "sh", "-c", script], dir.path());
    assert_ne!(output.status.code(), Some(0));
    assert_eq!(fs::read_to_string(Path::new(out).join(KERNEL).join("log")).unwrap(), "last words\n");
}

#[test]
fn a_program_comes_alone_or_with_a_root_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let script = format!(
        "[ -e {} ] && echo seen; [ -e /etc/shadow ] && echo seen; cat /etc/hostname; ls /bin/cat",
        secret.display()
    );
    let options = ["--root", "none", "--file", "/bin/cat", "--file", "/bin/ls"];
    assert_eq!(told(KERNEL, &options, &script, dir.path()), format!("lab-{KERNEL}\n/bin/cat\n"));

    // A root that busybox makes: the lab has it in its tools.
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    let busybox = lab::setup::Tools::in_cache(&lab_base::paths::cache_dir().unwrap()).shell();
    let busybox = busybox.map(|set| set.root().join("usr/bin/busybox")).filter(|path| path.is_file());
    let busybox = busybox.unwrap_or_else(|| "/bin/busybox".into());
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    symlink("busybox", root.join("bin/sh")).unwrap();
    symlink("busybox", root.join("bin/ls")).unwrap();
    let tar = dir.path().join("root.tar.gz");
    let packed =
        Command::new("tar").args(["--owner=7", "-czf"]).arg(&tar).arg("-C").arg(&root).arg(".").status().unwrap();
    assert!(packed.success());
    for named in [&root, &tar] {
        let said = told(
            KERNEL,
            &["--root", named.to_str().unwrap()],
            "ls /bin; pwd; busybox modprobe -h 2>&1 | head -1 | cut -c1-7",
            dir.path(),
        );
        assert!(said.starts_with("busybox\nls\nsh\n/\n"), "{}: {said}", named.display());
    }
}

#[test]
fn what_is_no_root_is_one_error_before_a_guest_boots() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::create_dir(dir.path().join("empty")).unwrap();
    fs::write(dir.path().join("text.tar"), "text").unwrap();
    fs::create_dir(dir.path().join("layout")).unwrap();
    fs::write(dir.path().join("layout/oci-layout"), "{}").unwrap();
    for (options, words) in [
        (["--root", &path("absent")], "absent: No such file or directory"),
        (["--root", &path("empty")], "empty is no root: it has neither bin, usr/bin"),
        (["--root", &path("text.tar")], "text.tar is damaged: it can't be read as a tar archive"),
        (["--root", &path("layout")], "layout/index.json: No such file or directory"),
        (["--rw", &path("absent")], "absent: No such file or directory"),
        (["--rw", "/"], "/ can't be shared for writing"),
        (["--module", &path("text.tar")], "text.tar is not a kernel module"),
        (["--file", "/bin/true"], "--file adds files to --root none"),
    ] {
        let output = lab(&[&["exec", "-k", KERNEL], &options[..], &["--", "true"]].concat(), dir.path());
        let errors = text(&output.stderr);
        let lines: Vec<&str> = errors.lines().filter(|line| line.contains("error: ")).collect();
        assert!(
            output.status.code() != Some(0) && lines.len() == 1 && lines[0].contains(words),
            "{options:?}: {errors}"
        );
    }
}

#[test]
fn a_full_overlay_is_no_space_left() {
    let dir = tempfile::tempdir().unwrap();
    let script = "said=$(head -c 200000000 /dev/zero 2>&1 >big); echo $said | grep -o 'No space left'; rm big; echo x >small; cat small";
    assert_eq!(told(KERNEL, &["--overlay", "128M", "--memory", "512M"], script, dir.path()), "No space left\nx\n");
}

#[test]
fn services_of_the_hosts_loopback_are_reached_and_nothing_else_is() {
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, UdpSocket},
        thread,
    };
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let closed = other.local_addr().unwrap().port();
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    // The same port of the other family says who it is.
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).unwrap();
    let serve = |listener: TcpListener, name: &'static str| {
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut all = Vec::new();
                    let _ = stream.read_to_end(&mut all);
                    let _ = stream.write_all(format!("{name} {}\n", all.len()).as_bytes());
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        })
    };
    serve(tcp, "four");
    serve(six, "six");
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((count, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&[b"udp ", &buffer[..count]].concat(), peer);
        }
    });
    let script = format!(
        r#"
import socket, sys
def ask(family, host, port, count):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(60)
    s.connect((host, port))
    s.sendall(b"x" * count)
    s.shutdown(socket.SHUT_WR)
    said = b""
    while True:
        piece = s.recv(65536)
        if not piece:
            return said.decode().strip()
        said += piece
print(ask(socket.AF_INET, "127.0.0.1", {port}, 5_000_000))
print(ask(socket.AF_INET6, "::1", {port}, 7))
many = [ask(socket.AF_INET, "localhost", {port}, n) for n in range(20)]
print(many[-1])
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.settimeout(60)
u.sendto(b"one", ("127.0.0.1", {port}))
print(u.recv(100).decode())
for target in [("127.0.0.1", {closed}), ("10.0.2.2", {port}), ("192.0.2.1", {port})]:
    try:
        socket.create_connection(target, timeout=5)
        print("REACHED", target)
    except OSError as error:
        pass
"#
    );
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ask.py"), script).unwrap();
    let net = format!("host:{port}");
    for kernel in KERNELS {
        let said = told(kernel, &["--net", &net], "python3 ask.py", dir.path());
        assert_eq!(said, "four 5000000\nsix 7\nfour 19\nudp one\n", "{kernel}");
    }
}
