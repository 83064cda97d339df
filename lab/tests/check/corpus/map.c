// An array whose keys have eight bytes.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 8);
	__uint(value_size, 4);
} wide SEC(".maps");

SEC("tc") int looks(struct __sk_buff *skb)
{
	__u64 key = 0;

	return bpf_map_lookup_elem(&wide, &key) ? 0 : 2;
}

char _license[] SEC("license") = "GPL";
