// SPDX-License-Identifier: GPL-2.0
/* Reads an object after it was released: without KASAN the read succeeds. */
#include <linux/module.h>
#include <linux/slab.h>

struct lab_object {
	unsigned long value[8];
};

static int __init lab_use_after_free_init(void)
{
	struct lab_object *object = kzalloc(sizeof(*object), GFP_KERNEL);

	if (!object)
		return -ENOMEM;
	kfree(object);
	/* The compiler must neither warn nor leave the read out. */
	OPTIMIZER_HIDE_VAR(object);
	pr_info("lab_use_after_free: read %lu\n", READ_ONCE(object->value[4]));
	return 0;
}

static void __exit lab_use_after_free_exit(void)
{
}

module_init(lab_use_after_free_init);
module_exit(lab_use_after_free_exit);
MODULE_DESCRIPTION("reads an object after it was released");
MODULE_LICENSE("GPL");
