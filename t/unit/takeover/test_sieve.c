/* SPDX-License-Identifier: BSD-2-Clause */
/* The sieve on a socket pair in the kernel's place: a datagram is a request. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/units.h"
#include "takeover/held.h"
#include "takeover/sieve.h"
#include "../../lib/test_clock.h"

static struct rig {
	struct test_clock clk;
	struct loop *loop;
	struct epoch epoch;
	struct sieve sv;
	int kernel, fd;
	unsigned interrupts;
} rig;

static void setup(void)
{
	int sv[2];

	test_clock_init(&rig.clk);
	cr_assert_eq(loop_new(&rig.loop, &rig.clk.clk), 0);
	cr_assert_eq(epoch_create(&rig.epoch), 0);
	cr_assert_eq(epoch_raise(&rig.epoch, 0), 0);
	cr_assert_eq(
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv), 0);
	rig.kernel = sv[0];
	rig.fd = sv[1];
}

static void teardown(void)
{
	close(rig.kernel);
	close(rig.fd);
	epoch_close(&rig.epoch);
	loop_free(&rig.loop);
}

TestSuite(sieve, .init = setup, .fini = teardown);

static void interrupted(void *arg, const void *raw, size_t len)
{
	(void)raw;
	(void)len;
	((struct rig *)arg)->interrupts++;
}

static void start(uint64_t hold_ns)
{
	sieve_start(&rig.sv, rig.loop, rig.fd, -1, &rig.epoch, hold_ns, interrupted, &rig);
}

static void ask_with(uint64_t unique, uint32_t opcode, const void *body, size_t len)
{
	unsigned char raw[512];
	struct fuse_in_header in = {.opcode = opcode, .unique = unique};

	in.len = (uint32_t)(sizeof(in) + len);
	memcpy(raw, &in, sizeof(in));
	if (len > 0)
		memcpy(raw + sizeof(in), body, len);
	cr_assert_eq(send(rig.kernel, raw, in.len, 0), (ssize_t)in.len);
}

static void ask(uint64_t unique, uint32_t opcode)
{
	static const unsigned char body[64];

	ask_with(unique, opcode, body, sizeof(body));
}

/* What was answered next: its number, or 0. */
static uint64_t answered(void)
{
	struct fuse_out_header out;

	if (recv(rig.kernel, &out, sizeof(out), 0) != (ssize_t)sizeof(out))
		return 0;
	cr_assert_eq(out.error, -EAGAIN);
	cr_assert_eq(out.len, sizeof(out));
	return out.unique;
}

static void held_is(struct held_list *l, const uint64_t *unique, unsigned n)
{
	struct held_req *r = STAILQ_FIRST(l);
	struct fuse_in_header in;
	unsigned i;

	for (i = 0; i < n; i++, r = STAILQ_NEXT(r, link)) {
		cr_assert_not_null(r, "only %u of %u held", i, n);
		memcpy(&in, r->raw, sizeof(in));
		cr_assert_eq(in.unique, unique[i], "%u: %llu", i, (unsigned long long)in.unique);
		cr_assert_eq(in.len, r->len);
	}
	cr_assert_null(r, "more than %u held", n);
}

Test(sieve, nothing_is_read_before_the_hold_is_over)
{
	struct held_list got = STAILQ_HEAD_INITIALIZER(got);
	char byte;

	start(2 * NS_PER_S);
	ask(1, FUSE_MKDIR);
	test_loop_pass(rig.loop, &rig.clk, NS_PER_S);
	cr_assert_eq(answered(), 0);
	cr_assert_eq(sieve_stop(&rig.sv, &got), 0);
	held_is(&got, NULL, 0);
	cr_assert_geq(recv(rig.fd, &byte, 1, 0), 0, "it waits where it was");
}

Test(sieve, then_changes_fail_and_the_rest_is_held_in_order)
{
	static const uint64_t kept[] = {1, 3, 5};
	struct held_list got = STAILQ_HEAD_INITIALIZER(got);

	start(2 * NS_PER_S);
	ask(1, FUSE_LOOKUP);
	ask(2, FUSE_MKDIR);
	ask(3, FUSE_READ);
	test_loop_pass(rig.loop, &rig.clk, 2 * NS_PER_S);
	cr_assert_eq(answered(), 2);
	ask(4, FUSE_READDIR);
	ask(5, FUSE_RELEASE);
	test_loop_settle(rig.loop);
	cr_assert_eq(answered(), 4);
	cr_assert_eq(answered(), 0);
	cr_assert_eq(sieve_stop(&rig.sv, &got), 2);
	held_is(&got, kept, 3);
	held_free(&got);
}

Test(sieve, with_no_hold_they_fail_at_once)
{
	struct held_list got = STAILQ_HEAD_INITIALIZER(got);

	start(0);
	ask(1, FUSE_UNLINK);
	test_loop_settle(rig.loop);
	cr_assert_eq(answered(), 1);
	cr_assert_eq(sieve_stop(&rig.sv, &got), 1);
	cr_assert_eq(sieve_stop(&rig.sv, &got), 0, "once is enough");
	cr_assert(STAILQ_EMPTY(&got));
}

Test(sieve, interrupts_go_to_who_may_run_what_they_are_about)
{
	struct held_list got = STAILQ_HEAD_INITIALIZER(got);

	start(0);
	ask(1, FUSE_INTERRUPT);
	test_loop_settle(rig.loop);
	cr_assert_eq(rig.interrupts, 1);
	cr_assert_eq(sieve_stop(&rig.sv, &got), 0);
	cr_assert(STAILQ_EMPTY(&got));
}

static bool refuses(uint32_t opcode, uint64_t unique, const void *body, size_t len)
{
	unsigned char raw[512];
	struct fuse_in_header in = {.opcode = opcode, .unique = unique};

	in.len = (uint32_t)(sizeof(in) + len);
	memcpy(raw, &in, sizeof(in));
	if (len > 0)
		memcpy(raw + sizeof(in), body, len);
	return sieve_refuses(raw, in.len);
}

Test(sieve, each_kind_of_request)
{
	static const uint32_t fails[] = {FUSE_SETATTR, FUSE_SYMLINK, FUSE_MKNOD, FUSE_MKDIR,
	    FUSE_UNLINK, FUSE_RMDIR, FUSE_RENAME, FUSE_RENAME2, FUSE_LINK, FUSE_CREATE,
	    FUSE_TMPFILE, FUSE_SETXATTR, FUSE_REMOVEXATTR, FUSE_FALLOCATE, FUSE_COPY_FILE_RANGE,
	    FUSE_OPENDIR, FUSE_READDIR, FUSE_READDIRPLUS, FUSE_WRITE};
	static const uint32_t waits[] = {FUSE_LOOKUP, FUSE_FORGET, FUSE_BATCH_FORGET, FUSE_GETATTR,
	    FUSE_READLINK, FUSE_OPEN, FUSE_READ, FUSE_STATFS, FUSE_RELEASE, FUSE_FSYNC,
	    FUSE_GETXATTR, FUSE_LISTXATTR, FUSE_FLUSH, FUSE_RELEASEDIR, FUSE_FSYNCDIR, FUSE_GETLK,
	    FUSE_SETLK, FUSE_SETLKW, FUSE_ACCESS, FUSE_DESTROY, FUSE_IOCTL, FUSE_POLL, FUSE_LSEEK};
	static const unsigned char zero[128];
	unsigned i;

	for (i = 0; i < sizeof(fails) / sizeof(fails[0]); i++) {
		cr_assert(refuses(fails[i], 1, zero, sizeof(zero)), "%u", fails[i]);
		cr_assert_not(refuses(fails[i], UINT64_C(1) << 63 | 1, zero, sizeof(zero)),
		    "%u may have begun in another daemon", fails[i]);
	}
	for (i = 0; i < sizeof(waits) / sizeof(waits[0]); i++)
		cr_assert_not(refuses(waits[i], 1, zero, sizeof(zero)), "%u", waits[i]);
}

Test(sieve, an_open_that_truncates_is_a_change_and_written_back_pages_are_none)
{
	struct fuse_open_in open_in = {.flags = O_WRONLY | O_TRUNC};
	struct fuse_write_in write_in = {.write_flags = FUSE_WRITE_CACHE};

	cr_assert(refuses(FUSE_OPEN, 1, &open_in, sizeof(open_in)));
	open_in.flags = O_WRONLY;
	cr_assert_not(refuses(FUSE_OPEN, 1, &open_in, sizeof(open_in)));
	cr_assert_not(refuses(FUSE_OPEN, 1, &open_in, 4), "cut off");
	cr_assert_not(refuses(FUSE_WRITE, 1, &write_in, sizeof(write_in)));
}

Test(sieve, who_has_lost_the_right_reads_nothing)
{
	struct held_list got = STAILQ_HEAD_INITIALIZER(got);
	char byte;

	start(0);
	rig.epoch.mine = 0;
	ask(1, FUSE_MKDIR);
	test_loop_settle(rig.loop);
	cr_assert_eq(answered(), 0);
	cr_assert_eq(sieve_stop(&rig.sv, &got), 0);
	cr_assert_geq(recv(rig.fd, &byte, 1, 0), 0, "it waits where it was");
}

Test(sieve, no_descriptor_and_a_mount_that_is_gone)
{
	struct held_list got = STAILQ_HEAD_INITIALIZER(got);

	sieve_start(&rig.sv, rig.loop, -1, -1, &rig.epoch, 0, interrupted, &rig);
	test_loop_settle(rig.loop);
	cr_assert_eq(sieve_stop(&rig.sv, &got), 0);
	memset(&rig.sv, 0, sizeof(rig.sv));
	start(0);
	shutdown(rig.kernel, SHUT_RDWR);
	test_loop_settle(rig.loop);
	cr_assert_eq(sieve_stop(&rig.sv, &got), 0);
	cr_assert(STAILQ_EMPTY(&got));
}
