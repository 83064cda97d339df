// A field that was renamed: task_struct.state is task_struct.__state since 5.14. Each kernel has one of the two.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct task_struct___old {
	long state;
} __attribute__((preserve_access_index));
struct task_struct___new {
	unsigned int __state;
} __attribute__((preserve_access_index));

SEC("tc") int reads(struct __sk_buff *skb)
{
	void *task = (void *)bpf_get_current_task();
	struct task_struct___new *new = task;
	struct task_struct___old *old = task;

	if (bpf_core_field_exists(new->__state))
		return BPF_CORE_READ(new, __state) == ~0U ? 2 : 0;
	return BPF_CORE_READ(old, state) == ~0L ? 2 : 0;
}

char _license[] SEC("license") = "GPL";
