/* SPDX-License-Identifier: BSD-2-Clause */
/* A resolver that never answers: a name server that is a silent socket. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/units.h"
#include "http_rig.h"

TestSuite(http_resolver, .init = http_rig_up, .fini = http_rig_down);

static int black_hole(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(53) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char path[] = "/tmp/batonfs-resolv-XXXXXX";
	int conf, rc;

	inet_pton(AF_INET, "127.77.0.1", &sin.sin_addr);
	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) != 0 || unshare(CLONE_NEWNS) != 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
		close(fd);
		return -1;
	}
	conf = mkstemp(path);
	dprintf(conf, "nameserver 127.77.0.1\noptions timeout:30 attempts:1\n");
	close(conf);
	chmod(path, 0644);
	rc = mount(path, "/etc/resolv.conf", NULL, MS_BIND, NULL);
	unlink(path);
	if (rc != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

Test(http_resolver, hung_resolver)
{
	struct pollfd pfd = { .events = POLLIN };
	struct http_probe p, q;
	double t0;

	pfd.fd = black_hole();
	if (pfd.fd < 0)
		cr_skip_test("needs root and a mount namespace of its own");
	http_probe_url(&p, "http://hangs.batonfs.test/");
	http_probe_url(&q, "http://hangs-too.batonfs.test/");
	http_probe_start(&p);
	http_probe_start(&q);
	while (poll(&pfd, 1, 0) == 0)
		loop_turn(http_rig.lp, false);
	t0 = now_s();
	http_abort(&p.r);
	cr_assert_lt(now_s() - t0, 2.0, "the abort waited for the resolver");

	http_rig.cfg->ufs_connect_timeout = 100 * NS_PER_MS;
	http_probe_url(&p, "http://hangs-as-well.batonfs.test/");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_RESOLVE);
	http_free(&http_rig.h);
	cr_assert_lt(now_s() - t0, 4.0, "freeing waited for the resolver");
	cr_assert_eq(q.dones, 0);
	close(pfd.fd);
}
