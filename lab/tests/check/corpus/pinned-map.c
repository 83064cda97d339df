// A map that is pinned by name.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u32);
} flows SEC(".maps");

SEC("tc") int counts(struct __sk_buff *skb)
{
	__u32 key = 0, one = 1;

	bpf_map_update_elem(&flows, &key, &one, 0);
	return 0;
}

char _license[] SEC("license") = "GPL";
