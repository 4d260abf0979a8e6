/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/fault.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/clock.h"
#include "base/errtext.h"
#include "base/obj.h"
#include "base/units.h"

TestSuite(fault);

Test(fault, unarmed_points_do_nothing)
{
	struct errtext et;

	cr_assert_not(fault_armed);
	cr_assert_eq(FAULT("any.point"), 0);
	cr_assert_eq(fault_init(NULL, &et), 0);
	cr_assert_eq(fault_init("", &et), 0);
	cr_assert_not(fault_armed);
}

Test(fault, errno_at_every_visit)
{
	struct errtext et;

	cr_assert_eq(fault_init("ufs.read=errno:5", &et), 0);
	cr_assert(fault_armed);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(FAULT("ufs.read"), -5);
		cr_assert_eq(FAULT("ufs.rea"), 0);
		cr_assert_eq(FAULT("ufs.read.x"), 0);
	}
}

Test(fault, errno_at_one_visit)
{
	struct errtext et;

	cr_assert_eq(fault_init("a=errno:5@3,b=errno:28@1,a=errno:12@4", &et), 0);
	cr_assert_eq(FAULT("b"), -28);
	cr_assert_eq(FAULT("b"), 0);
	cr_assert_eq(FAULT("a"), 0);
	cr_assert_eq(FAULT("a"), 0);
	cr_assert_eq(FAULT("a"), -5);
	cr_assert_eq(FAULT("a"), -12);
	cr_assert_eq(FAULT("a"), 0);
}

Test(fault, the_first_due_rule_acts)
{
	cr_assert_eq(fault_init("a=errno:5@2,a=errno:28", NULL), 0);
	cr_assert_eq(FAULT("a"), -28);
	cr_assert_eq(FAULT("a"), -5);
	cr_assert_eq(FAULT("a"), -28);
}

Test(fault, a_new_text_replaces_the_old)
{
	cr_assert_eq(fault_init("a=errno:5@2", NULL), 0);
	cr_assert_eq(FAULT("a"), 0);
	cr_assert_eq(fault_init("a=errno:6@2", NULL), 0);
	cr_assert_eq(FAULT("a"), 0);
	cr_assert_eq(FAULT("a"), -6);
	cr_assert_eq(fault_init("", NULL), 0);
	cr_assert_not(fault_armed);
	cr_assert_eq(FAULT("a"), 0);
}

Test(fault, bad_texts_change_nothing_and_are_quoted)
{
	static const char *const bad[] = {"a", "a=", "=kill", "a=die", "a=kill@", "a=kill@0",
	    "a=kill@x", "a=kill@-1", "a=kill@1@2", "a=errno", "a=errno:", "a=errno:0", "a=errno:-5",
	    "a=errno:EIO", "a=errno:4096", "a=errno:99999999999999999999", "a=sleep",
	    "a=sleep:", "a=sleep:1", "a=sleep:1x", "a=Kill", "a=kill ", ",", ",a=kill", "a=kill,",
	    "a=kill,,b=kill", "a=kill;b=kill"};
	struct errtext et;

	cr_assert_eq(fault_init("keep=errno:7", &et), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		et.s[0] = '\0';
		cr_assert_eq(fault_init(bad[i], &et), -EINVAL, "\"%s\"", bad[i]);
		cr_assert_not_null(strstr(et.s, "is not of the form point=kill|stop|"), "%s", et.s);
		cr_assert(fault_armed);
		cr_assert_eq(FAULT("keep"), -7);
	}
	cr_assert_eq(fault_init("a=errno:1,bad one,c=kill", &et), -EINVAL);
	cr_assert_not_null(strstr(et.s, "\"bad one\""), "%s", et.s);
}

Test(fault, long_texts_are_no_trouble)
{
	char spec[8192], *p = spec;
	struct errtext et;

	memset(spec, 'x', 1000);
	strcpy(spec + 1000, "=kill");
	cr_assert_eq(fault_init(spec, &et), -EINVAL);
	for (int i = 0; i < 400; i++)
		p += sprintf(p, "%sp.%d=errno:%d", i > 0 ? "," : "", i, i + 1);
	cr_assert_eq(fault_init(spec, &et), 0, "%s", et.s);
	cr_assert_eq(FAULT("p.399"), -400);
}

/* What waitpid() says of a child that comes by point "p" twice. */
static int run_child(const char *spec, int options)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (fault_init(spec, NULL) != 0)
			_exit(90);
		fault_hit("p");
		fault_hit("p");
		_exit(77);
	}
	cr_assert_eq(waitpid(pid, &status, options), pid);
	if (WIFSTOPPED(status)) {
		int after;

		kill(pid, SIGCONT);
		cr_assert_eq(waitpid(pid, &after, 0), pid);
		cr_assert(WIFEXITED(after) && WEXITSTATUS(after) == 77);
	}
	return status;
}

Test(fault, actions_on_the_process)
{
	int status = run_child("p=kill@2", 0);

	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	status = run_child("p=kill@3", 0);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 77, "it came by only twice");
	status = run_child("p=exit", 0);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	status = run_child("p=stop@2", WUNTRACED);
	cr_assert(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
}

Test(fault, sleep_takes_its_time_and_is_no_error)
{
	uint64_t begin = clock_system.monotonic(&clock_system);

	cr_assert_eq(fault_init("p=sleep:30ms", NULL), 0);
	cr_assert_eq(FAULT("p"), 0);
	cr_assert_geq(clock_system.monotonic(&clock_system) - begin, 30 * NS_PER_MS);
}

Test(fault, until_waits_for_a_file_and_says_that_it_does)
{
	char dir[] = "/tmp/batonfs-fault-XXXXXX", spec[128], go[64], here[80];
	pid_t pid;
	int status;

	cr_assert_not_null(mkdtemp(dir));
	snprintf(go, sizeof(go), "%s/go", dir);
	snprintf(here, sizeof(here), "%s.here", go);
	snprintf(spec, sizeof(spec), "a=until:%s@2", go);
	cr_assert_eq(fault_init(spec, NULL), 0);
	cr_assert_eq(FAULT("a"), 0);
	cr_assert_neq(access(here, F_OK), 0, "not yet");
	pid = fork();
	if (pid == 0)
		_exit(FAULT("a"));
	while (access(here, F_OK) != 0)
		usleep(1000);
	cr_assert_eq(waitpid(pid, &status, WNOHANG), 0, "it waits");
	cr_assert_eq(mkdir(go, 0700), 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	rmdir(go);
	unlink(here);
	rmdir(dir);
}
