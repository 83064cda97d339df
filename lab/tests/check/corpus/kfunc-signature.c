// A kfunc of another signature: the kernel's takes nothing.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern void bpf_rcu_read_lock(struct __sk_buff *skb, int flags) __ksym;

SEC("tc") int calls(struct __sk_buff *skb)
{
	bpf_rcu_read_lock(skb, 1);
	return 0;
}

char _license[] SEC("license") = "GPL";
