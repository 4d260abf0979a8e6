/* SPDX-License-Identifier: BSD-2-Clause */
/* async-persist, and what other commands say of files that are not in the storage. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/obj.h"
#include "base/units.h"
#include "fake_records.h"
#include "fake_sessions.h"
#include "ops/persist.h"

static void init(void)
{
	fake_init();
}

static void fini(void)
{
	fake_fini();
}

TestSuite(ctl_persist, .init = init, .fini = fini);

Test(ctl_persist, list)
{
	fake_sessions(fake.d.loop, 3);
	fake_session[0].state = SESSION_OPEN;
	fake_session[0].fresh = true;
	fake_session[0].error = 0;
	fake_session[2].state = SESSION_ORPHAN;
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist list\"}\n");
	fake_line_has(1, "\"path\":\"/unsaved/2\",\"size\":1000,\"sent_bytes\":10,\"state\":\"WRITING\"");
	fake_line_has(2, "\"path\":\"/unsaved/3\"");
	fake_line_has(2, "\"state\":\"FAILED\"");
	fake_line_has(2, "\"tries\":3,\"next_try_seconds\":null,\"last_error\":\"the storage cannot "
			 "be reached, or answers with an error, or what was written "
			 "cannot be read here: the log says more (503 SlowDown)\"");
	fake_line(3, "{\"result\":{\"count\":2}}");
}

Test(ctl_persist, list_goes_on_when_the_client_has_taken_what_there_was)
{
	fake_sessions(fake.d.loop, FAKE_SESSIONS);
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist list\"}\n");
	fake_line(FAKE_SESSIONS + 1, "{\"result\":{\"count\":3000}}");
}

Test(ctl_persist, the_client_goes_in_mid_list)
{
	fake_sessions(fake.d.loop, FAKE_SESSIONS);
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist list\"}\n");
	fake_read(1);
	fake_connect(NULL);
	fake_settle();
}

Test(ctl_persist, one)
{
	fake_sessions(fake.d.loop, 1);
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist stat\",\"args\":{\"path\":\"/unsaved//2/\"}}\n"
		 "{\"command\":\"async-persist stat\",\"args\":{\"path\":\"/other\"}}\n");
	fake_line_has(1, "\"path\":\"/unsaved/2\"");
	fake_line_has(2, "ENOENT");
	fake_line_has(2, "async-persist list");
}

Test(ctl_persist, retry)
{
	fake_sessions(fake.d.loop, 1);
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist retry\",\"args\":{\"path\":\"/unsaved/2\"}}\n");
	fake_line(1, "{\"result\":{\"path\":\"/unsaved/2\"}}");
	fake_upload_err = -EIO;
	fake_say("{\"command\":\"async-persist retry\",\"args\":{\"path\":\"/unsaved/2\"}}\n");
	fake_line_has(2, "EIO");
}

Test(ctl_persist, only_what_has_failed_is_dropped)
{
	fake_sessions(fake.d.loop, 2);
	fake_session[0].state = SESSION_OPEN;
	fake_session[0].fresh = true;
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist drop\",\"args\":{\"path\":\"/unsaved/2\"}}\n"
		 "{\"command\":\"async-persist drop\",\"args\":{\"path\":\"/unsaved/3\"}}\n");
	fake_line_has(1, "EBUSY");
	fake_line_has(1, "WRITING");
	fake_line(2, "{\"result\":{\"path\":\"/unsaved/3\"}}");
	cr_assert_neq(fake_session[0].node, 0);
	cr_assert_eq(fake_session[1].node, 0);
}

Test(ctl_persist, drain)
{
	fake_sessions(fake.d.loop, 2);
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist drain\"}\n");
	fake_line_has(1, "2 files are not in the storage, such as /unsaved/2");
	fake_session[0].node = fake_session[1].node = 0;
	fake_say("{\"command\":\"async-persist drain\",\"args\":{\"timeout\":\"1s\"}}\n"
		 "{\"command\":\"async-persist drain\",\"args\":{\"timeout\":\"soon\"}}\n");
	fake_line(2, "{\"result\":{\"files\":0,\"failed\":0,\"bytes\":0}}");
	fake_line_has(3, "not a duration");
	/* What is still being written is waited for, but not for ever. */
	fake_session[0].node = 2;
	fake_session[0].state = SESSION_CLOSING;
	fake_say("{\"command\":\"async-persist drain\",\"args\":{\"timeout\":\"1ms\"}}\n");
	fake_line_has(5, "EBUSY");
}

/* What the local disk did not take is no failure as long as it is tried again; a name that
 * another node was first to take is never asked for again. */
Test(ctl_persist, drain_waits_for_what_is_tried_again)
{
	fake_sessions(fake.d.loop, 3);
	fake_session[2].policy = META_POLICY_WRITE_BACK;
	fake_session[2].error = -EEXIST;
	fake_session[0].policy = META_POLICY_WRITE_BACK;
	fake_session[0].unsafe = 2;
	fake_session[0].next_try_ns = loop_now(fake.d.loop) + 9000 * NS_PER_S;
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist list\"}\n");
	fake_line_has(1, "\"state\":\"NOT_PERSISTED\"");
	fake_line_has(1, "\"tries\":5,\"next_try_seconds\":89");
	fake_line_has(2, "\"state\":\"FAILED\"");
	fake_line_has(3, "\"state\":\"FAILED\"");
	fake_line_has(3, "\"next_try_seconds\":null");
	fake_say("{\"command\":\"async-persist drain\"}\n");
	fake_line(5, "{\"progress\":{\"files\":3,\"failed\":2,\"bytes\":3000}}");
	fake_session[0].node = 0;
	fake_line_has(6, "2 files are not in the storage, such as /unsaved/3; they have failed");
}

Test(ctl_persist, umount_is_refused)
{
	fake_sessions(fake.d.loop, 1);
	fake_connect(NULL);
	fake_say("{\"command\":\"umount\"}\n");
	fake_line_has(1, "1 files are not in the storage yet, such as /unsaved/2");
	cr_assert_eq(fake.umounts, 0);
	fake_say("{\"command\":\"umount\",\"args\":{\"force\":true}}\n");
	fake_line_has(2, "result");
	cr_assert_eq(fake.exits, 1);
}

Test(ctl_persist, status)
{
	fake_sessions(fake.d.loop, 2);
	fake.d.staging = (struct staging *)(void *)&fake;
	fake.d.meta = (struct meta *)(void *)&fake;
	fake_connect(NULL);
	fake_say("{\"command\":\"status\"}\n");
	fake_line_has(1, "\"persist_queue\":2,\"writing\":{\"dir\":\"/nvme/staged\"");
	fake_line_has(1, "\"files_failed\":2");
	fake_line_has(1, "\"failed_example\":\"/unsaved/2\"");
	fake_line_has(1, "\"metadata\":{\"backend\":\"embedded\",\"dir\":\"/nvme/meta\"");
	fake_line_has(1, "\"persist\":{\"waiting\":7,\"waiting_bytes\":700,\"running\":1,\"failed\":2,"
			 "\"transient\":3,\"persisted\":0,\"oldest_seconds\":60,"
			 "\"outside\":0,\"pinned_bytes\":1000,\"pinned_limit_bytes\":3000,"
			 "\"last_error\":\"/x: Input/output error\"}");
	cr_assert_eq(config_set(fake.d.cfg, "meta.backend", "fdb", &(struct errtext){0}), 0);
	fake_say("{\"command\":\"status\"}\n");
	fake_line_has(2, "\"metadata\":{\"backend\":\"fdb\"");
	fake.d.staging = NULL;
	fake.d.meta = NULL;
}

/* --- Files under a policy */

static void say_path(const char *command, const char *path)
{
	char text[200];

	snprintf(text, sizeof(text), "{\"command\":\"%s\",\"args\":{\"path\":\"%s\"}}\n", command,
	    path);
	fake_say(text);
}

Test(ctl_persist, list_has_the_queue_behind_the_sessions)
{
	fake_sessions(fake.d.loop, 1);
	fake_records("sub/", 3);
	fake_record[1].rec.content.next_ns = loop_wall(fake.d.loop) + 90 * UINT64_C(1000000000);
	fake_record[2].rec.content.state = META_STATE_FAILED;
	fake_record[2].rec.content.error = -EEXIST;
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist list\"}\n");
	fake_line_has(1, "\"path\":\"/unsaved/2\"");
	fake_line_has(2, "\"path\":\"/sub/file-000000.new\",\"size\":300,\"sent_bytes\":0,"
			 "\"state\":\"PERSISTING\",\"worker\":\"local\",\"age_seconds\":5,"
			 "\"tries\":2,\"next_try_seconds\":0,"
			 "\"last_error\":\"the storage cannot be reached, or answers with an error, or what was written "
			 "cannot be read here: the log says more (503 SlowDown)\","
			 "\"policy\":\"WRITE_BACK\"");
	fake_line_has(3, "\"state\":\"NOT_PERSISTED\"");
	fake_line_has(3, "\"next_try_seconds\":90");
	fake_line_has(4, "\"state\":\"FAILED\"");
	fake_line_has(4, "\"next_try_seconds\":null,\"last_error\":\"another client");
	fake_line(5, "{\"result\":{\"count\":4}}");
	fake_say("{\"command\":\"async-persist list\",\"args\":{\"worker\":\"other\"}}\n");
	fake_line(6, "{\"result\":{\"count\":0}}");
}

Test(ctl_persist, the_queue_goes_out_page_by_page)
{
	fake_records("", FAKE_RECORDS);
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist list\"}\n");
	fake_read(1);
	cr_assert_lt(fake_pages, 6, "all of it was read before the client took any");
	fake_line(FAKE_RECORDS + 1, "{\"result\":{\"count\":3000}}");
	cr_assert_eq(fake_pages, 6);
}

/* What has failed meanwhile is behind its place again: listed once all the same. */
Test(ctl_persist, the_queue_changes_in_mid_list)
{
	uint64_t now = loop_wall(fake.d.loop);

	fake_sessions(fake.d.loop, 1);
	fake_session[0].policy = META_POLICY_WRITE_BACK;
	fake_records("", FAKE_RECORDS);
	for (unsigned i = 0; i < FAKE_RECORDS; i++)
		fake_record[i].rec.content.next_ns = now + i;
	/* The last ones are the session's, one that was among the first, and one that was not
	 * met yet. */
	fake_session[0].content.id = fake_record[FAKE_RECORDS - 1].rec.content.id;
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist list\"}\n");
	fake_read(2);
	cr_assert_not_null(fake_watch);
	fake_watch->moves(fake_watch, fake_record[FAKE_RECORDS - 2].rec.content.id, now);
	fake_watch->moves(fake_watch, fake_record[FAKE_RECORDS - 3].rec.content.id,
	    now + FAKE_RECORDS - 4);
	fake_line_has(FAKE_RECORDS - 1, "file-002997.new");
	fake_line(FAKE_RECORDS, "{\"result\":{\"count\":2999}}");
	cr_assert_null(fake_watch);
}

Test(ctl_persist, the_client_goes_in_mid_queue)
{
	fake_records("", FAKE_RECORDS);
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist list\"}\n");
	fake_read(1);
	fake_connect(NULL);
	fake_settle();
}

Test(ctl_persist, the_queue_cannot_be_read)
{
	fake_records("", 1);
	fake_queue_err = -EIO;
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist list\"}\n{\"command\":\"umount\"}\n"
		 "{\"command\":\"async-persist drain\",\"args\":{\"timeout\":\"1ms\"}}\n");
	fake_line_has(1, "the metadata store");
	fake_line_has(2, "--force unmounts all the same");
	cr_assert_eq(fake.umounts, 0);
	fake_line_has(4, "is not known");
}

Test(ctl_persist, one_under_a_policy)
{
	fake_records("sub/", 2);
	fake_record[1].rec.content.state = META_STATE_PERSISTED;
	fake_connect(NULL);
	say_path("async-persist stat", "/sub/file-000000.new");
	fake_line_has(1, "\"state\":\"PERSISTING\"");
	say_path("async-persist stat", "/sub/file-000001.new");
	fake_line_has(2, "ENOENT");
	fake_sessions(fake.d.loop, 1);
}

Test(ctl_persist, retry_and_drop_under_a_policy)
{
	fake_records("sub/", 1);
	fake_connect(NULL);
	say_path("async-persist retry", "/sub/file-000000.new");
	fake_line(1, "{\"result\":{\"path\":\"/sub/file-000000.new\"}}");
	fake_act_err = -EEXIST;
	say_path("async-persist retry", "/sub/file-000000.new");
	fake_line_has(2, "another client has made an object of that name");
	fake_act_err = -EBUSY;
	say_path("async-persist drop", "/sub/file-000000.new");
	fake_line_has(3, "has not FAILED");
	fake_act_err = -EINVAL;
	say_path("async-persist drop", "/sub/../file");
	fake_line_has(4, "/sub/../file: Invalid argument");
	fake_act_err = -EBUSY;
	cr_assert_eq(fake_acts, 3);
	/* The client goes while it is tried. */
	say_path("async-persist retry", "/sub/file-000000.new");
	while (fake_acts < 4)
		loop_turn(fake.d.loop, false);
	fake_connect(NULL);
	fake_settle();
}

Test(ctl_persist, umount_names_what_is_left)
{
	fake_records("sub/", 9);
	fake_connect(NULL);
	fake_say("{\"command\":\"umount\"}\n");
	fake_line_has(1, "9 files are not in the storage yet, such as /sub/file-000000.new, "
			 "/sub/file-000001.new, /sub/file-000002.new: --drain");
	fake_line_has(1, "--force leaves them to the next mount");
	cr_assert_eq(fake.umounts, 0);
	fake_sessions(fake.d.loop, 1);
	fake_say("{\"command\":\"umount\"}\n");
	fake_line_has(2, "--force leaves them to the next mount, and of those that no policy "
			 "governs what was written in ");
	/* TRANSIENT ones are never stored: they are not waited for. */
	fake_sessions(fake.d.loop, 0);
	for (unsigned i = 0; i < 9; i++)
		fake_record[i].rec.content.state =
		    i == 0 ? META_STATE_TRANSIENT : META_STATE_PERSISTED;
	fake_say("{\"command\":\"async-persist drain\"}\n{\"command\":\"umount\"}\n");
	fake_line(3, "{\"result\":{\"files\":0,\"failed\":0,\"bytes\":0}}");
	fake_line_has(4, "/mnt/test");
	cr_assert_eq(fake.umounts, 1);
}

Test(ctl_persist, drain_waits_for_the_queue_but_not_for_what_has_failed)
{
	fake_records("sub/", 2);
	fake_record[1].rec.content.state = META_STATE_FAILED;
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist drain\"}\n");
	fake_line(1, "{\"progress\":{\"files\":2,\"failed\":1,\"bytes\":600}}");
	fake_record[0].rec.content.state = META_STATE_PERSISTED;
	fake_line_has(2, "1 files are not in the storage, such as /sub/file-000001.new; they have "
			 "failed");
}

/* Files that the storage has not got stand among those that it has, in the keys' order. */
Test(ctl_persist, ls_merges_both)
{
	fake.nfiles = 8;
	fake_records("sub/deep/", 8);
	fake_record[2].rec.content.state = META_STATE_TRANSIENT;
	fake_record[3].rec.content.state = META_STATE_PERSISTED; /* and gone from the storage */
	strcpy(fake_record[4].path, "sub/deep/file-000004");	 /* both have it */
	fake_connect(NULL);
	say_path("fs ls", "/sub/deep");
	fake_line_has(1, "\"path\":\"/sub/deep/file-000000\"");
	fake_line_has(2, "\"path\":\"/sub/deep/file-000000.new\",\"kind\":\"file\",\"size\":300");
	fake_line_has(2, "\"persistence\":\"PERSISTING\",\"cached_bytes\":300,\"cached_percent\":100");
	fake_line_has(6, "\"path\":\"/sub/deep/file-000002.new\"");
	fake_line_has(6, "TRANSIENT");
	fake_line_has(7, "\"path\":\"/sub/deep/file-000003\"");
	fake_line_has(8, "\"path\":\"/sub/deep/file-000004\"");
	fake_line_has(8, "NOT_PERSISTED");
	fake_line_has(9, "\"path\":\"/sub/deep/file-000005\"");
	fake_line_has(14, "\"path\":\"/sub/deep/file-000007.new\"");
	fake_line(15, "{\"result\":{\"count\":14}}");
}

Test(ctl_persist, ls_and_stat_of_one_need_no_storage)
{
	fake_records("sub/", 1);
	fake_connect(NULL);
	say_path("fs ls", "/sub/file-000000.new");
	fake_line_has(1, "\"persistence\":\"PERSISTING\"");
	say_path("fs stat", "/sub/file-000000.new");
	fake_line_has(3, "\"size\":300");
	fake_line_has(3, "\"persistence\":\"PERSISTING\"");
	fake.d.staging = (struct staging *)(void *)&fake;
	fake.d.cfg->write_cache_enabled = true;
	say_path("fs explain", "/sub/file-000000.new");
	fake_line_has(4, "\"write_cache\":true,\"rule\":\"/sub/**\",\"rule_policy\":\"WRITE_BACK\","
			 "\"policy\":\"WRITE_BACK\",\"retries\":2");
	fake_line_has(4, "\"tries\":2,\"next_try_seconds\":0,"
			 "\"last_error\":\"the storage cannot be reached, or answers with an error, or what was written "
			 "cannot be read here: the log says more (503 SlowDown)\"");
	say_path("fs explain", "/file");
	fake_line_has(5, "\"rule\":null,\"rule_policy\":\"WRITE_THROUGH\"");
	fake.d.staging = NULL;
}

Test(ctl_persist, what_was_set_aside_is_counted_anew)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist kept\"}\n");
	fake_line_has(1, "EROFS");
	fake.d.staging = (struct staging *)(void *)&fake;
	fake.d.staging_dir = (char *)(uintptr_t)"/nvme";
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist kept\"}\n");
	fake_line(1, "{\"result\":{\"dir\":\"/nvme/kept\",\"count\":5}}");
	cr_assert_eq(fake_aside, 5);
	/* Whoever asked has gone: nothing is left of it. */
	fake_connect(NULL);
	fake_say("{\"command\":\"async-persist kept\"}\n");
	fake_connect(NULL);
	fake_settle();
	fake.d.staging = NULL;
	fake.d.staging_dir = NULL;
}
