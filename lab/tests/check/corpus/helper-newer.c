// A helper that mainline has since 6.1: bpf_user_ringbuf_drain, number 209 (bpf: Add user ring buffer).
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

static long each(struct bpf_dynptr *data, void *context) { return 0; }

SEC("tc") int drains(struct __sk_buff *skb)
{
	return bpf_user_ringbuf_drain(&ring, each, (void *)0, 0) < 0 ? 0 : 0;
}

char _license[] SEC("license") = "GPL";
