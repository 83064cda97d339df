// A type of attachment that came with 6.7 (bpf: Implement cgroup sockaddr hooks for unix sockets).
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("cgroup/connect_unix") int connects(struct bpf_sock_addr *context) { return 1; }

char _license[] SEC("license") = "GPL";
