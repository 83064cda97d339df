// A kernel that does not compare the size of the options of bpf_skb_ct_lookup() with the field that it writes (6.17.13) writes over
// the saved registers of its own function: the kernel panics in the first test run.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct bpf_ct_opts___lab {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};
struct nf_conn {
	unsigned long status;
} __attribute__((preserve_access_index));
extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 tuple__sz,
					 struct bpf_ct_opts___lab *opts, __u32 opts__sz) __ksym;
extern void bpf_ct_release(struct nf_conn *ct) __ksym;

// The options are the last four bytes of the program's stack: what is written beyond them is the caller's frame pointer.
SEC("tc") int crashes(struct __sk_buff *skb)
{
	struct {
		struct bpf_sock_tuple tuple;
		int opts;
	} stack = {};
	struct nf_conn *ct = bpf_skb_ct_lookup(skb, &stack.tuple, 0, (void *)&stack.opts, 0);

	if (ct)
		bpf_ct_release(ct);
	return 0;
}

char _license[] SEC("license") = "GPL";
