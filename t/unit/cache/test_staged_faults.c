/* SPDX-License-Identifier: BSD-2-Clause */
/* Staged files where something fails: disks, the database, memory; and what is left of them. */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../lib/nth_fault.h"
#include "base/paths.h"
#include "staged_rig.h"

static struct staged_rig s;
static unsigned char data[4 * MIB], other[4 * MIB];
static const unsigned char zeros[MIB];

static void setup(void)
{
	srig_init(&s);
	memset(data, 'd', sizeof(data));
	memset(other, 'o', sizeof(other));
}

static void teardown(void)
{
	srig_fini(&s);
}

TestSuite(staged_faults, .init = setup, .fini = teardown);

/* --- Disks that fail */

Test(staged_faults, a_full_disk_changes_nothing)
{
	struct staged *sf;
	struct staging_status st;

	srig_small_disk(&s, "size=1m");
	sf = srig_over_base(&s, other, 4 * MIB);
	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 600000, data), 0);
	cr_assert_eq(srig_do(&s, sf, staged_write, 3 * MIB, 2 * MIB, data), -ENOSPC);
	cr_assert_eq(staged_size(sf), 4 * MIB);
	cr_assert_eq(srig_kind_at(sf, 3 * MIB), STAGED_BASE);
	cr_assert_eq(sf->bytes, 600000);
	cr_assert_eq(srig_rows(&s), 1);
	staging_status(s.st, &st);
	cr_assert_neq(st.error[0], '\0');
	/* What the failed one took is there again. */
	cr_assert_eq(srig_do(&s, sf, staged_write, 600000, 300000, data), 0);
	staging_status(s.st, &st);
	cr_assert_eq(st.error[0], '\0');
	cr_assert_eq(srig_do(&s, sf, staged_fill, 0, 4 * MIB, NULL), -ENOSPC);
	cr_assert_eq(srig_check(&s, sf, 0, data, 900000), 0);
	cr_assert_eq(srig_do(&s, sf, staged_truncate, 1000, 0, NULL), 0);
	cr_assert_eq(srig_do(&s, sf, staged_write, 1000, 900000, data), 0);
	cr_assert_eq(srig_check(&s, sf, 0, data, 901000), 0);
	cr_assert_eq(staged_delete(&sf), 0);
	srig_small_disk_end(&s);
}

Test(staged_faults, a_file_that_lost_bytes_is_an_error)
{
	struct staged *sf = srig_create(&s, 1, NULL);
	char path[128];

	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 100000, data), 0);
	srig_file_path(&s, 1, path, sizeof(path));
	cr_assert_eq(truncate(path, 50000), 0);
	cr_assert_eq(srig_check(&s, sf, 0, data, 50000), 0);
	cr_assert_eq(srig_check(&s, sf, 0, data, 100000), -EIO);
	staged_close(&sf);
	srig_restart(&s);
	unlink(path);
	sf = srig_open(&s, 1, NULL);
	cr_assert_eq(srig_check(&s, sf, 0, data, 1000), -EIO);
	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 10, data), -EIO, "it would hide the loss");
	cr_assert_eq(staged_delete(&sf), 0);
}

Test(staged_faults, a_daemon_that_was_overtaken_writes_nothing)
{
	_Atomic uint64_t word = 4;
	struct staged *sf = srig_create(&s, 1, NULL);
	struct srig_io wr;
	char path[128];
	struct stat st;

	s.g.epoch.word = &word;
	s.g.epoch.mine = 4;
	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 1000, data), 0);
	srig_start(&wr, sf, staged_write, 1000, 1000, data);
	word = 5;
	cr_assert(rig_until(&s.g, srig_done, &wr));
	cr_assert_eq(wr.err, -ESTALE);
	cr_assert_eq(srig_do(&s, sf, staged_write, 1000, 1000, data), -ESTALE);
	cr_assert_eq(srig_do(&s, sf, staged_truncate, 10, 0, NULL), -ESTALE);
	srig_file_path(&s, 1, path, sizeof(path));
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_geq(st.st_size, 1000);
	cr_assert_eq(staged_delete(&sf), -ESTALE);
	staged_close(&sf);
	rig_settle(&s.g);
	cr_assert(srig_file_there(&s, 1));
	s.g.epoch.word = NULL;
	s.g.epoch.mine = 0;
}

/* --- Files without rows */

static void litter(const char *name)
{
	char path[160];
	FILE *f;

	paths_make_private(s.dir);
	snprintf(path, sizeof(path), "%s/%s", s.dir, name);
	f = fopen(path, "w");
	cr_assert_not_null(f);
	fputs("left behind", f);
	fclose(f);
}

static bool named(const char *name)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", s.dir, name);
	return access(path, F_OK) == 0;
}

Test(staged_faults, a_sweep_removes_what_nobody_knows)
{
	struct staged *sf = srig_create(&s, 0xab, NULL), *fresh;

	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 1000, data), 0);
	litter("cd");
	litter("ef");
	litter("12.gone");
	litter("0cd");
	litter("notes");
	staging_sweep(s.st);
	/* Its name is that of one that is swept just now. */
	fresh = srig_create(&s, 0xef, NULL);
	cr_assert_eq(srig_do(&s, fresh, staged_write, 0, 1000, data), 0);
	rig_settle(&s.g);
	cr_assert(named("ab") && named("ef"));
	cr_assert(named("0cd") && named("notes"), "not ours");
	cr_assert(!named("cd") && !named("12.gone") && !named("cd.gone") && !named("ef.gone"));
	cr_assert_eq(srig_check(&s, fresh, 0, data, 1000), 0);
	staged_close(&fresh);
	staged_close(&sf);
	srig_restart(&s);
	fresh = srig_open(&s, 0xef, NULL);
	cr_assert_eq(srig_check(&s, fresh, 0, data, 1000), 0);
	cr_assert_eq(staged_delete(&fresh), 0);
}

static unsigned aside(void)
{
	struct staging_status st;

	staging_status(s.st, &st);
	return st.aside;
}

static bool swept(void *arg)
{
	(void)arg;
	return s.st->sweep == NULL;
}

/* A machine that lost its power leaves all that was not stored. */
Test(staged_faults, nobody_waits_until_very_many_are_swept)
{
	struct staged *old = srig_create(&s, 1, NULL), *fresh[3];
	uint64_t id[] = {0x10000, 7, 2500};
	struct srig_io si[3];
	char name[16];

	cr_assert_eq(srig_do(&s, old, staged_write, 0, 1000, other), 0);
	for (unsigned i = 2; i < 3500; i++) {
		snprintf(name, sizeof(name), "%x", i);
		litter(name);
	}
	litter("7.kept");
	staging_sweep(s.st);
	for (unsigned i = 0; i < 3; i++) {
		fresh[i] = srig_create(&s, id[i], NULL);
		srig_start(&si[i], fresh[i], staged_write, 0, 5, data);
		cr_assert(fresh[i]->running, "%u waits", i);
	}
	for (unsigned i = 0; i < 3; i++)
		cr_assert(rig_until(&s.g, srig_done, &si[i]));
	/* The directory is another's for a while. */
	staging_hold(s.st, true);
	rig_settle(&s.g);
	staging_hold(s.st, false);
	cr_assert(rig_until(&s.g, swept, NULL));
	rig_settle(&s.g);
	for (unsigned i = 2; i < 3500; i++) {
		snprintf(name, sizeof(name), "%x", i);
		cr_assert_eq(named(name), i == 7 || i == 2500, "%s", name);
	}
	cr_assert_eq(aside(), 1);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(srig_check(&s, fresh[i], 0, data, 5), 0);
		cr_assert_eq(staged_delete(&fresh[i]), 0);
	}
	cr_assert_eq(srig_check(&s, old, 0, other, 1000), 0);
	cr_assert_eq(staged_delete(&old), 0);
}

static bool note_has(const char *name, const char *words)
{
	char path[600], text[2048];
	size_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", s.dir, name);
	f = fopen(path, "re");
	if (f != NULL) {
		n = fread(text, 1, sizeof(text) - 1, f);
		fclose(f);
	}
	text[n] = '\0';
	return strstr(text, words) != NULL;
}

/* What the storage did not take is no litter, whatever became of its rows. */
Test(staged_faults, a_sweep_sets_aside_what_is_kept)
{
	struct staged *sf = srig_create(&s, 0xab, NULL), *none = srig_create(&s, 0xac, NULL);
	char name[600];

	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 1000, data), 0);
	cr_assert_eq(srig_do(&s, sf, staged_write, 5000, 1000, data), 0);
	staged_keep(sf, "path: /one\n");
	staged_keep(none, "path: /none\n");
	rig_settle(&s.g);
	cr_assert(note_has("ab.kept", "path: /one\nsize: 6000\nbytes 0 to 5999: here\n"
				      "complete: yes\n"));
	cr_assert(!named("ac.kept"), "there is nothing of it");
	litter("cd");
	litter("cd.kept");
	litter("ee.kept");
	staging_sweep(s.st);
	rig_settle(&s.g);
	cr_assert(named("ab") && named("ab.kept"), "it has its rows");
	cr_assert(!named("cd") && !named("cd.kept") && !named("ee.kept"));
	cr_assert_eq(aside(), 1);
	snprintf(name, sizeof(name), "ls '%s/" STAGED_ASIDE "' | grep -c -e '-cd$' -e '-cd.txt$' | grep -qx 2",
	    s.dir);
	cr_assert_eq(system(name), 0);
	/* The next mount's file of that number is another one. */
	litter("cd");
	litter("cd.kept");
	staging_sweep(s.st);
	rig_settle(&s.g);
	cr_assert_eq(aside(), 2);
	cr_assert_eq(staged_delete(&sf), 0);
	cr_assert_eq(staged_delete(&none), 0);
	rig_settle(&s.g);
	cr_assert(!named("ab") && !named("ab.kept"));
}

Test(staged_faults, many_rows_are_deleted_a_few_at_a_time)
{
	struct staged *sf = srig_create(&s, 1, NULL), *stays = srig_create(&s, 2, NULL);
	uint64_t rows;

	for (unsigned i = 0; i < 3500; i++)
		cr_assert_eq(srig_do(&s, sf, staged_write, i * 20, 10, data), 0);
	cr_assert_eq(srig_do(&s, stays, staged_write, 0, 10, data), 0);
	cr_assert_eq(srig_rows(&s), 3501);
	cr_assert_eq(staged_delete(&sf), 0);
	loop_turn(s.g.loop, false);
	loop_turn(s.g.loop, false);
	rows = srig_rows(&s);
	cr_assert(rows < 3501 && rows > 1500, "%llu", (unsigned long long)rows);
	/* The successor goes on. */
	staged_close(&stays);
	srig_restart(&s);
	cr_assert_eq(staged_open(s.st, 1, NULL, &sf), -ENOENT);
	stays = srig_open(&s, 2, NULL);
	loop_turn(s.g.loop, false);
	rig_settle(&s.g);
	cr_assert_eq(srig_rows(&s), 1);
	cr_assert_eq(srig_check(&s, stays, 0, data, 10), 0);
	cr_assert_eq(staged_delete(&stays), 0);
}

/* Till the database takes no row of this size any more, not even in a new turn. */
static unsigned fill_db(unsigned n, size_t len)
{
	uint64_t key[2] = {htobe64(99)};
	int err = 0;

	for (unsigned fails = 0; fails < 2; fails = err == 0 ? 0 : fails + 1) {
		srig_commit(&s);
		do {
			key[1] = htobe64(n);
			err = statedb_put(s.db, STATEDB_EXTENTS, key, sizeof(key), data, len);
			n += err == 0;
		} while (err == 0);
		cr_assert_eq(err, -ENOSPC);
	}
	return n;
}

Test(staged_faults, a_row_that_has_no_place_fails_its_write_alone)
{
	struct staged *sf = srig_create(&s, 1, NULL);
	uint64_t key[2] = {htobe64(99)};
	unsigned n;

	for (unsigned i = 0; i < 300; i++)
		cr_assert_eq(srig_do(&s, sf, staged_write, i * 20, 10, data), 0);
	n = fill_db(fill_db(0, 1000), 10);
	cr_assert_eq(srig_do(&s, sf, staged_write, MIB, 10, data), -ENOSPC);
	cr_assert_eq(staged_size(sf), 299 * 20 + 10);
	cr_assert_eq(sf->map.n, 300);
	cr_assert_eq(srig_rows(&s), 300 + n);
	cr_assert(!sf->rows_bad);
	for (unsigned i = 0; i < n && i < 5000; i++) {
		key[1] = htobe64(i);
		cr_assert_eq(statedb_del(s.db, STATEDB_EXTENTS, key, sizeof(key)), 0);
		if (i % 10 == 9)
			srig_commit(&s);
	}
	srig_commit(&s);
	cr_assert_eq(srig_do(&s, sf, staged_write, MIB, 10, data), 0);
	cr_assert_eq(staged_delete(&sf), 0);
}

/* --- No memory, and rows that are lost */

static bool fine(int err)
{
	return err == 0 || err == -ENOMEM || err == -EIO || err == -ESTALE;
}

struct tried {
	int create, wr[3], zero, cut, upload, rd, fill;
};

static void try_all(struct staged **sfp, struct blob *b, struct tried *t)
{
	struct staged *sf;

	memset(t, 0, sizeof(*t));
	t->create = staged_create(s.st, 1, b, &sf);
	*sfp = sf;
	if (t->create != 0)
		return;
	for (unsigned i = 0; i < 3; i++)
		t->wr[i] = srig_do(&s, sf, staged_write, i * 100000, 1000, data);
	t->zero = srig_zero(&s, sf, 400000, 1000, true);
	t->cut = srig_do(&s, sf, staged_truncate, 600000, 0, NULL);
	t->fill = srig_do(&s, sf, staged_fill, 300000, 100000, NULL);
	t->rd = srig_check(&s, sf, 500000, other + 500000, 5000);
	staged_sending(sf);
	staged_not_uploaded(sf);
	(void)srig_do(&s, sf, staged_sync, 0, 0, NULL);
}

static void check_tried(struct staged *sf, const struct tried *t)
{
	for (unsigned i = 0; i < 3; i++) {
		cr_assert(fine(t->wr[i]), "error %d", t->wr[i]);
		if (t->wr[i] == 0)
			cr_assert_eq(srig_check(&s, sf, i * 100000, data, 1000), 0);
	}
	cr_assert(fine(t->zero) && fine(t->cut) && fine(t->fill) && fine(t->rd), "%d %d %d %d",
	    t->zero, t->cut, t->fill, t->rd);
	if (t->zero == 0)
		cr_assert_eq(srig_check(&s, sf, 400000, zeros, 1000), 0);
	if (t->cut == 0)
		cr_assert_eq(staged_size(sf), 600000);
	cr_assert_eq(srig_check(&s, sf, 300000, other + 300000, 50000), 0);
}

Test(staged_faults, each_allocation_fails_once)
{
	bool fired = true;
	unsigned n, failed = 0;

	teardown();
	for (n = 1; fired; n++) {
		struct staged *sf;
		struct tried t;
		struct blob *b;
		bool lost;

		setup();
		b = rig_blob(&s.g, "f", "v1", MIB);
		srig_base_bytes("v1", 0, other, MIB);
		nth_arm(n);
		try_all(&sf, b, &t);
		fired = nth_fired();
		failed += t.create != 0 || t.wr[0] != 0 || t.wr[1] != 0 || t.rd != 0 || t.fill != 0;
		lost = statedb_lost(s.db);
		if (lost) {
			loop_turn(s.g.loop, false);
			statedb_recover(s.db);
		}
		if (sf == NULL)
			cr_assert(fine(t.create), "error %d", t.create);
		if (sf == NULL)
			sf = srig_create(&s, 1, b);
		else
			check_tried(sf, &t);
		/* The next change brings the rows into line. */
		cr_assert_eq(srig_do(&s, sf, staged_write, 550000, 10, data), 0, "at %u", n);
		cr_assert(!sf->rows_bad);
		staged_close(&sf);
		rig_settle(&s.g);
		srig_restart(&s);
		sf = srig_open(&s, 1, b);
		if (t.create == 0)
			check_tried(sf, &t);
		cr_assert_eq(srig_check(&s, sf, 550000, data, 10), 0);
		cr_assert_eq(staged_delete(&sf), 0);
		cache_blob_put(&b);
		rig_settle(&s.g);
		page_drop_parked(s.g.cache);
		cr_assert_eq(arena_used(s.g.cache->arena), 0);
		teardown();
	}
	cr_assert_gt(failed, 5);
	cr_assert_gt(n, 30, "only %u allocations were seen", n);
	setup();
}
