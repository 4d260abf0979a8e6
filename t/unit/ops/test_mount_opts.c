/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "ops/fs.h"

TestSuite(mount_opts);

static int parse(struct fs_mount_opts *mo, const char *text, struct errtext *et)
{
	return fs_mount_opts_parse(mo, &text, 1, et);
}

static bool has_word(const struct fs_mount_opts *mo, const char *word)
{
	char **w;

	for (w = mo->fuse_opts; w != NULL && *w != NULL; w++)
		if (strcmp(*w, word) == 0)
			return true;
	return false;
}

Test(mount_opts, defaults)
{
	struct fs_mount_opts mo;

	cr_assert_eq(fs_mount_opts_parse(&mo, NULL, 0, NULL), 0);
	cr_assert_not(mo.ro);
	cr_assert_eq(mo.attr_timeout, 1.0);
	cr_assert_eq(mo.entry_timeout, 1.0);
	cr_assert_eq(mo.negative_timeout, 0.0);
	cr_assert_eq(mo.max_background, 0);
	cr_assert(has_word(&mo, "default_permissions"));
	cr_assert(has_word(&mo, "subtype=batonfs"));
	fs_mount_opts_fini(&mo);
	cr_assert_null(mo.fuse_opts);
}

Test(mount_opts, values)
{
	static const char *const texts[] = {"ro,allow_other,attr_timeout=2.5",
	    "entry_timeout=60,negative_timeout=3,max_background=12,kernel_cache", "auto_cache,,",
	    "fsname=a\\,b,attr_timeout=4,max_idle_threads=7,noatime,nosuid,x-systemd.automount"};
	struct fs_mount_opts mo;
	struct errtext et;

	cr_assert_eq(fs_mount_opts_parse(&mo, texts, 4, &et), 0, "%s", et.s);
	cr_assert(mo.ro && mo.kernel_cache && mo.auto_cache);
	cr_assert_eq(mo.attr_timeout, 4.0, "the last one wins");
	cr_assert_eq(mo.entry_timeout, 60.0);
	cr_assert_eq(mo.negative_timeout, 3.0);
	cr_assert_eq(mo.max_background, 12);
	cr_assert(has_word(&mo, "ro") && has_word(&mo, "allow_other") && has_word(&mo, "noatime"));
	cr_assert(has_word(&mo, "fsname=a\\,b"));
	cr_assert_not(has_word(&mo, "max_idle_threads=7"));
	fs_mount_opts_fini(&mo);
}

Test(mount_opts, later_rw_takes_ro_back)
{
	struct fs_mount_opts mo;

	cr_assert_eq(parse(&mo, "ro,rw", NULL), 0);
	cr_assert_not(mo.ro);
	cr_assert_not(has_word(&mo, "ro"));
	fs_mount_opts_fini(&mo);
}

Test(mount_opts, bad_words_are_named)
{
	static const char *const bad[] = {"no_such", "attr_timeout",
	    "attr_timeout=", "attr_timeout=x", "attr_timeout=-1", "attr_timeout=nan",
	    "attr_timeout=1e30", "entry_timeout=1s", "max_background=0", "max_background=65536",
	    "max_background=-3", "max_background=4x", "ro=1", "allow_otherx", "writeback_cache"};
	struct fs_mount_opts mo;
	struct errtext et;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		et.s[0] = '\0';
		cr_assert_eq(parse(&mo, bad[i], &et), -EINVAL, "%s", bad[i]);
		cr_assert_not_null(strstr(et.s, bad[i]), "%s: %s", bad[i], et.s);
		cr_assert_null(mo.fuse_opts);
	}
	et.s[0] = '\0';
	cr_assert_eq(parse(&mo, "ro,bogus=3,allow_other", &et), -EINVAL);
	cr_assert_not_null(strstr(et.s, "\"bogus=3\""), "%s", et.s);
}
