/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages of the hand-over and memfds of held requests, from arbitrary bytes. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "takeover/held.h"
#include "takeover/records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_message(const uint8_t *data, size_t size)
{
	struct rec_in in;
	char text[64], raw[256];
	uint64_t v;
	uint32_t len;
	int t, fds[REC_FD_KINDS];

	if (rec_parse(&in, data, size) != 0)
		return;
	for (t = 1; t < REC_TAGS; t++) {
		rec_get_u64(&in, (enum rec_tag)t, &v);
		rec_get_text(&in, (enum rec_tag)t, text, sizeof(text));
		rec_get_raw(&in, (enum rec_tag)t, raw, sizeof(raw), &len);
	}
	rec_sort_fds(&in, NULL, 0, fds);
}

static void fuzz_held(const uint8_t *data, size_t size)
{
	struct held_list list = STAILQ_HEAD_INITIALIZER(list);
	uint32_t count;
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return;
	if (write(fd, data, size) == (ssize_t)size &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0 &&
	    held_decode(fd, &list, &count) == 0)
		held_free(&list);
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_message(data, size);
	fuzz_held(data, size);
	return 0;
}
