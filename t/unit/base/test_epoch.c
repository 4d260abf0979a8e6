/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/epoch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/obj.h"

TestSuite(epoch);

Test(epoch, begins_at_nobody)
{
	struct epoch ep;

	cr_assert_eq(epoch_create(&ep), 0);
	cr_assert_eq(epoch_read(&ep), 0);
	cr_assert_not(epoch_mine(&ep), "nobody has raised it");
	cr_assert(fcntl(ep.fd, F_GETFD) & FD_CLOEXEC);
	epoch_close(&ep);
	cr_assert_null(ep.word);
	cr_assert_eq(ep.mine, 0);
	epoch_close(&ep);
}

Test(epoch, passes_with_the_raise)
{
	struct epoch a, b;

	cr_assert_eq(epoch_create(&a), 0);
	cr_assert_eq(epoch_raise(&a, 0), 0);
	cr_assert(epoch_mine(&a));
	cr_assert_eq(epoch_adopt(&b, dup(a.fd)), 0);
	cr_assert_eq(epoch_read(&b), 1);
	cr_assert_not(epoch_mine(&b), "adopting is not raising");
	cr_assert_eq(epoch_raise(&b, 0), -ESTALE);
	cr_assert_not(epoch_mine(&b));
	cr_assert(epoch_mine(&a), "a failed raise takes nothing away");
	cr_assert_eq(epoch_raise(&b, 1), 0);
	cr_assert(epoch_mine(&b));
	cr_assert_not(epoch_mine(&a));
	cr_assert_eq(epoch_read(&a), 2);
	cr_assert_eq(epoch_raise(&a, 1), -ESTALE);
	cr_assert_not(epoch_mine(&a));
	epoch_close(&a);
	cr_assert(epoch_mine(&b), "the word outlives the one who made it");
	epoch_close(&b);
}

Test(epoch, seen_by_another_process)
{
	struct epoch a, b;
	int status;
	pid_t pid;

	cr_assert_eq(epoch_create(&a), 0);
	cr_assert_eq(epoch_raise(&a, 0), 0);
	pid = fork();
	if (pid == 0)
		_exit(epoch_adopt(&b, dup(a.fd)) == 0 && epoch_raise(&b, 1) == 0 ? 0 : 1);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	cr_assert_not(epoch_mine(&a));
	cr_assert_eq(epoch_read(&a), 2);
	epoch_close(&a);
}

struct racer {
	pthread_t thread;
	pthread_barrier_t *start;
	struct epoch ep;
	int result;
};

static void *race(void *arg)
{
	struct racer *r = arg;

	pthread_barrier_wait(r->start);
	r->result = epoch_raise(&r->ep, 0);
	return NULL;
}

Test(epoch, one_of_many_wins)
{
	for (int round = 0; round < 50; round++) {
		struct racer racers[6];
		pthread_barrier_t start;
		struct epoch ep;
		int winners = 0;

		cr_assert_eq(epoch_create(&ep), 0);
		pthread_barrier_init(&start, NULL, ARRAY_LEN(racers));
		for (size_t i = 0; i < ARRAY_LEN(racers); i++) {
			racers[i].start = &start;
			cr_assert_eq(epoch_adopt(&racers[i].ep, dup(ep.fd)), 0);
			cr_assert_eq(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
		}
		for (size_t i = 0; i < ARRAY_LEN(racers); i++)
			pthread_join(racers[i].thread, NULL);
		for (size_t i = 0; i < ARRAY_LEN(racers); i++) {
			bool won = racers[i].result == 0;

			winners += won;
			cr_assert_eq(epoch_mine(&racers[i].ep), won);
			cr_assert(won || racers[i].result == -ESTALE);
			epoch_close(&racers[i].ep);
		}
		cr_assert_eq(winners, 1);
		cr_assert_eq(epoch_read(&ep), 1);
		pthread_barrier_destroy(&start);
		epoch_close(&ep);
	}
}

static void refused(int fd, int err)
{
	struct epoch ep;

	cr_assert_eq(epoch_adopt(&ep, fd), err);
	cr_assert_null(ep.word);
	cr_assert_eq(fcntl(fd, F_GETFD), -1, "the descriptor is taken over on failure too");
	epoch_close(&ep);
}

Test(epoch, refuses_what_is_no_epoch)
{
	int small, open_ended;

	refused(-1, -EBADF);
	refused(open("/dev/null", O_RDWR | O_CLOEXEC), -EINVAL);
	small = memfd_create("small", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	cr_assert_eq(ftruncate(small, 4), 0);
	cr_assert_eq(fcntl(small, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	refused(small, -EINVAL);
	/* Its peer could shrink this one under our mapping. */
	open_ended = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	cr_assert_eq(ftruncate(open_ended, 8), 0);
	refused(open_ended, -EINVAL);
}

Test(epoch, cannot_be_shrunk)
{
	struct epoch ep;

	cr_assert_eq(epoch_create(&ep), 0);
	cr_assert_eq(ftruncate(ep.fd, 0), -1);
	cr_assert_eq(errno, EPERM);
	epoch_close(&ep);
}

Test(epoch, never_wraps_to_nobody)
{
	struct epoch ep;

	cr_assert_eq(epoch_create(&ep), 0);
	atomic_store(ep.word, UINT64_MAX);
	cr_assert_eq(epoch_raise(&ep, UINT64_MAX), -EOVERFLOW);
	cr_assert_not(epoch_mine(&ep));
	epoch_close(&ep);
}

Test(epoch, without_a_word_there_is_no_rival)
{
	struct epoch ep = {.fd = -1};

	cr_assert(epoch_mine(&ep));
	cr_assert_eq(epoch_raise(&ep, 4), 0);
	cr_assert_eq(epoch_read(&ep), 5);
	cr_assert(epoch_mine(&ep));
	epoch_close(&ep);
}
