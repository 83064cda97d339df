// A global function, which the verifier checks for every argument.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

__attribute__((noinline)) int over(struct __sk_buff *skb, int limit)
{
	return skb->len > limit ? 2 : 0;
}

SEC("tc") int calls(struct __sk_buff *skb) { return over(skb, 1000); }

char _license[] SEC("license") = "GPL";
