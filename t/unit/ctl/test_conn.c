/* SPDX-License-Identifier: BSD-2-Clause */
/* Lines, order, slow clients, and all the ways in which a connection ends. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake.h"

TestSuite(ctl_conn, .init = fake_init, .fini = fake_fini);

/* --- a table of our own: "echo" answers at once, "hold" waits for release(), "flood"
 * streams until it is blocked, n times. */

static struct ctl_cmd *held;
static bool held_cancelled;
static unsigned flood_left, flood_sent, flood_drained;

static void echo(struct ctl_cmd *cmd)
{
	struct json_out *o = ctl_result_begin(cmd);

	json_put_text(o, json_get_text(cmd->rq.args, "text", ""));
	ctl_result_send(cmd, &o);
}

static void release(void)
{
	struct ctl_cmd *cmd = held;
	struct json_out *o = ctl_result_begin(cmd);

	held = NULL;
	json_put_text(o, "released");
	ctl_result_send(cmd, &o);
}

static void release_later(struct deferred *df)
{
	(void)df;
	release();
}

static struct deferred release_df;

static void hold_cancel(struct ctl_cmd *cmd)
{
	cr_assert_eq(cmd, held);
	held_cancelled = true;
	loop_defer(fake.d.loop, &release_df, release_later);
}

static void hold(struct ctl_cmd *cmd)
{
	cr_assert_null(held);
	held = cmd;
	held_cancelled = false;
	cmd->cancel = hold_cancel;
}

static void fail(struct ctl_cmd *cmd)
{
	ctl_fail(cmd, -ENOENT, "/nope: %s", strerror(ENOENT));
}

static struct deferred flood_df;

static void flood_go(struct ctl_cmd *cmd)
{
	while (flood_left > 0 && !ctl_blocked(cmd)) {
		struct json_out *o = ctl_progress_begin(cmd);

		json_put_u64(o, flood_sent++);
		ctl_progress_send(cmd, &o);
		flood_left--;
	}
	if (flood_left == 0) {
		struct json_out *o = ctl_result_begin(cmd);

		json_put_bool(o, true);
		held = NULL;
		ctl_result_send(cmd, &o);
	}
}

static void flood_again(struct deferred *df)
{
	(void)df;
	flood_go(held);
}

static void flood_on(struct ctl_cmd *cmd)
{
	(void)cmd;
	flood_drained++;
	loop_defer(fake.d.loop, &flood_df, flood_again);
}

static void flood_cancel(struct ctl_cmd *cmd)
{
	(void)cmd;
	flood_left = 0;
	loop_defer(fake.d.loop, &flood_df, flood_again);
}

static void flood(struct ctl_cmd *cmd)
{
	held = cmd;
	flood_sent = flood_drained = 0;
	cmd->drained = flood_on;
	cmd->cancel = flood_cancel;
	flood_go(cmd);
}

static const struct ctl_arg none[] = {{0}};
static const struct ctl_arg text[] = {{"text", JSON_STRING, false}, {0}};
#define BIG_ANSWER 20000u

static void big(struct ctl_cmd *cmd)
{
	char words[BIG_ANSWER + 1];
	struct json_out *o = ctl_result_begin(cmd);

	memset(words, 'b', BIG_ANSWER);
	words[BIG_ANSWER] = '\0';
	json_put_text(o, words);
	ctl_result_send(cmd, &o);
}

static const struct ctl_command table[] = {
    {"big", big, none, ""},
    {"echo", echo, text, ""},
    {"hold", hold, none, ""},
    {"fail", fail, none, ""},
    {"flood", flood, none, ""},
    {0},
};

#define ECHO(s) "{\"command\":\"echo\",\"args\":{\"text\":\"" s "\"}}\n"

Test(ctl_conn, one_line)
{
	fake_connect(table);
	fake_say(ECHO("hello"));
	fake_line(1, "{\"result\":\"hello\"}");
}

Test(ctl_conn, byte_by_byte)
{
	const char *s = ECHO("a") "\n \r\n" ECHO("b");

	fake_connect(table);
	for (; *s != '\0'; s++) {
		char one[2] = {*s, '\0'};

		fake_say(one);
		fake_settle();
	}
	fake_line(2, "{\"result\":\"b\"}");
	fake_line(1, "{\"result\":\"a\"}");
}

Test(ctl_conn, several_in_one_write)
{
	fake_connect(table);
	fake_say(ECHO("1") ECHO("2") "{\"command\":\"fail\"}\n" ECHO("3"));
	fake_line(4, "{\"result\":\"3\"}");
	fake_line(1, "{\"result\":\"1\"}");
	fake_line(2, "{\"result\":\"2\"}");
	fake_line(3, "{\"error\":{\"code\":\"ENOENT\","
		     "\"message\":\"/nope: No such file or directory\"}}");
}

Test(ctl_conn, bad_lines_are_answered_and_the_connection_lives)
{
	fake_connect(table);
	fake_say("nonsense\n[]\n{}\n{\"command\":\"nope\"}\n{\"command\":\"echo\",\"args\":[]}\n"
		 "{\"command\":\"echo\",\"args\":{\"text\":1}}\n"
		 "{\"command\":\"echo\",\"args\":{\"else\":1}}\n"
		 "{\"command\":\"echo\",\"more\":1}\n" ECHO("alive"));
	fake_line(9, "{\"result\":\"alive\"}");
	fake_line_has(1, "EINVAL");
	fake_line_has(2, "\"command\\\"");
	fake_line_has(4, "ENOSYS");
	fake_line_has(5, "object");
	fake_line_has(6, "a string");
	fake_line_has(7, "else");
	fake_line_has(8, "more");
}

Test(ctl_conn, the_next_line_waits_for_the_command)
{
	fake_connect(table);
	fake_say("{\"command\":\"hold\"}\n" ECHO("after"));
	fake_settle();
	cr_assert_not_null(held);
	fake_read(0);
	cr_assert_eq(fake.got_len, 0);
	release();
	fake_line(2, "{\"result\":\"after\"}");
	fake_line(1, "{\"result\":\"released\"}");
}

Test(ctl_conn, a_request_of_almost_1_mib)
{
	size_t n = CTL_REQUEST_MAX - strlen(ECHO(""));
	char *s = malloc(CTL_REQUEST_MAX + 1);

	sprintf(s, "{\"command\":\"echo\",\"args\":{\"text\":\"");
	memset(s + strlen(s), 'x', n);
	strcpy(s + CTL_REQUEST_MAX - 4, "\"}}\n");
	cr_assert_eq(strlen(s), CTL_REQUEST_MAX);
	fake_connect(table);
	fake_say(s);
	fake_read(1);
	cr_assert_eq(fake.got_len, n + strlen("{\"result\":\"\"}\n"));
	free(s);
}

Test(ctl_conn, a_request_that_is_too_long)
{
	char *s = malloc(CTL_REQUEST_MAX + 1);

	memset(s, ' ', CTL_REQUEST_MAX);
	s[CTL_REQUEST_MAX] = '\0';
	fake_connect(table);
	fake_say(s);
	fake_line_has(1, "EMSGSIZE");
	fake_closed();
	free(s);
}

Test(ctl_conn, half_closed_gets_its_answer)
{
	fake_connect(table);
	fake_say("{\"command\":\"hold\"}\n" ECHO("after") "{\"unfinished");
	shutdown(fake.client, SHUT_WR);
	fake_settle();
	cr_assert_not_null(held);
	cr_assert_not(held_cancelled);
	release();
	fake_line(2, "{\"result\":\"after\"}");
	fake_closed();
}

Test(ctl_conn, closing_cancels)
{
	fake_connect(table);
	fake_say("{\"command\":\"hold\"}\n");
	fake_settle();
	close(fake.client);
	fake.client = -1;
	while (!held_cancelled || held != NULL)
		loop_turn(fake.d.loop, false);
	cr_assert(TAILQ_EMPTY(&fake.d.ctl->conns));
	cr_assert(TAILQ_EMPTY(&fake.d.ctl->cmds));
}

Test(ctl_conn, a_slow_client_stops_its_stream_only)
{
	struct ctl_conn *slow;

	fake_connect(table);
	slow = TAILQ_FIRST(&fake.d.ctl->conns);
	flood_left = 200000;
	fake_say("{\"command\":\"flood\"}\n");
	fake_settle();
	cr_assert_gt(flood_left, 0);
	cr_assert_leq(slow->out_len - slow->out_off, CTL_OUT_HIGH + 64);
	unsigned before = flood_left;

	fake_settle();
	cr_assert_eq(flood_left, before, "nothing goes on until the client reads");
	fake_read(200001);
	fake_line(1, "{\"progress\":0}");
	cr_assert_eq(flood_sent, 200000);
	cr_assert_gt(flood_drained, 1);
	cr_assert_eq(strcmp(fake.got + fake.got_len - strlen("{\"result\":true}\n"),
			 "{\"result\":true}\n"),
	    0);
}

/* Bytes that come while the stream stands still must not lose its wake-up. */
Test(ctl_conn, a_slow_client_that_talks)
{
	fake_connect(table);
	flood_left = 100000;
	fake_say("{\"command\":\"flood\"}\n");
	fake_settle();
	for (int i = 0; i < 20; i++) {
		fake_say(ECHO("x"));
		fake_settle();
	}
	fake_read(100021);
	fake_line(100021, "{\"result\":\"x\"}");
}

Test(ctl_conn, a_slow_client_that_leaves)
{
	fake_connect(table);
	flood_left = 1000000;
	fake_say("{\"command\":\"flood\"}\n");
	fake_settle();
	close(fake.client);
	fake.client = -1;
	while (!TAILQ_EMPTY(&fake.d.ctl->conns) || !TAILQ_EMPTY(&fake.d.ctl->cmds))
		loop_turn(fake.d.loop, false);
	cr_assert_eq(flood_left, 0);
}

Test(ctl_conn, pause_closes_the_idle_and_lets_the_busy_end)
{
	fake_connect(table);
	fake_say("{\"command\":\"hold\"}\n" ECHO("after"));
	fake_settle();
	ctl_pause(fake.d.ctl);
	fake_settle();
	cr_assert_not(held_cancelled);
	release();
	fake_closed();
	fake_line(1, "{\"result\":\"released\"}");
	cr_assert_null(strstr(fake.got, "after"), "that is for the successor");

	ctl_resume(fake.d.ctl);
	fake_connect(table);
	fake_settle();
	ctl_pause(fake.d.ctl);
	fake_closed();
	cr_assert_eq(fake.got_len, 0);
	ctl_resume(fake.d.ctl);
	fake_connect(table);
	fake_say(ECHO("again"));
	fake_line(1, "{\"result\":\"again\"}");
}

Test(ctl_conn, the_end_cancels_and_still_answers)
{
	fake_connect(table);
	fake_say("{\"command\":\"hold\"}\n");
	fake_settle();
	ctl_free(&fake.d.ctl);
	cr_assert(held_cancelled);
	fake_line(1, "{\"result\":\"released\"}");
}

Test(ctl_conn, many_clients)
{
	int fds[40];

	fake_connect(table);
	fake_say("{\"command\":\"hold\"}\n");
	fake_settle();
	for (int i = 0; i < 40; i++) {
		fake_connect(table);
		fds[i] = fake.client;
		fake.client = -1;
		cr_assert_eq(send(fds[i], ECHO("x"), strlen(ECHO("x")), 0), strlen(ECHO("x")));
	}
	fake_settle();
	for (int i = 0; i < 40; i++) {
		char buf[64];

		cr_assert_eq(recv(fds[i], buf, sizeof(buf), 0), strlen("{\"result\":\"x\"}\n"));
		close(fds[i]);
	}
	fake_settle();
}

/* Who asks and asks and does not listen costs a bounded amount of memory, and gets
 * every answer when he listens, also if he has closed his sending half. */
Test(ctl_conn, answers_that_nobody_takes_do_not_pile_up)
{
	static const char line[] = "{\"command\":\"big\"}\n";
	enum { LINES = 500 };
	char *all = malloc(LINES * (sizeof(line) - 1) + 1);
	struct ctl_conn *conn;

	all[0] = '\0';
	for (unsigned i = 0; i < LINES; i++)
		memcpy(all + i * (sizeof(line) - 1), line, sizeof(line));
	fake_connect(table);
	fake_say(all);
	free(all);
	cr_assert_eq(shutdown(fake.client, SHUT_WR), 0);
	fake_settle();
	conn = TAILQ_FIRST(&fake.d.ctl->conns);
	cr_assert_not_null(conn);
	cr_assert_leq(conn->out_len - conn->out_off, CTL_OUT_HIGH + 2 * BIG_ANSWER);
	fake_read(LINES);
	fake_closed();
	cr_assert_eq(fake.got_len, LINES * (strlen("{\"result\":\"\"}\n") + BIG_ANSWER));
}

/* A beginning of a line must not keep the loop turning. */
Test(ctl_conn, half_a_line_waits)
{
	fake_connect(table);
	fake_say(ECHO("1") "{\"comm");
	fake_line(1, "{\"result\":\"1\"}");
	fake_settle();
	fake_say("and\":\"echo\"}\n\n\n\n");
	fake_line(2, "{\"result\":\"\"}");
	fake_settle();
}
