/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/obj.h"
#include "base/units.h"
#include "../../lib/nth_fault.h"

static struct config *cfg;
static struct errtext et;

static void setup(void)
{
	cfg = config_new();
	cr_assert_not_null(cfg);
}

static void teardown(void)
{
	config_free(&cfg);
	cr_assert_null(cfg);
}

TestSuite(options, .init = setup, .fini = teardown);

static bool parses(const struct option_desc *od, const char *text, double *v)
{
	uint64_t u = 0;
	int b, err;

	switch (od->type) {
	case OPT_SIZE:
		err = units_parse_size(text, &u);
		break;
	case OPT_DURATION:
		err = units_parse_duration(text, &u);
		break;
	case OPT_U64:
		err = units_parse_u64(text, &u);
		break;
	case OPT_RATIO:
		return units_parse_ratio(text, v) == 0;
	case OPT_BOOL:
		return units_parse_bool(text, &b) == 0;
	default:
		return true;
	}
	*v = (double)u;
	return err == 0;
}

Test(options, every_row_is_sound)
{
	for (size_t i = 0; i < option_count; i++) {
		const struct option_desc *od = &option_table[i];
		double def = 0, min = 0, max = 0;
		char word[64];

		cr_assert_gt(strlen(od->name), 0);
		cr_assert_eq(strspn(od->name, "abcdefghijklmnopqrstuvwxyz0123456789._"),
		    strlen(od->name), "%s", od->name);
		cr_assert_gt(strlen(od->doc), 10, "%s has no text", od->name);
		cr_assert_lt(od->offset, sizeof(struct config));
		for (size_t j = 0; j < i; j++)
			cr_assert_str_neq(od->name, option_table[j].name);
		cr_assert(parses(od, od->def, &def), "%s: default \"%s\"", od->name, od->def);
		if (od->type == OPT_CHOICE) {
			snprintf(word, sizeof(word), "|%s|", od->def);
			char all[256];
			snprintf(all, sizeof(all), "|%s|", od->max);
			cr_assert_not_null(strstr(all, word), "%s: default", od->name);
		} else if (od->type != OPT_STRING && od->type != OPT_BOOL) {
			if (od->min[0] != '\0') {
				cr_assert(parses(od, od->min, &min), "%s: min", od->name);
				cr_assert_geq(def, min, "%s", od->name);
			}
			if (od->max[0] != '\0') {
				cr_assert(parses(od, od->max, &max), "%s: max", od->name);
				cr_assert_leq(def, max, "%s", od->name);
			}
		}
	}
}

Test(options, defaults_are_shown_as_written_in_the_table)
{
	char buf[OPTION_TEXT_MAX];

	for (size_t i = 0; i < option_count; i++) {
		cr_assert_eq(config_get(cfg, option_table[i].name, buf, sizeof(buf)), buf);
		cr_assert_str_eq(buf, option_table[i].def, "%s", option_table[i].name);
	}
	cr_assert_eq(cfg->migration_grace_period, 5 * NS_PER_S);
	cr_assert_eq(cfg->page_size, MIB);
	cr_assert_eq(cfg->ufs_connections, 64);
	cr_assert(cfg->migration_enabled);
	cr_assert_str_eq(cfg->page_store_dir, "");
	cr_assert_str_eq(cfg->log_level, "info");
	cr_assert_eq(config_validate(cfg, &et), 0, "%s", et.s);
}

/* What is shown can be set again, and the limits themselves are allowed. */
Test(options, limits_round_trip)
{
	char buf[OPTION_TEXT_MAX];

	for (size_t i = 0; i < option_count; i++) {
		const struct option_desc *od = &option_table[i];
		const char *limits[] = {od->min, od->max, od->def};

		if (od->type == OPT_CHOICE || od->type == OPT_STRING)
			continue;
		for (size_t k = 0; k < ARRAY_LEN(limits); k++) {
			char again[OPTION_TEXT_MAX];

			if (limits[k][0] == '\0')
				continue;
			cr_assert_eq(config_set(cfg, od->name, limits[k], &et), 0, "%s", et.s);
			config_get(cfg, od->name, buf, sizeof(buf));
			cr_assert_eq(config_set(cfg, od->name, buf, &et), 0, "%s", et.s);
			config_get(cfg, od->name, again, sizeof(again));
			cr_assert_str_eq(again, buf, "%s", od->name);
		}
	}
}

Test(options, all_kinds_can_be_set)
{
	cr_assert_eq(config_set(cfg, "ufs.timeout", "250ms", &et), 0);
	cr_assert_eq(cfg->ufs_timeout, 250 * NS_PER_MS);
	cr_assert_eq(config_set(cfg, "memory.limit", "1GiB", &et), 0);
	cr_assert_eq(cfg->memory_limit, GIB);
	cr_assert_eq(config_set(cfg, "pool.threads", "3", &et), 0);
	cr_assert_eq(cfg->pool_threads, 3);
	cr_assert_eq(config_set(cfg, "s3.path.style", "no", &et), 0);
	cr_assert_not(cfg->s3_path_style);
	cr_assert_eq(config_set(cfg, "s3.endpoint", "http://127.0.0.1:7480", &et), 0);
	cr_assert_str_eq(cfg->s3_endpoint, "http://127.0.0.1:7480");
	cr_assert_eq(config_set(cfg, "log.level", "DEBUG", &et), 0);
	cr_assert_str_eq(cfg->log_level, "debug");
	cr_assert_eq(config_set(cfg, "s3.endpoint", "", &et), 0);
	cr_assert_str_eq(cfg->s3_endpoint, "");
}

Test(options, values_are_copied_and_trimmed)
{
	char value[] = "  \t/var/cache/b 0\r\n ";

	cr_assert_eq(config_set(cfg, "worker.page.store.dir", value, &et), 0);
	memset(value, 'x', sizeof(value) - 1);
	cr_assert_str_eq(cfg->page_store_dir, "/var/cache/b 0");
	cr_assert_eq(config_set(cfg, "ufs.timeout", " 1s ", &et), 0);
	cr_assert_eq(cfg->ufs_timeout, NS_PER_S);
}

Test(options, errors_name_the_property_the_value_and_the_range)
{
	static const struct {
		const char *name, *value;
		int err;
		const char *text;
	} rows[] = {
	    {"ufs.timeout", "99h", -ERANGE,
		"ufs.timeout: bad value \"99h\": must be a duration, 100ms to 1h"},
	    {"ufs.timeout", "99ms", -ERANGE, "duration, 100ms to 1h"},
	    {"ufs.timeout", "30", -EINVAL, "duration, 100ms to 1h"},
	    {"ufs.timeout", "", -EINVAL, "bad value \"\""},
	    {"ufs.connections.max", "0", -ERANGE, "must be a number, 1 to 4096"},
	    {"ufs.connections.max", "-1", -EINVAL, "must be a number, 1 to 4096"},
	    {"worker.page.store.page.size", "32KiB", -ERANGE, "must be a size, 64KiB to 8MiB"},
	    {"worker.page.store.page.size", "1MB", -EINVAL, "must be a size, 64KiB to 8MiB"},
	    {"s3.path.style", "maybe", -EINVAL, "must be a truth value, true or false"},
	    {"log.level", "inf", -EINVAL, "must be a choice, one of error|warn|info|debug"},
	    {"log.level", "info|debug", -EINVAL, "choice"},
	    {"log.level", "", -EINVAL, "choice"},
	    {"s3.region", "a\nb", -EINVAL, "s3.region: the value has control characters"},
	    {"no.such.thing", "1", -ENOENT, "unknown property \"no.such.thing\"; `batonfsd --dump-options`"},
	    {"", "1", -ENOENT, "unknown property \"\""},
	    {"alluxio.", "1", -ENOENT, "unknown property \"alluxio.\""},
	    {"UFS.timeout", "1s", -ENOENT, "did you mean \"ufs.timeout\"?"},
	};
	char before[OPTION_TEXT_MAX], after[OPTION_TEXT_MAX];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		bool known = option_find(rows[i].name) != NULL;

		if (known)
			config_get(cfg, rows[i].name, before, sizeof(before));
		et.s[0] = '\0';
		cr_assert_eq(config_set(cfg, rows[i].name, rows[i].value, &et), rows[i].err,
		    "%s=%s", rows[i].name, rows[i].value);
		cr_assert_not_null(strstr(et.s, rows[i].text), "%s", et.s);
		cr_assert_eq(config_set(cfg, rows[i].name, rows[i].value, NULL), rows[i].err);
		if (known) {
			config_get(cfg, rows[i].name, after, sizeof(after));
			cr_assert_str_eq(after, before, "%s was changed", rows[i].name);
		}
	}
}

Test(options, the_longest_text)
{
	static char text[OPTION_TEXT_MAX + 1];
	static char buf[OPTION_TEXT_MAX];

	memset(text, 'x', OPTION_TEXT_MAX - 1);
	cr_assert_eq(config_set(cfg, "s3.profile", text, &et), 0);
	cr_assert_str_eq(config_get(cfg, "s3.profile", buf, sizeof(buf)), text);
	text[OPTION_TEXT_MAX - 1] = 'x';
	cr_assert_eq(config_set(cfg, "s3.profile", text, &et), -ERANGE);
	cr_assert_not_null(strstr(et.s, "longer than 4095 characters"), "%s", et.s);
	cr_assert_eq(strlen(cfg->s3_profile), OPTION_TEXT_MAX - 1);
}

Test(options, the_prefixed_name_is_an_alias)
{
	char buf[64];

	cr_assert_eq(option_find("alluxio.ufs.timeout"), option_find("ufs.timeout"));
	cr_assert_not_null(option_find("ufs.timeout"));
	cr_assert_null(option_find("alluxio.alluxio.ufs.timeout"));
	cr_assert_eq(config_set(cfg, "alluxio.ufs.timeout", "7s", &et), 0);
	cr_assert_eq(cfg->ufs_timeout, 7 * NS_PER_S);
	cr_assert_str_eq(config_get(cfg, "alluxio.ufs.timeout", buf, sizeof(buf)), "7s");
	cr_assert_eq(config_set_live(cfg, "alluxio.ufs.timeout", "8s", &et), 0);
	cr_assert_eq(config_set_pair(cfg, "alluxio.ufs.timeout=9s", &et), 0);
	cr_assert_eq(cfg->ufs_timeout, 9 * NS_PER_S);
	cr_assert_null(config_get(cfg, "alluxio.nothing", buf, sizeof(buf)));
	cr_assert_eq(config_set(cfg, "alluxio.ufs.timeou", "9s", &et), -ENOENT);
	cr_assert_not_null(strstr(et.s, "did you mean \"ufs.timeout\"?"), "%s", et.s);
}

Test(options, nearest_name)
{
	static const char *const rows[][2] = {
	    {"ufs.timeuot", "ufs.timeout"},
	    {"ufs_timeout", "ufs.timeout"},
	    {"worker.page.store.sizes", "worker.page.store.size"},
	    {"worker.pagestore.dir", "worker.page.store.dir"},
	    {"memory.limits", "memory.limit"},
	    {"s3.pathstyle", "s3.path.style"},
	    {"giid", "gid"},
	    {"page.store.size", "worker.page.store.size"},
	    {"page.size", "worker.page.store.page.size"},
	    {"slow.read.action", "fuse.migration.slow.read.action"},
	    {"log.lvl", "log.level"},
	    {"fuse.migration.slow.read.timout", "fuse.migration.slow.read.timeout"},
	};
	char longer[5000];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		cr_assert_str_eq(option_nearest(rows[i][0]), rows[i][1], "%s", rows[i][0]);
	for (size_t i = 0; i < option_count; i++)
		cr_assert_str_eq(option_nearest(option_table[i].name), option_table[i].name);
	memset(longer, 'q', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	cr_assert_null(option_nearest(longer));
	cr_assert_null(option_nearest(""));
	cr_assert_null(option_nearest("nope"));
	cr_assert_eq(config_set(cfg, "nope", "1", &et), -ENOENT);
	cr_assert_null(strstr(et.s, "did you mean"), "%s", et.s);
}

Test(options, pairs)
{
	static const char *const bad[] = {"", "=", "=x", " = x", "ufs.timeout", "ufs.timeout 3s"};

	cr_assert_eq(config_set_pair(cfg, "ufs.timeout=3s", &et), 0);
	cr_assert_eq(cfg->ufs_timeout, 3 * NS_PER_S);
	cr_assert_eq(config_set_pair(cfg, "  ufs.timeout \t=  4s  ", &et), 0);
	cr_assert_eq(cfg->ufs_timeout, 4 * NS_PER_S);
	cr_assert_eq(config_set_pair(cfg, "s3.endpoint=http://h/?a=b&c==", &et), 0);
	cr_assert_str_eq(cfg->s3_endpoint, "http://h/?a=b&c==");
	cr_assert_eq(config_set_pair(cfg, "s3.endpoint=", &et), 0);
	cr_assert_str_eq(cfg->s3_endpoint, "");
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		cr_assert_eq(config_set_pair(cfg, bad[i], &et), -EINVAL, "\"%s\"", bad[i]);
		cr_assert_not_null(strstr(et.s, "is not of the form name=value"), "%s", et.s);
	}
	cr_assert_eq(config_set_pair(cfg, "ufs.timeou=3s", &et), -ENOENT);
}

Test(options, only_live_rows_change_while_running)
{
	for (size_t i = 0; i < option_count; i++) {
		const struct option_desc *od = &option_table[i];
		int want = od->when == OPT_LIVE ? 0 : -EPERM;

		et.s[0] = '\0';
		cr_assert_eq(config_set_live(cfg, od->name, od->def, &et), want, "%s", od->name);
		if (want != 0)
			cr_assert_eq(strncmp(et.s, od->name, strlen(od->name)), 0, "%s", et.s);
	}
	cr_assert_eq(config_set_live(cfg, "pool.threads", "junk", &et), -EPERM);
	cr_assert_not_null(strstr(et.s, "batonfs upgrade"), "%s", et.s);
	cr_assert_eq(config_set_live(cfg, "nothing", "1", &et), -ENOENT);
	cr_assert_eq(config_set_live(cfg, "ufs.timeout", "junk", &et), -EINVAL);
}

Test(options, range_texts)
{
	char buf[200], small[8];

	cr_assert_str_eq(option_range_text(option_find("ufs.timeout"), buf, sizeof(buf)),
	    "duration, 100ms to 1h");
	cr_assert_str_eq(option_range_text(option_find("s3.region"), buf, sizeof(buf)), "text");
	cr_assert_str_eq(option_range_text(option_find("log.level"), buf, sizeof(buf)),
	    "choice, one of error|warn|info|debug");
	cr_assert_str_eq(
	    option_range_text(option_find("ufs.timeout"), small, sizeof(small)), "duratio");
}

Test(options, every_allocation_may_fail)
{
	bool fired = true;
	unsigned n;

	for (n = 1; fired; n++) {
		struct config *one;

		nth_arm(n);
		one = config_new();
		fired = nth_fired();
		cr_assert_eq(one == NULL, fired, "allocation %u", n);
		if (one != NULL)
			config_free(&one);
	}
	cr_assert_gt(n, 2, "no allocation was counted");

	cr_assert_eq(config_set(cfg, "s3.region", "old", &et), 0);
	for (n = 1, fired = true; fired; n++) {
		int err;

		nth_arm(n);
		err = config_set_pair(cfg, "s3.region=new", &et);
		fired = nth_fired();
		cr_assert_eq(err, fired ? -ENOMEM : 0, "allocation %u", n);
		cr_assert_str_eq(cfg->s3_region, fired ? "old" : "new");
		if (fired)
			cr_assert_not_null(strstr(et.s, "Cannot allocate memory"), "%s", et.s);
	}
}
