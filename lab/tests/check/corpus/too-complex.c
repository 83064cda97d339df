// More jumps in a sequence than the verifier keeps for later.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc") int jumps(struct __sk_buff *skb)
{
	__u64 one = bpf_get_prandom_u32(), other = bpf_get_prandom_u32();

	asm volatile(".rept 8300\n"
		     "if %[one] > %[other] goto +0\n"
		     ".endr\n"
		     : [one] "+r"(one), [other] "+r"(other));
	return 0;
}

char _license[] SEC("license") = "GPL";
