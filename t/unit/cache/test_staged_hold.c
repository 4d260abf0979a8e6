/* SPDX-License-Identifier: BSD-2-Clause */
/* Small durable files, whose bytes are in a row until they must have files. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../lib/nth_fault.h"
#include "base/checksum.h"
#include "base/fault.h"
#include "staged_rig.h"

#define ID (STAGED_DURABLE_BIT | 0x4321)
#define SMALL (16 * 1024)
#define MOST (64 * 1024)

static struct staged_rig s;
static struct staged *sf;
static unsigned char data[MOST], model[MOST], mem[MOST];

static void setup(void)
{
	srig_init(&s);
	s.g.cfg->write_cache_inline = SMALL;
	for (size_t i = 0; i < MOST; i++)
		data[i] = (unsigned char)(1 + i % 251);
	memset(model, 0, sizeof(model));
	sf = srig_create(&s, ID, NULL);
	staged_hold(sf);
}

static void teardown(void)
{
	cr_assert_eq(fault_init("", &(struct errtext){0}), 0);
	if (sf != NULL)
		staged_close(&sf);
	srig_fini(&s);
}

TestSuite(staged_hold, .init = setup, .fini = teardown);

static uint64_t rows(void)
{
	return statedb_count(s.db, STATEDB_BYTES);
}

static int write_at(uint64_t off, uint64_t len)
{
	int err = srig_do(&s, sf, staged_write, off, len, data);

	if (err == 0)
		memcpy(model + off, data, len);
	return err;
}

static void reopen(void)
{
	staged_close(&sf);
	srig_restart(&s);
	sf = srig_open(&s, ID, NULL);
}

static void is_model(void)
{
	int err = srig_check(&s, sf, 0, model, staged_size(sf));

	cr_assert_eq(err, 0, "error %d", err);
}

static int upload_read(void)
{
	struct staged_io io;
	int err = srig_pread(&s, sf, mem, MOST, &io);

	if (err != 0)
		return err;
	cr_assert_eq(io.got, staged_size(sf));
	cr_assert_eq(memcmp(mem, model, io.got), 0);
	cr_assert_eq(io.crc, checksum_crc32c(model, io.got));
	return 0;
}

Test(staged_hold, few_bytes_have_a_row_and_no_file)
{
	cr_assert_eq(write_at(0, 5000), 0);
	cr_assert_eq(write_at(5000, 5240), 0);
	cr_assert_eq(write_at(100, 200), 0);
	cr_assert_eq(staged_size(sf), 10240);
	is_model();
	reopen();
	cr_assert_eq(staged_size(sf), 10240);
	is_model();
	cr_assert(!srig_file_there(&s, ID) && !srig_sums_there(&s, ID));
	cr_assert_eq(rows(), 1);
	cr_assert_eq(write_at(10240, 1000), 0);
	is_model();
	cr_assert_eq(s.st->held, 11240);
	cr_assert_eq(staged_park(&sf), 0);
	cr_assert_eq(rows(), 0);
	cr_assert_eq(s.st->held, 0);
	rig_settle(&s.g);
	cr_assert(!srig_file_there(&s, ID) && !srig_sums_there(&s, ID));
}

Test(staged_hold, deleted_it_leaves_nothing)
{
	cr_assert_eq(write_at(0, 5000), 0);
	cr_assert_eq(staged_delete(&sf), 0);
	rig_settle(&s.g);
	cr_assert_eq(rows(), 0);
	cr_assert_eq(statedb_count(s.db, STATEDB_STAGED), 0);
	cr_assert_eq(s.st->held, 0);
}

Test(staged_hold, more_bytes_have_files_and_no_row)
{
	cr_assert_eq(write_at(0, SMALL), 0);
	cr_assert(!srig_file_there(&s, ID));
	cr_assert_eq(write_at(SMALL, 1), 0);
	cr_assert(srig_file_there(&s, ID) && srig_sums_there(&s, ID));
	cr_assert_eq(rows(), 0);
	cr_assert_eq(s.st->held, 0);
	is_model();
	cr_assert_eq(write_at(10, 20), 0);
	reopen();
	is_model();
	cr_assert_eq(upload_read(), 0);
	/* Nor does it go back. */
	cr_assert_eq(srig_do(&s, sf, staged_truncate, 0, 0, NULL), 0);
	cr_assert_eq(write_at(0, 10), 0);
	cr_assert_eq(rows(), 0);
}

Test(staged_hold, what_has_a_hole_has_files)
{
	cr_assert_eq(write_at(0, 10), 0);
	cr_assert_eq(write_at(9000, 10), 0);
	cr_assert(srig_file_there(&s, ID));
	cr_assert_eq(rows(), 0);
	is_model();
	reopen();
	is_model();
}

Test(staged_hold, what_was_cut_off_does_not_return)
{
	cr_assert_eq(write_at(0, 9000), 0);
	cr_assert_eq(srig_do(&s, sf, staged_truncate, 100, 0, NULL), 0);
	cr_assert_eq(srig_do(&s, sf, staged_truncate, 12000, 0, NULL), 0);
	memset(model + 100, 0, sizeof(model) - 100);
	is_model();
	cr_assert_eq(rows(), 1);
	reopen();
	cr_assert_eq(staged_size(sf), 12000);
	is_model();
	cr_assert_eq(upload_read(), 0);
	cr_assert(srig_file_there(&s, ID));
	cr_assert_eq(rows(), 0);
	reopen();
	is_model();
	cr_assert_eq(srig_do(&s, sf, staged_truncate, 0, 0, NULL), 0);
	cr_assert_eq(staged_size(sf), 0);
}

Test(staged_hold, cut_to_nothing_it_begins_again)
{
	cr_assert_eq(write_at(0, 9000), 0);
	cr_assert_eq(srig_do(&s, sf, staged_truncate, 0, 0, NULL), 0);
	memset(model, 0, sizeof(model));
	reopen();
	cr_assert_eq(staged_size(sf), 0);
	cr_assert_eq(upload_read(), 0);
	cr_assert_eq(write_at(0, 30), 0);
	reopen();
	is_model();
	cr_assert_eq(srig_zero(&s, sf, 10, 10, false), 0);
	memset(model + 10, 0, 10);
	is_model();
	reopen();
	is_model();
}

Test(staged_hold, a_sync_makes_files)
{
	struct staged_durable d;

	cr_assert_eq(write_at(0, 5000), 0);
	cr_assert_eq(srig_do(&s, sf, staged_sync, 0, 0, NULL), 0);
	staged_durable(sf, &d);
	cr_assert_eq(d.size, 5000);
	cr_assert(srig_file_there(&s, ID) && srig_sums_there(&s, ID));
	cr_assert_eq(rows(), 0);
	/* As after a power loss. */
	cr_assert_eq(staged_park(&sf), 0);
	srig_commit(&s);
	cr_assert_eq(staged_restore(s.st, ID, &d, NULL, 0, false, &sf), 0);
	cr_assert_eq(upload_read(), 0);
}

Test(staged_hold, the_files_begin_anew_after_a_death_before_the_rows)
{
	cr_assert_eq(write_at(0, 5000), 0);
	srig_commit(&s);
	/* The pool has made them, and what it did was not answered. */
	cr_assert_eq(fault_init("staged.write.row=errno:5", &(struct errtext){0}), 0);
	cr_assert_eq(srig_do(&s, sf, staged_write, 20000, 5000, data), -EIO);
	cr_assert(srig_file_there(&s, ID));
	cr_assert_eq(fault_init("", &(struct errtext){0}), 0);
	is_model();
	reopen();
	cr_assert_eq(staged_size(sf), 5000);
	is_model();
	cr_assert_eq(upload_read(), 0);
}

Test(staged_hold, a_write_that_fails_leaves_what_was)
{
	cr_assert_eq(write_at(0, 5000), 0);
	cr_assert_eq(fault_init("staged.write.row=errno:28", &(struct errtext){0}), 0);
	cr_assert_eq(srig_do(&s, sf, staged_write, 5000, 100, data), -ENOSPC);
	cr_assert_eq(fault_init("", &(struct errtext){0}), 0);
	cr_assert_eq(staged_size(sf), 5000);
	is_model();
	/* Also for who finds the rows as they are. */
	reopen();
	cr_assert_eq(staged_size(sf), 5000);
	cr_assert_eq(srig_do(&s, sf, staged_truncate, 6000, 0, NULL), 0);
	is_model();
	cr_assert_eq(upload_read(), 0);
}

Test(staged_hold, without_room_for_files_it_is_read_and_uploaded)
{
	int fd;

	/* Where the directory is to be made there is a file. */
	cr_assert_not_null(strstr(s.dir, "/a/staged"));
	snprintf((char *)mem, sizeof(mem), "%s/a", s.state);
	fd = open((char *)mem, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	close(fd);
	cr_assert_eq(write_at(0, 5000), 0);
	cr_assert_eq(upload_read(), 0);
	is_model();
	cr_assert_neq(write_at(5000, SMALL), 0);
	cr_assert_eq(staged_size(sf), 5000);
	is_model();
	cr_assert_eq(rows(), 1);
	reopen();
	is_model();
}

Test(staged_hold, a_bit_that_changes_is_found)
{
	uint64_t id = htobe64(ID);
	struct statedb_val v;

	cr_assert_eq(write_at(0, 5000), 0);
	cr_assert_eq(statedb_get(s.db, STATEDB_BYTES, &id, sizeof(id), &v), 0);
	memcpy(mem, v.data, v.len);
	mem[v.len - 7] ^= 4;
	cr_assert_eq(statedb_put(s.db, STATEDB_BYTES, &id, sizeof(id), mem, v.len), 0);
	reopen();
	cr_assert_eq(srig_check(&s, sf, 0, model, 5000), -EBADMSG);
	cr_assert_eq(upload_read(), -EBADMSG);
	cr_assert_eq(srig_do(&s, sf, staged_sync, 0, 0, NULL), -EBADMSG);
}

Test(staged_hold, all_together_they_are_few)
{
	struct staged *many[300];

	for (unsigned i = 0; i < 300; i++) {
		many[i] = srig_create(&s, ID + 1 + i, NULL);
		staged_hold(many[i]);
		cr_assert_eq(srig_do(&s, many[i], staged_write, 0, SMALL, data), 0);
		cr_assert_leq(s.st->held, 4 * MIB);
	}
	cr_assert_lt(rows(), 300);
	cr_assert_gt(rows(), 200);
	for (unsigned i = 0; i < 300; i++) {
		cr_assert_eq(srig_check(&s, many[i], 0, data, SMALL), 0);
		cr_assert_eq(staged_delete(&many[i]), 0);
	}
	cr_assert_eq(rows(), 0);
	cr_assert_eq(s.st->held, 0);
}

Test(staged_hold, whatever_is_done_to_it)
{
	unsigned seed = 1;
	uint64_t size = 0;

	for (unsigned turn = 0; turn < 600; turn++) {
		unsigned what = (unsigned)rand_r(&seed) % 16;
		uint64_t off = (unsigned)rand_r(&seed) % (size + 1);
		uint64_t len = 1 + (unsigned)rand_r(&seed) % 3000;

		if (what < 7) {
			off = what < 4 ? size : off;
			if (off + len > MOST)
				continue;
			cr_assert_eq(write_at(off, len), 0);
			size = MAX(size, off + len);
		} else if (what < 9) {
			cr_assert_eq(srig_do(&s, sf, staged_truncate, off, 0, NULL), 0);
			memset(model + off, 0, sizeof(model) - off);
			size = off;
		} else if (what < 10 && size + len < MOST) {
			size += len;
			cr_assert_eq(srig_do(&s, sf, staged_truncate, size, 0, NULL), 0);
		} else if (what < 12) {
			reopen();
		} else if (what == 12) {
			cr_assert_eq(upload_read(), 0);
		} else if (what == 13) {
			/* Another one. */
			cr_assert_eq(staged_delete(&sf), 0);
			rig_settle(&s.g);
			sf = srig_create(&s, ID, NULL);
			staged_hold(sf);
			memset(model, 0, sizeof(model));
			size = 0;
		} else if (what == 14 && off + len < size) {
			cr_assert_eq(srig_zero(&s, sf, off, len, true), 0);
			memset(model + off, 0, len);
		} else {
			cr_assert_eq(srig_do(&s, sf, staged_sync, 0, 0, NULL), 0);
		}
		cr_assert_eq(staged_size(sf), size);
		is_model();
	}
}

/* Its record has the bytes, which a successor does not know. */
Test(staged_hold, restored_it_needs_no_file_either)
{
	struct staged_durable d = {.size = 5000};

	d.tail_crc = checksum_crc32c(data + 4096, 5000 - 4096);
	memcpy(model, data, 5000);
	staged_close(&sf);
	srig_restart(&s);
	cr_assert_eq(staged_restore(s.st, ID + 5, &d, data, 5000, false, &sf), 0);
	cr_assert_eq(rows(), 1);
	staged_close(&sf);
	srig_restart(&s);
	sf = srig_open(&s, ID + 5, NULL);
	is_model();
	cr_assert_eq(upload_read(), 0);
	cr_assert_eq(rows(), 0);
	staged_close(&sf);
	srig_restart(&s);
	sf = srig_open(&s, ID + 5, NULL);
	is_model();
}
