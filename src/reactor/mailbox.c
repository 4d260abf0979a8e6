/* SPDX-License-Identifier: BSD-2-Clause */
#include "reactor/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/obj.h"
#include "reactor/loop.h"

STAILQ_HEAD(mail_list, mail);

struct mailbox {
	uint32_t magic;
#define MAILBOX_MAGIC 0x7a5c0003u
	int efd;
	struct loop_fd watch;
	bool delivering;
	bool lock_ok; /* the mutex exists */
	pthread_mutex_t lock;
	struct mail_list mails; /* under lock */
};

/* The eventfd is read before the list is taken: what is posted in between is
 * taken too, or finds the list empty and writes again.  Returns whether there
 * was any. */
static bool deliver(struct mailbox *mb)
{
	struct mail_list batch = STAILQ_HEAD_INITIALIZER(batch);
	struct mail *m;
	eventfd_t n;
	bool any;

	(void)eventfd_read(mb->efd, &n);
	pthread_mutex_lock(&mb->lock);
	STAILQ_CONCAT(&batch, &mb->mails);
	pthread_mutex_unlock(&mb->lock);
	any = !STAILQ_EMPTY(&batch);
	mb->delivering = true;
	while ((m = STAILQ_FIRST(&batch)) != NULL) {
		STAILQ_REMOVE_HEAD(&batch, link);
		m->fn(m);
	}
	mb->delivering = false;
	return any;
}

static void on_readable(struct loop_fd *lf, unsigned what)
{
	(void)what;
	deliver(container_of(lf, struct mailbox, watch));
}

int mailbox_new(struct mailbox **out, struct loop *lp)
{
	struct mailbox *mb;
	int err;

	*out = NULL;
	ALLOC_OBJ(mb, MAILBOX_MAGIC);
	if (mb == NULL)
		return -ENOMEM;
	STAILQ_INIT(&mb->mails);
	mb->efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (mb->efd < 0) {
		err = -errno;
		goto fail;
	}
	err = -pthread_mutex_init(&mb->lock, NULL);
	if (err < 0)
		goto fail;
	mb->lock_ok = true;
	err = loop_fd_init(&mb->watch, lp, mb->efd, on_readable);
	if (err < 0)
		goto fail;
	err = loop_fd_want(&mb->watch, LOOP_READ);
	if (err < 0)
		goto fail;
	*out = mb;
	return 0;
fail:
	mailbox_free(&mb);
	return err;
}

void mailbox_free(struct mailbox **mbp)
{
	struct mailbox *mb;

	TAKE_OBJ(mb, mbp, MAILBOX_MAGIC);
	assert(!mb->delivering);
	loop_fd_fini(&mb->watch);
	if (mb->lock_ok) {
		while (deliver(mb))
			;
		pthread_mutex_destroy(&mb->lock);
	}
	if (mb->efd >= 0)
		close(mb->efd);
	FREE_OBJ(mb);
}

void mailbox_post(struct mailbox *mb, struct mail *m)
{
	bool first;

	CHECK_OBJ(mb, MAILBOX_MAGIC);
	pthread_mutex_lock(&mb->lock);
	first = STAILQ_EMPTY(&mb->mails);
	STAILQ_INSERT_TAIL(&mb->mails, m, link);
	/* Inside the lock: once the loop has the mail, this thread is done with the
	 * mailbox.  Only an overflow could fail, and one post a delivery writes. */
	if (first)
		(void)eventfd_write(mb->efd, 1);
	pthread_mutex_unlock(&mb->lock);
}
