// A field that no kernel has, behind a comparison of the packet's mark: the verifier follows both ways.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct task_struct {
	int lab_no_such;
} __attribute__((preserve_access_index));

SEC("tc") int reads(struct __sk_buff *skb)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	int value = 0;

	if (skb->mark == 7)
		bpf_probe_read_kernel(&value, sizeof(value), &task->lab_no_such);
	return value;
}

char _license[] SEC("license") = "GPL";
