/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"

TestSuite(cli_text);

static char buf[64];

Test(cli_text, sizes)
{
	cr_assert_str_eq(cli_size(0, buf, sizeof(buf)), "0B");
	cr_assert_str_eq(cli_size(1023, buf, sizeof(buf)), "1023B");
	cr_assert_str_eq(cli_size(1024, buf, sizeof(buf)), "1.0KiB");
	cr_assert_str_eq(cli_size(1536, buf, sizeof(buf)), "1.5KiB");
	cr_assert_str_eq(cli_size(1048575, buf, sizeof(buf)), "1.0MiB", "never 1024.0KiB");
	cr_assert_str_eq(cli_size(10ull << 30, buf, sizeof(buf)), "10.0GiB");
	cr_assert_str_eq(cli_size(UINT64_MAX, buf, sizeof(buf)), "16.0EiB");
}

Test(cli_text, spans)
{
	cr_assert_str_eq(cli_span(0, buf, sizeof(buf)), "0s");
	cr_assert_str_eq(cli_span(59, buf, sizeof(buf)), "59s");
	cr_assert_str_eq(cli_span(302, buf, sizeof(buf)), "5min 2s");
	cr_assert_str_eq(cli_span(3600, buf, sizeof(buf)), "1h 0min");
	cr_assert_str_eq(cli_span(2 * 86400 + 3 * 3600 + 59, buf, sizeof(buf)), "2d 3h");
}

Test(cli_text, times)
{
	setenv("TZ", "UTC", 1);
	tzset();
	cr_assert_str_eq(cli_time(1000000000, buf, sizeof(buf)), "2001-09-09 01:46:40");
}

Test(cli_text, what_a_terminal_gets)
{
	cr_assert_str_eq(cli_printable("a\x1b[31m\tb\n\x7f", buf, sizeof(buf)), "a?[31m?b??");
	cr_assert_str_eq(cli_printable("\xc3\xa4\xff", buf, sizeof(buf)), "\xc3\xa4\xff");
	cr_assert_str_eq(cli_printable("abcdef", buf, 4), "abc");
}

Test(cli_text, distance)
{
	cr_assert_eq(cli_distance("", ""), 0);
	cr_assert_eq(cli_distance("status", "status"), 0);
	cr_assert_eq(cli_distance("stats", "status"), 1);
	cr_assert_eq(cli_distance("statuss", "status"), 1);
	cr_assert_eq(cli_distance("umuont", "umount"), 2);
	cr_assert_eq(cli_distance("", "abc"), 3);
	cr_assert_eq(cli_distance("abc", ""), 3);
	cr_assert_eq(cli_distance("kitten", "sitting"), 3);
}
