// A slot that takes no program of another expected_attach_type.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

int tail(struct __sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__array(values, int(void *));
} jumps SEC(".maps") = { .values = { (void *)&tail } };

SEC("tc") int entry(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &jumps, 0);
	return 0;
}

SEC("tcx/ingress") int tail(struct __sk_buff *skb) { return 2; }

char _license[] SEC("license") = "GPL";
