// A kfunc of a module that nobody has loaded; mainline has it since 6.2.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct bpf_xfrm_info___lab {
	__u32 if_id;
	int link;
};
extern int bpf_skb_get_xfrm_info(struct __sk_buff *skb, struct bpf_xfrm_info___lab *to) __ksym;

SEC("tc") int asks(struct __sk_buff *skb)
{
	struct bpf_xfrm_info___lab info = {};

	bpf_skb_get_xfrm_info(skb, &info);
	return 0;
}

char _license[] SEC("license") = "GPL";
