// The packet's device as a map's key: at netkit/primary it is the peer, an index of the other namespace.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

SEC("tc") int counts(struct __sk_buff *skb)
{
	__u32 key = skb->ifindex, one = 1;

	bpf_map_update_elem(&devices, &key, &one, 0);
	return 0;
}

char _license[] SEC("license") = "GPL";
