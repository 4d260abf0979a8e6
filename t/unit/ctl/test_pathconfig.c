/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands about path rules: what they answer, and that they end. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"
#include "fake_policy.h"

TestSuite(ctl_pathconfig, .init = fake_init, .fini = fake_fini);

#define SHOW "{\"command\":\"pathconfig show\"}\n"
#define ONE(path)                                                                                  \
	"{\\\"apiVersion\\\":\\\"v1.0\\\",\\\"pathRules\\\":[{\\\"path\\\":\\\"" path               \
	"\\\",\\\"policyMode\\\":\\\"TRANSIENT\\\"}]}"
#define SET(text, more) "{\"command\":\"pathconfig set\",\"args\":{\"text\":\"" text "\"" more "}}\n"
#define TEST(path) "{\"command\":\"pathconfig test\",\"args\":{\"path\":\"" path "\"}}\n"

Test(ctl_pathconfig, show)
{
	fake_connect(NULL);
	fake_say(SHOW);
	fake_line_has(1, "{\"result\":{\"version\":1,\"enabled\":false,\"text\":\"{");
	fake.d.cfg->write_cache_enabled = true;
	fake_say(SHOW);
	fake_line_has(2, "\"enabled\":true");
}

Test(ctl_pathconfig, test_of_a_path)
{
	fake_connect(NULL);
	fake_say(TEST("/sub//x/") TEST("/"));
	fake_line(1, "{\"result\":{\"alluxioPath\":\"/sub/**\",\"description\":null,"
		     "\"policyMode\":\"WRITE_BACK\",\"properties\":{\"writeReplicas\":1},"
		     "\"version\":1,\"enabled\":false}}");
	fake_line_has(2, "\"alluxioPath\":null,\"description\":null,\"policyMode\":\"WRITE_THROUGH\"");
	fake_say(TEST("sub") TEST("/sub/../x") TEST("/.") TEST("/..."));
	fake_line_has(3, "begins with");
	fake_line_has(4, "/sub/../x: a path has no");
	fake_line_has(5, "a path has no");
	fake_line_has(6, "policyMode");
}

Test(ctl_pathconfig, set)
{
	fake_connect(NULL);
	fake_say(SET(ONE("/sub/*"), ""));
	fake_line(1, "{\"result\":{\"version\":2,\"enabled\":false,\"warnings\":[]}}");
	fake_say(TEST("/sub/x") SET(ONE("/sub"), ",\"if_version\":1"));
	fake_line_has(2, "TRANSIENT");
	fake_line(3, "{\"error\":{\"code\":\"EEXIST\",\"message\":\"not version 1\"}}");
	fake_say(SET(ONE("/sub"), ",\"if_version\":2") SET(ONE("/sub"), ",\"if_version\":1.5"));
	fake_line_has(4, "\"version\":3");
	fake_line_has(5, "\\\"if_version\\\" must be a whole number");
}

Test(ctl_pathconfig, refused)
{
	fake_connect(NULL);
	fake_say(SET(ONE("sub"), "") SET("", "") SHOW);
	fake_line_has(1, "{\"error\":{\"code\":\"EINVAL\",\"message\":\"line 1, column 43: path \\\"sub\\\" "
			 "can match nothing: it does not begin with a slash");
	fake_line_has(2, "line 1, column 1: ");
	fake_line_has(3, "\"version\":1");
}

Test(ctl_pathconfig, a_warning)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"pathconfig set\",\"args\":{\"text\":\"{\\\"apiVersion\\\":\\\"v1.0\\\","
		 "\\\"pathRules\\\":[{\\\"path\\\":\\\"/**\\\",\\\"policyMode\\\":\\\"TRANSIENT\\\"},"
		 "{\\\"path\\\":\\\"/a\\\",\\\"policyMode\\\":\\\"TRANSIENT\\\"}]}\"}}\n");
	fake_line_has(1, "\"warnings\":[\"line 1: rule 2, /a, never decides: rule 1, /**, comes first");
}

Test(ctl_pathconfig, out_of_reach)
{
	fake_policy_err = -EIO;
	fake_connect(NULL);
	fake_say(SHOW TEST("/x") SET(ONE("/x"), ""));
	for (unsigned i = 1; i <= 3; i++)
		fake_line(i, "{\"error\":{\"code\":\"EIO\",\"message\":\"the rules are out of reach\"}}");
	fake_policy_err = -ECANCELED;
	fake_say(SHOW);
	fake_line_has(4, "being replaced: ask again");
	fake_policy_err = 0;
}

Test(ctl_pathconfig, the_client_goes)
{
	static const char *const say[] = {SHOW, TEST("/x"), SET(ONE("/x"), ""), SET("{", "")};

	for (size_t i = 0; i < 4; i++) {
		fake_connect(NULL);
		fake_say(say[i]);
		fake_connect(NULL);
		fake_settle();
	}
}

/* 1 MiB of bytes that are six each in JSON. */
Test(ctl_pathconfig, large)
{
	static const char head[] = "{\"command\":\"pathconfig set\",\"args\":{\"text\":\"",
			  tail[] = "\"}}\n", byte[] = "\\udc80";
	size_t n = 1 << 20, len = sizeof(head) - 1;
	char *text = malloc(len + n * (sizeof(byte) - 1) + sizeof(tail));

	cr_assert_not_null(text);
	memcpy(text, head, sizeof(head));
	for (size_t i = 0; i < n; i++, len += sizeof(byte) - 1)
		memcpy(text + len, byte, sizeof(byte) - 1);
	memcpy(text + len, tail, sizeof(tail));
	fake_connect(NULL);
	fake_say(text);
	fake_line_has(1, "\"code\":\"EINVAL\"");
	fake_line_has(1, "line 1, column 1: ");
	free(text);
}
