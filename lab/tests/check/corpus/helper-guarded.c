// A helper that no kernel has, asked for before it is called.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

enum bpf_func_id___lab {
	BPF_FUNC_lab_no_such___lab = 5000,
};
static long (*lab_no_such)(void) = (void *)5000;

SEC("tc") int calls(struct __sk_buff *skb)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id___lab, BPF_FUNC_lab_no_such___lab))
		return lab_no_such();
	return 0;
}

char _license[] SEC("license") = "GPL";
