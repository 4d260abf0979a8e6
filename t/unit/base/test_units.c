/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/units.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/obj.h"

TestSuite(units);

#define UNTOUCHED UINT64_C(0x1234567890abcdef)

struct row {
	const char *text;
	int err;
	uint64_t value;
};

static void check_rows(int (*parse)(const char *, uint64_t *), const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v = UNTOUCHED;

		cr_assert_eq(parse(rows[i].text, &v), rows[i].err, "\"%s\"", rows[i].text);
		cr_assert_eq(v, rows[i].err == 0 ? rows[i].value : UNTOUCHED, "\"%s\": %ju",
		    rows[i].text, (uintmax_t)v);
	}
}

Test(units, durations)
{
	static const struct row rows[] = {
	    {"0", 0, 0},
	    {"0s", 0, 0},
	    {"1ns", 0, 1},
	    {"7us", 0, 7000},
	    {"250ms", 0, 250 * NS_PER_MS},
	    {"3s", 0, 3 * NS_PER_S},
	    {"007s", 0, 7 * NS_PER_S},
	    {"10min", 0, 600 * NS_PER_S},
	    {"10m", 0, 600 * NS_PER_S},
	    {"1h", 0, 3600 * NS_PER_S},
	    {"2d", 0, 172800 * NS_PER_S},
	    {"18446744073709551615ns", 0, UINT64_MAX},
	    {"18446744073709551616ns", -ERANGE, 0},
	    {"99999999999999999999999999s", -ERANGE, 0},
	    {"18446744074s", -ERANGE, 0},
	    {"213504d", -ERANGE, 0},
	    {"213503d", 0, 213503 * (86400 * NS_PER_S)},
	    {"", -EINVAL, 0},
	    {"00", -EINVAL, 0},
	    {"5", -EINVAL, 0},
	    {"s", -EINVAL, 0},
	    {"-1s", -EINVAL, 0},
	    {"+1s", -EINVAL, 0},
	    {" 1s", -EINVAL, 0},
	    {"1s ", -EINVAL, 0},
	    {"1 s", -EINVAL, 0},
	    {"1.5s", -EINVAL, 0},
	    {"1S", -EINVAL, 0},
	    {"1M", -EINVAL, 0},
	    {"1sec", -EINVAL, 0},
	    {"1h30m", -EINVAL, 0},
	    {"0x10s", -EINVAL, 0},
	    {"99999999999999999999999999x", -EINVAL, 0},
	};

	check_rows(units_parse_duration, rows, ARRAY_LEN(rows));
}

Test(units, sizes)
{
	static const struct row rows[] = {
	    {"0", 0, 0},
	    {"4096", 0, 4096},
	    {"64KiB", 0, 64 * KIB},
	    {"64K", 0, 64 * KIB},
	    {"64k", 0, 64 * KIB},
	    {"1MiB", 0, MIB},
	    {"1mib", 0, MIB},
	    {"3M", 0, 3 * MIB},
	    {"2G", 0, 2 * GIB},
	    {"2TiB", 0, 2048 * GIB},
	    {"16777215TiB", 0, UINT64_C(16777215) * 1024 * GIB},
	    {"18446744073709551615", 0, UINT64_MAX},
	    {"18446744073709551616", -ERANGE, 0},
	    {"16777216TiB", -ERANGE, 0},
	    {"", -EINVAL, 0},
	    {"KiB", -EINVAL, 0},
	    {"-1", -EINVAL, 0},
	    {"1.5GiB", -EINVAL, 0},
	    {"1 KiB", -EINVAL, 0},
	    {"1KiB ", -EINVAL, 0},
	    {"1KB", -EINVAL, 0},
	    {"1PiB", -EINVAL, 0},
	    {"1e6", -EINVAL, 0},
	    {"0x1000", -EINVAL, 0},
	};

	check_rows(units_parse_size, rows, ARRAY_LEN(rows));
}

Test(units, numbers)
{
	static const struct row rows[] = {
	    {"0", 0, 0},
	    {"42", 0, 42},
	    {"0042", 0, 42},
	    {"18446744073709551615", 0, UINT64_MAX},
	    {"18446744073709551616", -ERANGE, 0},
	    {"28446744073709551615", -ERANGE, 0},
	    {"", -EINVAL, 0},
	    {"-1", -EINVAL, 0},
	    {"+1", -EINVAL, 0},
	    {" 1", -EINVAL, 0},
	    {"1 ", -EINVAL, 0},
	    {"1k", -EINVAL, 0},
	    {"0x1", -EINVAL, 0},
	    {"1.0", -EINVAL, 0},
	    {"99999999999999999999999999x", -EINVAL, 0},
	};

	check_rows(units_parse_u64, rows, ARRAY_LEN(rows));
}

Test(units, ratios)
{
	static const struct {
		const char *text;
		double value;
	} good[] = {{"0", 0}, {"0.3", 0.3}, {"1", 1}, {"1.0", 1}, {"0.125", 0.125}, {"12.5", 12.5},
	    {"00.50", 0.5}};
	static const char *const bad[] = {"", ".", ".5", "1.", "-0.1", "+1", " 1", "1 ", "1e-1",
	    "inf", "nan", "0x1p3", "1,5", "0.1.2", "30%"};
	char huge[500];
	double d = 0;

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		cr_assert_eq(units_parse_ratio(good[i].text, &d), 0, "\"%s\"", good[i].text);
		cr_assert_eq(d, good[i].value, "\"%s\"", good[i].text);
	}
	d = 7;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		cr_assert_eq(units_parse_ratio(bad[i], &d), -EINVAL, "\"%s\"", bad[i]);
		cr_assert_eq(d, 7);
	}
	memset(huge, '9', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = '\0';
	cr_assert_eq(units_parse_ratio(huge, &d), -ERANGE);
	cr_assert_eq(d, 7);
}

Test(units, truth)
{
	static const char *const yes[] = {"true", "True", "TRUE", "yes", "on", "1"};
	static const char *const no[] = {"false", "False", "no", "off", "0"};
	static const char *const bad[] = {"", "t", "y", "truee", " true", "true ", "2", "-1", "01"};
	int b;

	for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
		b = 9;
		cr_assert_eq(units_parse_bool(yes[i], &b), 0);
		cr_assert_eq(b, 1);
	}
	for (size_t i = 0; i < ARRAY_LEN(no); i++) {
		b = 9;
		cr_assert_eq(units_parse_bool(no[i], &b), 0);
		cr_assert_eq(b, 0);
	}
	b = 9;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		cr_assert_eq(units_parse_bool(bad[i], &b), -EINVAL, "\"%s\"", bad[i]);
	cr_assert_eq(b, 9);
}

Test(units, shortest_exact_forms)
{
	static const struct {
		uint64_t v;
		const char *duration, *size;
	} rows[] = {
	    {0, "0s", "0"},
	    {1, "1ns", "1"},
	    {1024, "1024ns", "1KiB"},
	    {1500, "1500ns", "1500"},
	    {5 * NS_PER_S, "5s", NULL},
	    {90 * NS_PER_S, "90s", NULL},
	    {600 * NS_PER_S, "10min", NULL},
	    {86400 * NS_PER_S, "1d", NULL},
	    {1500 * NS_PER_MS, "1500ms", NULL},
	    {256 * MIB, NULL, "256MiB"},
	    {1024 * GIB, NULL, "1TiB"},
	    {1536 * MIB, NULL, "1536MiB"},
	    {UINT64_MAX, "18446744073709551615ns", "18446744073709551615"},
	};
	char buf[32];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (rows[i].duration != NULL) {
			cr_assert_eq(units_format_duration(rows[i].v, buf, sizeof(buf)), buf);
			cr_assert_str_eq(buf, rows[i].duration);
		}
		if (rows[i].size != NULL) {
			cr_assert_eq(units_format_size(rows[i].v, buf, sizeof(buf)), buf);
			cr_assert_str_eq(buf, rows[i].size);
		}
	}
}

Test(units, what_is_written_reads_back)
{
	uint64_t v = 1, back;
	char buf[32];

	for (int i = 0; i < 20000; i++) {
		v = v * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		/* all magnitudes, and many that are whole in some unit */
		uint64_t x = (v >> (v & 63)) * (i % 3 == 0 ? 1000 : i % 3 == 1 ? 1024 : 1);

		cr_assert_eq(
		    units_parse_duration(units_format_duration(x, buf, sizeof(buf)), &back), 0);
		cr_assert_eq(back, x, "%s", buf);
		cr_assert_eq(units_parse_size(units_format_size(x, buf, sizeof(buf)), &back), 0);
		cr_assert_eq(back, x, "%s", buf);
	}
}
