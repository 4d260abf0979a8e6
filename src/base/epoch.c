/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/epoch.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Another process maps the same word: its atomics must be the processor's own. */
static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && sizeof(_Atomic uint64_t) == 8,
    "64-bit atomics must be lock-free");

/* Without these a peer could shrink the file and the next look would be a SIGBUS. */
#define EPOCH_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

static int map_word(struct epoch *ep, int fd)
{
	void *p = mmap(NULL, sizeof(*ep->word), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	ep->word = p;
	ep->fd = fd;
	ep->mine = 0;
	return 0;
}

static void reset(struct epoch *ep)
{
	ep->word = NULL;
	ep->mine = 0;
	ep->fd = -1;
}

int epoch_create(struct epoch *ep)
{
	int fd, err;

	reset(ep);
	fd = memfd_create("batonfs-epoch", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, sizeof(*ep->word)) < 0 ||
	    fcntl(fd, F_ADD_SEALS, EPOCH_SEALS | F_SEAL_SEAL) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	err = map_word(ep, fd);
	if (err != 0)
		close(fd);
	return err;
}

int epoch_adopt(struct epoch *ep, int fd)
{
	struct stat st;
	int seals, err;

	reset(ep);
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || fstat(fd, &st) < 0)
		err = -errno;
	else if ((seals & EPOCH_SEALS) != EPOCH_SEALS || st.st_size != sizeof(*ep->word))
		err = -EINVAL;
	else
		err = map_word(ep, fd);
	if (err != 0 && fd >= 0)
		close(fd);
	return err;
}

uint64_t epoch_read(const struct epoch *ep)
{
	if (ep->word == NULL)
		return ep->mine;
	return atomic_load_explicit(ep->word, memory_order_acquire);
}

int epoch_raise(struct epoch *ep, uint64_t from)
{
	uint64_t expected = from;

	/* 0 means "none yet": the last number can have no successor. */
	if (from == UINT64_MAX)
		return -EOVERFLOW;
	if (ep->word != NULL && !atomic_compare_exchange_strong(ep->word, &expected, from + 1))
		return -ESTALE;
	ep->mine = from + 1;
	return 0;
}

void epoch_close(struct epoch *ep)
{
	if (ep->word != NULL) {
		munmap((void *)ep->word, sizeof(*ep->word));
		close(ep->fd);
	}
	reset(ep);
}
