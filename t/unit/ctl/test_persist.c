/* SPDX-License-Identifier: BSD-2-Clause */
/* async-persist, and what other commands say of files that are not in the storage. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/obj.h"
#include "fake_sessions.h"

static void init(void)
{
	fake_init();
}

static void fini(void)
{
	fake_fini();
}

TestSuite(ctl_persist, .init = init, .fini = fini, .timeout = 20);

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
	fake_line_has(2, "\"tries\":3,\"next_try_seconds\":null,\"last_error\":\"Input/output error\"");
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
	fake.d.staging = NULL;
	fake.d.meta = NULL;
}
