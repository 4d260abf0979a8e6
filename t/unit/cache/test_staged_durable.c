/* SPDX-License-Identifier: BSD-2-Clause */
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

#define ID (STAGED_DURABLE_BIT | 0x1234)
#define MOST (256 * 1024)

static struct staged_rig s;
static struct staged *sf;
static unsigned char data[MOST], model[MOST], mem[MOST];

static void setup(void)
{
	srig_init(&s);
	for (size_t i = 0; i < MOST; i++)
		data[i] = (unsigned char)(1 + i % 251);
	memset(model, 0, sizeof(model));
	sf = srig_create(&s, ID, NULL);
}

static void teardown(void)
{
	cr_assert_eq(fault_init("", &(struct errtext){0}), 0);
	if (sf != NULL)
		staged_close(&sf);
	srig_fini(&s);
}

TestSuite(staged_durable, .init = setup, .fini = teardown);

static int write_at(uint64_t off, uint64_t len)
{
	int err = srig_do(&s, sf, staged_write, off, len, data);

	if (err == 0)
		memcpy(model + off, data, len);
	return err;
}

static int verb(srig_verb v, uint64_t off, uint64_t len)
{
	return srig_do(&s, sf, v, off, len, NULL);
}

/* As an upload reads: all of it, and its checksum. */
static int upload_read(uint32_t *crc)
{
	struct staged_io io;
	int err = srig_pread(&s, sf, mem, MOST, &io);

	if (crc != NULL)
		*crc = io.crc;
	if (err == 0 && io.got != staged_size(sf))
		return -ERANGE;
	return err;
}

static void is_model(void)
{
	uint64_t size = staged_size(sf);
	uint32_t crc = 0;
	int err = upload_read(&crc);

	cr_assert_eq(err, 0, "error %d", err);
	cr_assert_eq(memcmp(mem, model, size), 0);
	cr_assert_eq(crc, checksum_crc32c(model, size));
}

static struct staged_durable synced(void)
{
	struct staged_durable d;

	cr_assert_eq(verb(staged_sync, 0, 0), 0);
	staged_durable(sf, &d);
	return d;
}

/* As after a power loss: the files and what the record says. */
static void restore(const struct staged_durable *d, const void *inl, bool rewriting)
{
	if (sf != NULL)
		cr_assert_eq(staged_park(&sf), 0);
	srig_commit(&s);
	cr_assert_eq(staged_restore(s.st, ID, d, inl, inl != NULL ? d->size : 0, rewriting, &sf),
	    0);
}

static void flip(bool sums, off_t at)
{
	char path[160];

	if (sums)
		srig_sums_path(&s, ID, path, sizeof(path));
	else
		srig_file_path(&s, ID, path, sizeof(path));
	rig_flip(path, at);
}

static void fault(const char *spec)
{
	struct errtext et;

	cr_assert_eq(fault_init(spec, &et), 0, "%s", et.s);
}

static uint64_t mismatches(void)
{
	struct staging_status st;

	staging_status(s.st, &st);
	return st.mismatches;
}

Test(staged_durable, what_is_read_for_an_upload_is_what_was_written)
{
	const uint64_t places[] = {0, 4096, 100, 5000, 8191, 12288, 70000, 65536, 3, 120000};

	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		cr_assert_eq(write_at(places[i], 1 + i * 1999), 0);
		is_model();
	}
	cr_assert_eq(srig_zero(&s, sf, 5000, 30000, true), 0);
	memset(model + 5000, 0, 30000);
	is_model();
	cr_assert_eq(srig_zero(&s, sf, 70001, 17, false), 0);
	memset(model + 70001, 0, 17);
	is_model();
	cr_assert_eq(verb(staged_truncate, 66001, 0), 0);
	memset(model + 66001, 0, MOST - 66001);
	is_model();
	cr_assert_eq(verb(staged_truncate, 90000, 0), 0);
	is_model();
	cr_assert_eq(verb(staged_allocate, 80000, 50000), 0);
	is_model();
	cr_assert_eq(write_at(130001, 9), 0);
	is_model();
	cr_assert_eq(mismatches(), 0);
}

Test(staged_durable, a_synced_file_is_there_again)
{
	struct staged_durable d;
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 100000};

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		cr_assert_eq(verb(staged_truncate, 0, 0), 0);
		memset(model, 0, sizeof(model));
		if (sizes[i] > 0)
			cr_assert_eq(write_at(0, sizes[i]), 0);
		d = synced();
		cr_assert_eq(d.size, sizes[i]);
		cr_assert_eq(d.tail_crc != 0, sizes[i] % 4096 != 0);
		restore(&d, NULL, false);
		cr_assert_eq(staged_size(sf), sizes[i]);
		cr_assert(staged_dirty(sf));
		is_model();
		cr_assert_eq(srig_check(&s, sf, 0, model, sizes[i]), 0);
		staged_close(&sf);
		srig_restart(&s);
		sf = srig_open(&s, ID, NULL);
		is_model();
	}
}

Test(staged_durable, what_was_appended_later_does_not_harm)
{
	struct staged_durable d;

	cr_assert_eq(write_at(0, 10000), 0);
	d = synced();
	cr_assert(!staged_rewrites(sf, 10000));
	cr_assert_eq(srig_do(&s, sf, staged_write, 10000, 9000, data), 0);
	cr_assert(!staged_rewritten(sf));
	restore(&d, NULL, false);
	cr_assert_eq(staged_size(sf), 10000);
	is_model();
	cr_assert_eq(srig_check(&s, sf, 8000, model + 8000, 2000), 0);
}

Test(staged_durable, rewriting_is_told)
{
	cr_assert_eq(write_at(0, 10000), 0);
	cr_assert(!staged_rewritten(sf));
	synced();
	cr_assert(staged_rewrites(sf, 9999));
	cr_assert_eq(write_at(9999, 1), 0);
	cr_assert(staged_rewritten(sf));
	synced();
	cr_assert(!staged_rewritten(sf));
	cr_assert_eq(verb(staged_truncate, 9999, 0), 0);
	cr_assert(staged_rewritten(sf));
	synced();
	cr_assert_eq(srig_zero(&s, sf, 20, 1, true), 0);
	cr_assert(staged_rewritten(sf));
	synced();
	srig_commit(&s);
	staged_close(&sf);
	srig_restart(&s);
	sf = srig_open(&s, ID, NULL);
	cr_assert(!staged_rewritten(sf));
	cr_assert(staged_rewrites(sf, 9000));
}

Test(staged_durable, a_half_rewritten_file_is_what_it_is)
{
	struct staged_durable d;

	cr_assert_eq(write_at(0, 40000), 0);
	d = synced();
	flip(false, 5000);
	flip(false, 39999);
	model[5000] ^= 0x20;
	model[39999] ^= 0x20;
	restore(&d, NULL, true);
	is_model();
	cr_assert_eq(mismatches(), 0);
	d = synced();
	restore(&d, NULL, false);
	is_model();
}

Test(staged_durable, a_changed_bit_is_found)
{
	static const struct {
		bool sums;
		off_t at;
	} bits[] = {{false, 0}, {false, 20000}, {false, 39999}, {true, 64}, {true, 64 + 4 * 5}};
	struct staged_durable d;
	uint64_t n = 0;

	cr_assert_eq(write_at(0, 40000), 0);
	d = synced();
	for (size_t i = 0; i < ARRAY_LEN(bits); i++) {
		flip(bits[i].sums, bits[i].at);
		cr_assert_eq(upload_read(NULL), -EBADMSG);
		cr_assert_eq(mismatches(), ++n);
		restore(&d, NULL, false);
		cr_assert_eq(srig_do(&s, sf, staged_read, 0, 40000, NULL), -EBADMSG);
		n++;
		flip(bits[i].sums, bits[i].at);
		restore(&d, NULL, false);
		is_model();
	}
	cr_assert_eq(rig_counter(&s.g, CTR_STAGED_CHECKSUM_ERRORS), n);
}

Test(staged_durable, a_bit_that_changes_once_it_was_safe_is_found_by_a_successor_too)
{
	cr_assert_eq(write_at(0, 40000), 0);
	synced();
	srig_commit(&s);
	staged_close(&sf);
	flip(false, 20000);
	srig_restart(&s);
	sf = srig_open(&s, ID, NULL);
	cr_assert_eq(upload_read(NULL), -EBADMSG);
}

Test(staged_durable, the_records_tail_sum_counts)
{
	struct staged_durable d;

	cr_assert_eq(write_at(0, 10000), 0);
	d = synced();
	d.tail_crc ^= 4;
	restore(&d, NULL, false);
	cr_assert_eq(upload_read(NULL), -EBADMSG);
	cr_assert_eq(srig_check(&s, sf, 0, model, 8192), 0);
}

Test(staged_durable, lost_files_say_so)
{
	struct staged_durable d;
	char path[160];

	cr_assert_eq(write_at(0, 10000), 0);
	d = synced();
	srig_file_path(&s, ID, path, sizeof(path));
	cr_assert_eq(truncate(path, 9999), 0);
	restore(&d, NULL, false);
	cr_assert_eq(upload_read(NULL), -EIO);
	cr_assert_eq(unlink(path), 0);
	restore(&d, NULL, false);
	cr_assert_eq(upload_read(NULL), -EIO);
	cr_assert(!srig_file_there(&s, ID), "it was made again, empty");
	d.size = 0;
	d.tail_crc = 0;
	restore(&d, NULL, false);
	cr_assert_eq(upload_read(NULL), 0);
}

Test(staged_durable, bytes_of_the_record_make_it_again)
{
	static const size_t sizes[] = {1, 4096, 10000, 65536};
	struct staged_durable d = {0};
	char path[160];

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		d.size = sizes[i];
		memset(model, 0, sizeof(model));
		memcpy(model, data, sizes[i]);
		for (unsigned how = 0; how < 4; how++) {
			if (sf != NULL)
				cr_assert_eq(staged_park(&sf), 0);
			srig_file_path(&s, ID, path, sizeof(path));
			if (how == 1)
				cr_assert_eq(unlink(path), 0);
			if (how == 2)
				cr_assert_eq(truncate(path, (off_t)sizes[i] / 2), 0);
			srig_sums_path(&s, ID, path, sizeof(path));
			if (how == 3)
				cr_assert_eq(truncate(path, 0), 0);
			restore(&d, model, false);
			is_model();
		}
	}
}

Test(staged_durable, parked_it_leaves_no_row)
{
	struct staged_durable d;

	for (unsigned i = 0; i < 40; i++)
		cr_assert_eq(write_at(i * 6000, 100), 0);
	d = synced();
	cr_assert_eq(staged_park(&sf), 0);
	cr_assert_eq(statedb_count(s.db, STATEDB_STAGED), 0);
	rig_settle(&s.g);
	srig_commit(&s);
	rig_settle(&s.g);
	cr_assert_eq(srig_rows(&s), 0);
	cr_assert(srig_file_there(&s, ID) && srig_sums_there(&s, ID));
	restore(&d, NULL, false);
	is_model();
	cr_assert_eq(srig_rows(&s), 1);
	cr_assert_eq(staged_delete(&sf), 0);
	srig_commit(&s);
	rig_settle(&s.g);
	cr_assert(!srig_file_there(&s, ID) && !srig_sums_there(&s, ID));
}

/* --- Room */

static struct staging_status status(void)
{
	struct staging_status st;

	staging_status(s.st, &st);
	return st;
}

Test(staged_durable, pinned_room_ends_and_comes_back)
{
	struct staged_durable d;

	rig_set(&s.g, "worker.page.store.size", "64MiB");
	rig_set(&s.g, "worker.page.store.pinned.file.capacity.limit.ratio", "0.5");
	staging_parked(s.st, 32 * MIB - 20000);
	cr_assert_eq(write_at(0, 16000), 0);
	cr_assert_eq(status().durable, 16000);
	cr_assert_eq(write_at(12000, 8001), -ENOSPC);
	cr_assert_eq(verb(staged_allocate, 12000, 8001), -ENOSPC);
	cr_assert_eq(write_at(12000, 8000), 0, "what is there counts once");
	cr_assert_eq(write_at(0, 20000), 0);
	cr_assert_eq(write_at(20000, 1), -ENOSPC);
	is_model();
	cr_assert_eq(verb(staged_truncate, 19999, 0), 0);
	cr_assert_eq(write_at(30000, 1), 0);
	d = synced();
	cr_assert_eq(staged_park(&sf), 0);
	cr_assert_eq(status().durable, 0);
	sf = srig_create(&s, ID + 1, NULL);
	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 1, data), -ENOSPC);
	staging_parked(s.st, 0);
	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 1, data), 0);
	cr_assert_eq(staged_delete(&sf), 0);
	cr_assert_eq(staged_restore(s.st, ID, &d, NULL, 0, false, &sf), 0);
	cr_assert_eq(status().durable, d.size);
	staged_sending(sf);
	cr_assert_eq(status().durable, d.size);
	cr_assert_eq(staged_uploaded(sf, NULL, d.size), 0);
	cr_assert_eq(status().durable, 0);
}

/* --- Faults */

Test(staged_durable, what_a_sync_lost_stays_lost)
{
	static const char *const points[] = {"staged.sync.data=errno:5@1",
	    "staged.sync.sums=errno:5@1", "staged.sync.dir=errno:5@1"};

	for (size_t i = 0; i < ARRAY_LEN(points); i++) {
		fault(points[i]);
		cr_assert_eq(write_at(0, 100), 0);
		cr_assert_eq(verb(staged_sync, 0, 0), -EIO);
		cr_assert_eq(verb(staged_sync, 0, 0), -EIO);
		cr_assert_eq(write_at(0, 100), 0);
		cr_assert_eq(verb(staged_sync, 0, 0), -EIO);
		is_model();
		staged_close(&sf);
		srig_restart(&s);
		sf = srig_open(&s, ID, NULL);
		cr_assert_eq(verb(staged_sync, 0, 0), -EIO);
		is_model();
		cr_assert_eq(staged_delete(&sf), 0);
		srig_commit(&s);
		rig_settle(&s.g);
		sf = srig_create(&s, ID, NULL);
	}
}

/* Unmounted, or taken away, with files open in it. */
Test(staged_durable, a_sync_without_the_directory_is_an_io_error)
{
	char away[100];

	cr_assert_eq(write_at(0, 100), 0);
	(void)snprintf(away, sizeof(away), "%s.away", s.dir);
	cr_assert_eq(rename(s.dir, away), 0);
	cr_assert_eq(verb(staged_sync, 0, 0), -EIO);
	cr_assert_eq(rename(away, s.dir), 0);
	is_model();
}

Test(staged_durable, a_write_that_fails_leaves_sums_that_agree)
{
	static const char *const points[] = {"staged.write.data=errno:28",
	    "staged.sums.write=errno:28"};

	cr_assert_eq(write_at(100, 20000), 0);
	for (size_t i = 0; i < ARRAY_LEN(points); i++) {
		fault(points[i]);
		cr_assert_eq(srig_do(&s, sf, staged_write, 3000, 30000, data + 7), -ENOSPC);
		cr_assert_eq(srig_zero(&s, sf, 3000, 30000, false), i == 0 ? 0 : -ENOSPC);
		if (i == 0)
			memset(model + 3000, 0, 30000);
		fault("");
		is_model();
		cr_assert_eq(verb(staged_sync, 0, 0), 0);
	}
}

/* What is written at one place is always the same: so it is there, or is not. */
Test(staged_durable, a_full_disk_leaves_sums_that_agree)
{
	unsigned seed = 1, full = 0, done = 0;

	staged_close(&sf);
	srig_small_disk(&s, "size=96k");
	sf = srig_create(&s, ID, NULL);
	for (unsigned n = 0; n < 300; n++) {
		uint64_t off = (unsigned)rand_r(&seed) % (MOST - 1);
		uint64_t len = 1 + (unsigned)rand_r(&seed) % 20000;
		int err;

		len = MIN(len, MOST - off);
		err = srig_do(&s, sf, staged_write, off, len, data + off);
		cr_assert(err == 0 || err == -ENOSPC, "error %d", err);
		full += err != 0;
		done += err == 0;
		if (err == 0)
			memcpy(model + off, data + off, len);
		cr_assert_eq(upload_read(NULL), 0);
		for (uint64_t i = 0; i < staged_size(sf); i++)
			cr_assert(mem[i] == model[i] || mem[i] == data[i], "byte %llu",
			    (unsigned long long)i);
		if (err != 0 && n % 3 == 0) {
			cr_assert_eq(srig_zero(&s, sf, off, len, true), 0);
			memset(model + off, 0, len);
		}
		if (n % 17 == 0) {
			cr_assert_eq(verb(staged_truncate, off, 0), 0);
			memset(model + off, 0, MOST - off);
		}
	}
	cr_assert(full > 20 && done > 20, "%u full, %u not", full, done);
	cr_assert_eq(mismatches(), 0);
	cr_assert_eq(staged_delete(&sf), 0);
	srig_commit(&s);
	srig_small_disk_end(&s);
}

Test(staged_durable, every_allocation_may_fail)
{
	struct staged_durable d;
	unsigned n;
	int err;

	cr_assert_eq(write_at(0, 10000), 0);
	d = synced();
	for (n = 1;; n++) {
		if (sf != NULL)
			cr_assert_eq(staged_park(&sf), 0);
		nth_arm(n);
		err = staged_restore(s.st, ID, &d, model, 10000, false, &sf);
		nth_disarm();
		cr_assert_eq(err, sf != NULL ? 0 : -ENOMEM);
		if (!nth_fired())
			break;
	}
	cr_assert_gt(n, 4);
	is_model();
	for (n = 1;; n++) {
		srig_commit(&s);
		nth_arm(n);
		err = staged_park(&sf);
		nth_disarm();
		cr_assert_eq(err == 0, sf == NULL);
		if (statedb_lost(s.db))
			statedb_recover(s.db);
		if (sf == NULL)
			cr_assert_eq(staged_restore(s.st, ID, &d, NULL, 0, false, &sf), 0);
		is_model();
		if (!nth_fired())
			break;
	}
	cr_assert_eq(staged_park(&sf), 0);
	for (n = 1;; n++) {
		nth_arm(n);
		staging_discard(s.st, ID);
		nth_disarm();
		if (!nth_fired())
			break;
	}
	rig_settle(&s.g);
	cr_assert(!srig_file_there(&s, ID) && !srig_sums_there(&s, ID));
}

/* Killed when the sums of what was to be appended were there, and its bytes were not. */
Test(staged_durable, a_death_before_the_appended_bytes)
{
	uint64_t range[2] = {5000, 13000};
	uint32_t sums[3] = {123, 456, 789};
	char path[160];
	int fd;

	cr_assert_eq(write_at(0, 5000), 0);
	staged_close(&sf);
	srig_sums_path(&s, ID, path, sizeof(path));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	cr_assert_eq(pwrite(fd, range, sizeof(range), 8), sizeof(range));
	cr_assert_eq(pwrite(fd, sums, sizeof(sums), 64 + 4), sizeof(sums));
	close(fd);
	srig_restart(&s);
	sf = srig_open(&s, ID, NULL);
	is_model();
	cr_assert_eq(verb(staged_truncate, 20000, 0), 0);
	is_model();
}
