/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/argv.h"
#include "mount/mount.h"

TestSuite(mount_translate);

/* The words behind the program's name with "|" between them, or "!" and the error. */
static char *translate(struct mount_args *ma)
{
	struct errtext et = {""};
	char *text = NULL, **words;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int err = 0;

	words = mount_translate(ma, "batonfsd", &err, &et);
	if (words == NULL)
		fprintf(f, "!%s", et.s);
	cr_assert((words == NULL) == (err != 0));
	for (size_t i = 1; words != NULL && words[i] != NULL; i++)
		fprintf(f, "%s%s", i > 1 ? "|" : "", words[i]);
	fclose(f);
	argv_free(&words);
	return text;
}

static void expect(const char *options, bool sloppy, const char *want)
{
	struct mount_args ma = {.source = "s3://b/p", .target = "/m", .sloppy = sloppy};
	char full[1024], *got;

	if (options != NULL)
		ma.options[ma.noptions++] = options;
	got = translate(&ma);
	snprintf(full, sizeof(full), "%s%s--takeover=never|-u|/=s3://b/p|--|/m", want,
	    want[0] != '\0' ? "|" : "");
	cr_assert_str_eq(got, full, "%s: %s, not %s", options, got, full);
	free(got);
}

#define NAMED "-o|fsname=s3://b/p"

Test(mount_translate, words)
{
	expect(NULL, false, NAMED);
	expect("", false, NAMED);
	expect(",,", false, NAMED);
	expect("ro,allow_other", false, "-o|ro|-o|allow_other|" NAMED);
	expect("a.b=c,write.cache.enabled=true", false, "-s|a.b=c|-s|write.cache.enabled=true|" NAMED);
	expect("a.b=x=y", false, "-s|a.b=x=y|" NAMED);
	expect("config=/a b,conf=/c", false, "-c|/a b|-c|/c|" NAMED);
	expect("attr_timeout=1.5", false, "-o|attr_timeout=1.5|" NAMED);
	expect("fsname=x", false, "-o|fsname=x");
}

Test(mount_translate, what_is_for_mount_is_dropped)
{
	expect("defaults,user,user=joe,users,nofail,_netdev,noauto,auto,owner,group", false, NAMED);
	expect("x-systemd.automount,x-systemd.requires=a.service,X-mount.mkdir,comment=a.b", false,
	    NAMED);
}

Test(mount_translate, commas_and_quotes)
{
	expect("a.b=\"c,d\",ro", false, "-s|a.b=c,d|-o|ro|" NAMED);
	expect("a.b=c\\,d", false, "-s|a.b=c,d|" NAMED);
	expect("a.b=c\\d", false, "-s|a.b=c\\d|" NAMED);
	expect("fsname=\"a,b\"", false, "-o|fsname=a\\,b");
	expect("a.b=\"open", false, "-s|a.b=open|" NAMED);
	expect("a.b=end\\", false, "-s|a.b=end\\|" NAMED);
}

Test(mount_translate, sloppy_drops_unknown_options_only)
{
	expect("ro,nolog=3,frob,a.b=c", true, "-o|ro|-s|a.b=c|" NAMED);
	expect("frob", false, "-o|frob|" NAMED);
}

Test(mount_translate, several_lists_and_flags)
{
	struct mount_args ma = {.source = "file:///a,b", .target = "-m", .fake = true,
	    .options = {"takeover=auto", "ro"}, .noptions = 2};
	char *got = translate(&ma);

	cr_assert_str_eq(got,
	    "--takeover=auto|-o|ro|-o|fsname=file:///a\\,b|--check|-u|/=file:///a,b|--|-m");
	free(got);
}

Test(mount_translate, refusals)
{
	struct mount_args dir = {.source = "/srv", .target = "/m"};
	struct mount_args none = {.source = "bucket", .target = "/m"};
	struct mount_args re = {.source = "s3://b", .target = "/m", .options = {"ro,remount"},
	    .noptions = 1};
	char *got;

	got = translate(&dir);
	cr_assert(got[0] == '!' && strstr(got, "file:///srv") != NULL, "%s", got);
	free(got);
	got = translate(&none);
	cr_assert(got[0] == '!' && strstr(got, "bucket") != NULL, "%s", got);
	free(got);
	got = translate(&re);
	cr_assert(got[0] == '!' && strstr(got, "conf set") != NULL, "%s", got);
	free(got);
}
