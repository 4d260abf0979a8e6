/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands that move a metadata store, and records as JSON. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "ctl/ctl_meta_json.h"
#include "fake.h"
#include "fake_records.h"

TestSuite(ctl_meta, .init = fake_init, .fini = fake_fini);

#define STATE "{\"command\":\"meta state\"}\n"
#define SCAN(path) "{\"command\":\"meta scan\",\"args\":{\"path\":\"" path "\"}}\n"
#define BEGIN(d) "{\"command\":\"meta begin\",\"args\":{\"digest\":\"" d "\"}}\n"
#define END(d) "{\"command\":\"meta end\",\"args\":{\"digest\":\"" d "\"}}\n"
#define PUT(d, records)                                                                            \
	"{\"command\":\"meta put\",\"args\":{\"digest\":\"" d "\",\"records\":[" records "]}}\n"
#define FILE_A "{\"path\":\"a\",\"kind\":\"file\",\"mode\":420}"

static void all_are(enum meta_state state, unsigned n)
{
	fake_records("", n);
	for (unsigned i = 0; i < n; i++)
		fake_record[i].rec.content.state = (uint8_t)state;
}

Test(ctl_meta, a_mount_without_a_store)
{
	fake_connect(NULL);
	fake_say(STATE);
	fake_line_has(1, "a read-only mount has no metadata store");
}

Test(ctl_meta, what_does_not_move)
{
	fake_records("", 2);
	fake_connect(NULL);
	fake_say(STATE SCAN(""));
	fake_line_has(1, "2 files are not in the storage yet");
	fake_line_has(2, "error");
	all_are(META_STATE_TRANSIENT, 2);
	fake_say(STATE);
	fake_line_has(3, "2 files are TRANSIENT");
	all_are(META_STATE_PERSISTED, 2);
	fake_intents = 1;
	fake_say(STATE);
	fake_line_has(4, "a rename or an upload is under way");
	fake_intents = 0;
	fake_say(STATE SCAN(""));
	fake_line_has(5, "\"backend\":\"embedded\"");
	fake_line_has(6, "\"more\":false,\"entries\":[{\"name\":");
}

Test(ctl_meta, an_import)
{
	fake_records("sub/", 1); /* the top has none */
	fake_connect(NULL);
	fake_say(PUT("d1", FILE_A));
	fake_line_has(1, "no import has begun");
	fake_say(BEGIN("d1") PUT("d1", FILE_A "," FILE_A) BEGIN("d1") BEGIN("d2") PUT("d2", FILE_A));
	fake_line(2, "{\"result\":{}}");
	fake_line(3, "{\"result\":{}}");
	fake_line(4, "{\"result\":{}}");
	fake_line_has(5, "another file into this store was broken off");
	fake_line_has(6, "another file into this store was broken off");
	cr_assert_eq(fake_puts, 2);
	fake_say(PUT("d1", "{\"path\":\"b\"}") END("d1") END("d1") BEGIN("d2"));
	fake_line_has(7, "b: \\\"kind\\\" is missing");
	fake_line(8, "{\"result\":{}}");
	fake_line(9, "{\"result\":{}}");
	fake_line(10, "{\"result\":{}}");
	cr_assert_str_eq(fake_setting, "d2");
}

Test(ctl_meta, a_store_with_records)
{
	all_are(META_STATE_PERSISTED, 1);
	fake_connect(NULL);
	fake_say(BEGIN("d1"));
	fake_line_has(1, "an import needs an empty one");
}

/* --- Records */

static int parse(const char *text, struct meta_record *rec, struct errtext *et)
{
	static const struct json_limits lim = {8, 100};
	struct json *v;
	int err;

	cr_assert_eq(json_parse(&v, text, strlen(text), &lim, et), 0, "%s: %s", text, et->s);
	err = ctl_meta_get(v, rec, et);
	json_free(&v);
	return err;
}

static void same_again(const struct meta_record *rec)
{
	struct json_out *o = json_out_new();
	struct meta_record got;
	struct errtext et;
	const char *text;
	char copy[1024];
	size_t len;

	json_open_object(o);
	ctl_meta_put(o, rec);
	json_close_object(o);
	cr_assert_eq(json_out_take(o, &text, &len), 0);
	snprintf(copy, sizeof(copy), "%.*s", (int)len, text);
	json_out_free(&o);
	cr_assert_eq(parse(copy, &got, &et), 0, "%s: %s", copy, et.s);
	cr_assert_eq(memcmp(&got, rec, sizeof(got)), 0, "%s", copy);
}

Test(ctl_meta_json, there_and_back)
{
	struct meta_record rec;

	memset(&rec, 0, sizeof(rec));
	rec.kind = META_DIR;
	same_again(&rec);
	rec.has = META_HAS_MODE | META_HAS_UID | META_HAS_GID;
	rec.mode = 02750;
	rec.uid = UINT32_MAX;
	rec.gid = 7;
	same_again(&rec);
	rec.kind = META_FILE;
	rec.has |= META_HAS_MTIME | META_HAS_ATIME;
	rec.mtime = (struct timespec){.tv_sec = -1, .tv_nsec = 999999999};
	rec.atime = (struct timespec){.tv_sec = INT64_C(1) << 40};
	strcpy(rec.version, "\"etag\"-\xff");
	same_again(&rec);
	rec.has |= META_HAS_CONTENT;
	rec.content = (struct meta_content){.policy = META_POLICY_WRITE_BACK,
	    .state = META_STATE_PERSISTED,
	    .id = UINT64_MAX,
	    .size = INT64_MAX,
	    .tail_crc = UINT32_MAX,
	    .since_ns = UINT64_MAX};
	same_again(&rec);
}

Test(ctl_meta_json, what_is_none)
{
	static const struct {
		const char *text, *words;
	} rows[] = {
	    {"[]", "an object"},
	    {"{}", "\"kind\" is missing"},
	    {"{\"kind\":\"path\"}", "\"kind\" has a wrong value"},
	    {"{\"kind\":\"file\",\"sort\":1}", "\"sort\" is nothing that this build knows"},
	    {"{\"kind\":\"file\",\"mode\":-1}", "\"mode\""},
	    {"{\"kind\":\"file\",\"mode\":4294967296}", "\"mode\""},
	    {"{\"kind\":\"file\",\"mtime\":1}", "\"mtime\""},
	    {"{\"kind\":\"file\",\"mtime\":[]}", "\"mtime\""},
	    {"{\"kind\":\"file\",\"mtime\":[1,1000000000]}", "\"mtime\""},
	    {"{\"kind\":\"file\",\"mtime\":[1,2,3]}", "\"mtime\""},
	    {"{\"kind\":\"directory\",\"version\":\"x\"}", "neither version nor content"},
	    {"{\"kind\":\"file\",\"content\":{}}", "\"content\""},
	    {"{\"kind\":\"file\",\"content\":{\"policy\":\"NO_CACHE\","
	     "\"id\":\"8000000000000001\",\"size\":1}}",
		"\"content\""},
	    {"{\"kind\":\"file\",\"content\":{\"policy\":\"WRITE_BACK\","
	     "\"id\":\"0000000000000001\",\"size\":1}}",
		"\"content\""},
	    {"{\"kind\":\"file\",\"content\":{\"policy\":\"WRITE_BACK\","
	     "\"id\":\"8000000000000001\",\"size\":1,\"node\":1}}",
		"\"content\""},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct meta_record rec;
		struct errtext et = {""};

		cr_assert_eq(parse(rows[i].text, &rec, &et), -EINVAL, "%s", rows[i].text);
		cr_assert_not_null(strstr(et.s, rows[i].words), "%s: %s", rows[i].text, et.s);
	}
}
