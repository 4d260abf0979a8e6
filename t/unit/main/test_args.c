/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "base/argv.h"

/* What is written to stderr is for people; it shall not spoil the test's output. */
static void quiet(void)
{
	cr_assert(freopen("/dev/null", "w", stderr) != NULL);
	cr_assert(freopen("/dev/null", "w", stdout) != NULL);
}

TestSuite(args, .init = quiet);

#define WORDS(...)                                                                                 \
	(char *[])                                                                                 \
	{                                                                                          \
		(char *)"batonfsd", __VA_ARGS__, NULL                                              \
	}

static int parse(struct args *a, char **words)
{
	int n = 0;

	while (words[n] != NULL)
		n++;
	optind = 0;
	return args_parse(a, n, words);
}

/* The plain command line with "|" between its words. */
static char *plain(char **words)
{
	struct args a;
	char *text = NULL;
	size_t len = 0;
	FILE *f;
	int i;

	cr_assert_eq(parse(&a, words), -1);
	f = open_memstream(&text, &len);
	for (i = 0; a.d.argv[i] != NULL; i++)
		fprintf(f, "%s%s", i > 0 ? "|" : "", a.d.argv[i]);
	fclose(f);
	cr_assert_eq(i, a.d.argc);
	argv_free(&a.d.argv);
	return text;
}

static void expect_plain(const char *want, char **words)
{
	char *got = plain(words);

	cr_assert_str_eq(got, want, "%s, not %s", got, want);
	free(got);
}

#define U (char *)"-u", (char *)"/=file:///s"

Test(args, plain_form_of_every_spelling)
{
	expect_plain("batonfsd|-u|/=file:///s|/m", WORDS(U, "/m"));
	expect_plain("batonfsd|-u|/=file:///s|/m", WORDS("/m", "--ufs=/=file:///s"));
	expect_plain("batonfsd|-u|/=file:///s|/m", WORDS("-u/=file:///s", "/m"));
	expect_plain("batonfsd|-u|/=file:///s|-m", WORDS(U, "--", "-m"));
	expect_plain("batonfsd|-f|-u|/=file:///s|-o|ro|-o|a,b=c|-s|a=b=c|-s|d=|/m",
	    WORDS("-fo", "ro", "-sa=b=c", "--set", "d=", "-f", "--options=a,b=c", U, "/m"));
	expect_plain("batonfsd|--log=syslog|--takeover=auto|--fuse-fd=7|-u|/=file:///s|/m",
	    WORDS(U, "--log", "stderr", "--takeover=never", "--takeover", "--fuse-fd", "7", "--log=syslog", "/m"));
}

Test(args, plain_form_parses_to_itself)
{
	char *want = plain(WORDS("-f", U, "-s", "a=b", "-c", "/etc/x", "--takeover=never", "-oro", "/m"));
	char *text = strdup(want), *save = NULL, *words[32];
	int n = 0;

	for (char *w = strtok_r(text, "|", &save); w != NULL; w = strtok_r(NULL, "|", &save))
		words[n++] = w;
	words[n] = NULL;
	expect_plain(want, words);
	free(text);
	free(want);
}

Test(args, relative_paths_become_absolute)
{
	cr_assert_eq(chdir("/usr/bin"), 0);
	expect_plain("batonfsd|-c|/usr/bin/a/../c.conf|-u|/=file:///s|/m",
	    WORDS("-c", "x", "-c", "a/../c.conf", U, "/m"));
	expect_plain("/usr/bin/./batonfsd|-u|/=file:///s|/m",
	    (char *[]){(char *)"./batonfsd", U, (char *)"/m", NULL});
	cr_assert_eq(chdir("/"), 0);
	expect_plain("batonfsd|-c|/c.conf|-u|/=file:///s|/m", WORDS("-c", "c.conf", U, "/m"));
}

Test(args, misuse_is_2_and_says_so)
{
	struct args a;

	cr_assert_eq(parse(&a, WORDS(U)), 2, "no mount point");
	cr_assert_eq(parse(&a, WORDS("/m")), 2, "no storage");
	cr_assert_eq(parse(&a, WORDS(U, "/m", "/n")), 2, "two mount points");
	cr_assert_eq(parse(&a, WORDS(U, "--takeover=perhaps", "/m")), 2);
	cr_assert_eq(parse(&a, WORDS(U, "--log=there", "/m")), 2);
	cr_assert_eq(parse(&a, WORDS(U, "--frobnicate", "/m")), 2);
	cr_assert_eq(parse(&a, WORDS(U, "/m", "-s")), 2, "an argument is missing");
	for (const char *const *fd = (const char *const[]){"", "x", "1x", "-1", "99999999999", NULL};
	     *fd != NULL; fd++)
		cr_assert_eq(parse(&a, WORDS(U, "--fuse-fd", (char *)(uintptr_t)*fd, "/m")), 2, "%s", *fd);
	cr_assert_eq(parse(&a, WORDS("-V")), 0);
	cr_assert_eq(parse(&a, WORDS("-h")), 0);
	cr_assert_eq(parse(&a, WORDS("--dump-options")), 0);
}

Test(args, too_many_are_refused)
{
	static char names[ARGS_MAX_LIST + 1][24];
	char *words[2 * ARGS_MAX_LIST + 8];
	struct args a;
	int n = 0;

	words[n++] = (char *)"batonfsd";
	for (int i = 0; i <= ARGS_MAX_LIST; i++) {
		snprintf(names[i], sizeof(names[i]), "name%d=1s", i);
		words[n++] = (char *)"-s";
		words[n++] = names[i];
	}
	words[n] = NULL;
	cr_assert_eq(parse(&a, words), 2);
}

/* Each upgrade puts its words behind those that were there. */
Test(args, what_is_overridden_does_not_pile_up)
{
	expect_plain("batonfsd|-u|/=file:///s|-o|rw|-o|ro|-s|ab=1|-s|a.b=5|-s|a=4|/m",
	    WORDS(U, "-s", "a=1", "-s", "a.b=2", "-s", "ab=1", "-o", "ro", "-s", "a=3", "-o", "rw", "-o",
		"ro", "-s", "a.b=5", "-s", "a=4", "/m"));
	expect_plain("batonfsd|-u|/=file:///s|-s|a=|-s|a|/m", WORDS(U, "-s", "a=", "-s", "a", "/m"));
}

Test(args, check_needs_no_mount_point)
{
	struct args a;

	cr_assert_eq(parse(&a, WORDS("--check", U)), -1);
	cr_assert(a.d.check);
	cr_assert_null(a.d.argv);
	cr_assert_eq(parse(&a, WORDS("--check", U, "/m")), -1);
	cr_assert_str_eq(a.d.argv[a.d.argc - 1], "/m");
	argv_free(&a.d.argv);
}

Test(args, settings_beat_the_file_and_the_last_one_wins)
{
	char file[] = "/tmp/batonfs-args-XXXXXX";
	int fd = mkstemp(file);
	struct errtext et = {""};
	struct config *cfg;
	struct args a;

	cr_assert(fd >= 0);
	cr_assert_eq(dprintf(fd, "ufs.timeout = 7s\n"), 17);
	close(fd);
	cr_assert_eq(parse(&a, WORDS(U, "-s", "ufs.timeout=8s", "-c", file, "-s", "ufs.timeout=9s", "/m")), -1);
	cfg = args_load_config(&a, &et);
	cr_assert_not_null(cfg, "%s", et.s);
	cr_assert_eq(cfg->ufs_timeout, 9000000000u);
	config_free(&cfg);
	argv_free(&a.d.argv);
	unlink(file);
	cr_assert_eq(parse(&a, WORDS(U, "-c", file, "/m")), -1);
	cr_assert_null(args_load_config(&a, &et));
	cr_assert_not_null(strstr(et.s, file), "%s", et.s);
	argv_free(&a.d.argv);
}
