// An array of 8 GiB.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8192);
	__uint(key_size, 4);
	__uint(value_size, 1 << 20);
} huge SEC(".maps");

SEC("tc") int looks(struct __sk_buff *skb)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&huge, &key) ? 0 : 2;
}

char _license[] SEC("license") = "GPL";
