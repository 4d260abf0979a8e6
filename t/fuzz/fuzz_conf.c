/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The configuration file: whatever stands in it, loading neither crashes nor
 * leaves a value out of its range, an error has words with file and line, and a
 * file made of the values loads to the same values.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int holds)
{
	if (!holds)
		abort();
}

/* A name that can be opened for these bytes; *fd is to be closed. */
static void as_file(const void *data, size_t size, char path[32], int *fd)
{
	*fd = memfd_create("conf", MFD_CLOEXEC);
	must(*fd >= 0 && write(*fd, data, size) == (ssize_t)size);
	snprintf(path, 32, "/proc/self/fd/%d", *fd);
}

static void check_same(const struct config *a, const struct config *b)
{
	char va[OPTION_TEXT_MAX], vb[OPTION_TEXT_MAX];

	for (size_t i = 0; i < option_count; i++) {
		const char *name = option_table[i].name;

		must(config_get(a, name, va, sizeof(va)) == va);
		must(config_get(b, name, vb, sizeof(vb)) == vb);
		must(strcmp(va, vb) == 0);
	}
}

static void check_round_trip(const struct config *cfg)
{
	struct config *again = config_new();
	char value[OPTION_TEXT_MAX], path[32];
	struct errtext et;
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int fd;

	must(again != NULL && f != NULL);
	for (size_t i = 0; i < option_count; i++) {
		const char *name = option_table[i].name;

		/* a blank before a value that begins with # would make it a comment */
		fprintf(f, "%s=%s\n", name, config_get(cfg, name, value, sizeof(value)));
	}
	fclose(f);
	as_file(text, len, path, &fd);
	must(config_load(again, path, &et) == 0);
	check_same(cfg, again);
	close(fd);
	free(text);
	config_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config *cfg = config_new();
	struct errtext et = {""};
	char path[32];
	int fd, err;

	must(cfg != NULL);
	as_file(data, size, path, &fd);
	err = config_load(cfg, path, &et);
	if (err != 0)
		must(strncmp(et.s, path, strlen(path)) == 0 && et.s[strlen(path)] == ':');
	/* also after an error: what was set before the bad line is sound */
	check_round_trip(cfg);
	if (config_validate(cfg, &et) != 0)
		must(et.s[0] != '\0');
	close(fd);
	config_free(&cfg);
	return 0;
}
