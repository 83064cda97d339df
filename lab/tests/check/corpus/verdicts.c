// Programs that hooks treat differently: netkit drops what it does not know, and redirects in the peer's namespace.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc") int pass(struct __sk_buff *skb) { return 0; }

SEC("tc") int next(struct __sk_buff *skb) { return -1; }

SEC("tc") int pipe_it(struct __sk_buff *skb) { return 3; }

SEC("tc") int drop_it(struct __sk_buff *skb) { return 2; }

SEC("tc") int change_it(struct __sk_buff *skb)
{
	__u8 ttl = 7;

	bpf_skb_store_bytes(skb, 22, &ttl, 1, 0);
	return 0;
}

// 13 is r0, beside the device that has the hook.
SEC("tc") int away(struct __sk_buff *skb) { return bpf_redirect(13, 0); }

SEC("tc") int to_peer(struct __sk_buff *skb) { return bpf_redirect_peer(13, 0); }

SEC("xdp") int other_type(struct xdp_md *md) { return XDP_PASS; }

char _license[] SEC("license") = "GPL";
