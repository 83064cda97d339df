// A cgroup storage, since 6.2, that no program uses: it is created all the same.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_CGRP_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, long);
} storage SEC(".maps");

SEC("tc") int passes(struct __sk_buff *skb) { return 0; }

char _license[] SEC("license") = "GPL";
