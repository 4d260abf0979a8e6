/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "args.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/argv.h"
#include "base/obj.h"
#include "reactor/fuse_versions.h"

#define ARGS_DEFAULT_CONFIG SYSCONFDIR "/batonfs/batonfs.conf"

enum { ARG_TAKEOVER = 256, ARG_FUSE_FD, ARG_CHECK, ARG_DUMP, ARG_LOG };

static const struct option args_long[] = {
    {"config", required_argument, NULL, 'c'},
    {"ufs", required_argument, NULL, 'u'},
    {"set", required_argument, NULL, 's'},
    {"options", required_argument, NULL, 'o'},
    {"subtree", required_argument, NULL, 't'},
    {"foreground", no_argument, NULL, 'f'},
    {"takeover", optional_argument, NULL, ARG_TAKEOVER},
    {"fuse-fd", required_argument, NULL, ARG_FUSE_FD},
    {"check", no_argument, NULL, ARG_CHECK},
    {"dump-options", no_argument, NULL, ARG_DUMP},
    {"log", required_argument, NULL, ARG_LOG},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void args_help(void)
{
	printf("Usage: batonfsd [options] MOUNTPOINT\n"
	       "\n"
	       "Mount object storage or a directory; the daemon can be replaced while in use.\n"
	       "\n"
	       "  -u, --ufs PATH=URI        attach storage: /=s3://bucket/prefix, /=file:///srv/data\n"
	       "                            (repeatable, each at a path of its own)\n"
	       "  -t, --subtree PATH        mount only this part of the namespace\n"
	       "  -s, --set NAME=VALUE      set a property (see --dump-options); the last one wins\n"
	       "  -c, --config FILE         properties from FILE (default %s)\n"
	       "  -o OPT[,OPT]              mount options, as mount(8) has them\n"
	       "  -f, --foreground          stay in the foreground, log to stderr\n"
	       "      --takeover[=MODE]     auto: take a live daemon's mount over, else mount;\n"
	       "                            require: only take over; never: only mount\n"
	       "      --fuse-fd N           serve an open FUSE descriptor that is already mounted\n"
	       "      --log TARGET          stderr or syslog\n"
	       "      --check               check configuration and storage, mount nothing\n"
	       "      --dump-options        list every property with default, range and meaning\n"
	       "  -V, --version             version and libraries\n"
	       "  -h, --help                this text\n"
	       "\n"
	       "Example: batonfsd -u /=s3://bucket -s s3.endpoint=http://host:port /mnt\n"
	       "See batonfsd(8), batonfs.conf(5), batonfs(1).\n",
	    ARGS_DEFAULT_CONFIG);
}

static void args_version(void)
{
	char libs[256];

	printf("batonfsd %s\n%s\n", PACKAGE_VERSION, fuse_versions_text(libs, sizeof(libs)));
#ifdef BATONFS_SANITIZERS
	printf("sanitizers: %s\n", BATONFS_SANITIZERS);
#endif
}

static void args_dump_options(void)
{
	char range[256];
	size_t i;

	for (i = 0; i < option_count; i++) {
		const struct option_desc *od = &option_table[i];

		printf("%s\n    default: %s\n    value:   %s\n    change:  %s\n    %s\n", od->name,
		    od->def[0] != '\0' ? od->def : "(none)",
		    option_range_text(od, range, sizeof(range)),
		    od->when == OPT_LIVE ? "at any time (batonfs conf set)" : "at start", od->doc);
	}
}

static int args_usage(const char *what, const char *value, const char *want)
{
	fprintf(stderr, "batonfsd: %s %s: %s\nTry 'batonfsd --help'.\n", what, value, want);
	return DAEMON_EXIT_USAGE;
}

static int args_list_add(const char **list, unsigned *n, unsigned max, const char *what,
    const char *value)
{
	if (*n == max) {
		fprintf(stderr, "batonfsd: %s %s: more than %u of them\n", what, value, max);
		return DAEMON_EXIT_USAGE;
	}
	list[(*n)++] = value;
	return -1;
}

/* An upgrade adds to the words of before.  What the new one overrides, by its first `len`
 * bytes, does not stay, or many upgrades would make too many of them. */
static int args_list_replace(const char **list, unsigned *n, const char *what, const char *value,
    size_t len)
{
	unsigned i, kept = 0;

	for (i = 0; i < *n; i++)
		if (strncmp(list[i], value, len) != 0 || list[i][len] != value[len])
			list[kept++] = list[i];
	*n = kept;
	return args_list_add(list, n, ARGS_MAX_LIST, what, value);
}

static int args_takeover(struct args *a, const char *mode)
{
	static const struct {
		const char *word, *flag;
		enum daemon_takeover_mode mode;
	} modes[] = {
	    {"auto", "--takeover=auto", TAKEOVER_AUTO},
	    {"require", "--takeover=require", TAKEOVER_REQUIRE},
	    {"never", "--takeover=never", TAKEOVER_NEVER},
	    {"check", "--takeover=check", TAKEOVER_CHECK},
	};
	unsigned i;

	for (i = 0; i < ARRAY_LEN(modes); i++)
		if (mode == NULL || strcmp(mode, modes[i].word) == 0) {
			a->d.takeover = modes[i].mode;
			a->takeover_flag = modes[i].flag;
			return -1;
		}
	return args_usage("--takeover", mode, "must be auto, require or never");
}

static int args_option(struct args *a, int opt, const char *value)
{
	char *end;
	long n;

	switch (opt) {
	case 'c':
		a->config_file = value;
		return -1;
	case 'u':
		return args_list_add(a->d.ufs_specs, &a->d.nufs, DAEMON_MAX_UFS, "--ufs", value);
	case 's':
		return args_list_replace(a->settings, &a->nsettings, "--set", value,
		    strcspn(value, "="));
	case 'o':
		return args_list_replace(a->mount_opts, &a->nmount_opts, "-o", value,
		    strlen(value));
	case 't':
		a->d.subtree = value;
		return -1;
	case 'f':
		a->d.foreground = true;
		return -1;
	case ARG_TAKEOVER:
		return args_takeover(a, value);
	case ARG_FUSE_FD:
		errno = 0;
		n = strtol(value, &end, 10);
		if (errno != 0 || *end != '\0' || end == value || n < 0 || n > 1 << 20)
			return args_usage("--fuse-fd", value, "must be the number of an open descriptor");
		a->d.fuse_fd = (int)n;
		return -1;
	case ARG_CHECK:
		a->d.check = true;
		return -1;
	case ARG_DUMP:
		args_dump_options();
		return DAEMON_EXIT_OK;
	case ARG_LOG:
		if (strcmp(value, "stderr") != 0 && strcmp(value, "syslog") != 0)
			return args_usage("--log", value, "must be stderr or syslog");
		a->log = strcmp(value, "syslog") == 0 ? LOG_TO_SYSLOG : LOG_TO_STDERR;
		a->log_flag = a->log == LOG_TO_SYSLOG ? "--log=syslog" : "--log=stderr";
		return -1;
	case 'V':
		args_version();
		return DAEMON_EXIT_OK;
	case 'h':
		args_help();
		return DAEMON_EXIT_OK;
	default:
		fprintf(stderr, "Try 'batonfsd --help'.\n");
		return DAEMON_EXIT_USAGE;
	}
}

/* --- the command line in its plain form */

/* A relative path means nothing in another working directory; links stay, since what
 * they lead to may be changed on purpose. */
static char *args_absolute(const char *path)
{
	char *cwd, *out;

	if (path[0] == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	if (cwd == NULL)
		return errno == ENOMEM ? NULL : strdup(path);
	if (asprintf(&out, "%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, path) < 0)
		out = NULL;
	free(cwd);
	return out;
}

static int args_push_pairs(char ***argv, const char *flag, const char *const *values, unsigned n)
{
	int err = 0;

	for (unsigned i = 0; err == 0 && i < n; i++) {
		err = argv_push(argv, strdup(flag));
		if (err == 0)
			err = argv_push(argv, strdup(values[i]));
	}
	return err;
}

static int args_push_flags(const struct args *a, char ***argv)
{
	char fd[32];
	int err = 0;

	snprintf(fd, sizeof(fd), "--fuse-fd=%d", a->d.fuse_fd);
	if (a->d.foreground)
		err = argv_push(argv, strdup("-f"));
	if (err == 0 && a->log_flag != NULL)
		err = argv_push(argv, strdup(a->log_flag));
	if (err == 0 && a->takeover_flag != NULL)
		err = argv_push(argv, strdup(a->takeover_flag));
	if (err == 0 && a->d.fuse_fd >= 0)
		err = argv_push(argv, strdup(fd));
	if (err == 0 && a->config_file != NULL) {
		err = argv_push(argv, strdup("-c"));
		if (err == 0)
			err = argv_push(argv, args_absolute(a->config_file));
	}
	return err;
}

static int args_make_plain(struct args *a, const char *program, const char *mountpoint)
{
	char ***argv = &a->d.argv;
	int err;

	/* Without a slash it is looked for in PATH, in a restart too. */
	err = argv_push(argv,
	    strchr(program, '/') != NULL ? args_absolute(program) : strdup(program));
	if (err == 0)
		err = args_push_flags(a, argv);
	if (err == 0)
		err = args_push_pairs(argv, "-u", a->d.ufs_specs, a->d.nufs);
	if (err == 0 && a->d.subtree != NULL)
		err = args_push_pairs(argv, "-t", &a->d.subtree, 1);
	if (err == 0)
		err = args_push_pairs(argv, "-o", a->mount_opts, a->nmount_opts);
	if (err == 0)
		err = args_push_pairs(argv, "-s", a->settings, a->nsettings);
	if (err == 0)
		err = argv_push(argv, strdup(mountpoint));
	if (err != 0)
		argv_free(argv);
	for (a->d.argc = 0; a->d.argv != NULL && a->d.argv[a->d.argc] != NULL;)
		a->d.argc++;
	return err;
}

int args_parse(struct args *a, int argc, char **argv)
{
	int opt, ex;

	memset(a, 0, sizeof(*a));
	a->d.fuse_fd = -1;
	while ((opt = getopt_long(argc, argv, "c:u:s:o:t:fVh", args_long, NULL)) != -1) {
		ex = args_option(a, opt, optarg);
		if (ex >= 0)
			return ex;
	}
	if (optind == argc && a->d.check)
		return -1;
	if (optind + 1 != argc) {
		fprintf(stderr, "batonfsd: %s\nTry 'batonfsd --help'.\n",
		    optind == argc ? "a mount point is missing" : "more than one mount point");
		return DAEMON_EXIT_USAGE;
	}
	if (a->d.nufs == 0) {
		fprintf(stderr, "batonfsd: no storage to mount: add -u /=s3://BUCKET or "
				"-u /=file:///DIRECTORY\n");
		return DAEMON_EXIT_USAGE;
	}
	if (args_make_plain(a, argv[0], argv[optind]) != 0) {
		fprintf(stderr, "batonfsd: %s\n", strerror(ENOMEM));
		return DAEMON_EXIT_FAILURE;
	}
	return -1;
}

void args_forget_takeover(struct daemon_args *a)
{
	static const char name[] = "--takeover";
	int i, n = 0;

	for (i = 0; i < a->argc; i++) {
		char *w = a->argv[i];

		if (i > 0 && strncmp(w, name, sizeof(name) - 1) == 0 &&
		    (w[sizeof(name) - 1] == '\0' || w[sizeof(name) - 1] == '='))
			free(w);
		else
			a->argv[n++] = w;
	}
	a->argv[n] = NULL;
	a->argc = n;
}

struct config *args_load_config(const struct args *a, struct errtext *et)
{
	struct config *cfg = config_new();
	unsigned i;
	int err;

	if (cfg == NULL) {
		errtext_set(et, -ENOMEM, "%s", strerror(ENOMEM));
		return NULL;
	}
	err = config_load(cfg, a->config_file != NULL ? a->config_file : ARGS_DEFAULT_CONFIG, et);
	if (err == -ENOENT && a->config_file == NULL)
		err = errtext_set(et, 0, "%s", "");
	for (i = 0; err == 0 && i < a->nsettings; i++) {
		err = config_set_pair(cfg, a->settings[i], et);
		if (err != 0)
			errtext_prefix(et, err, "--set %s", a->settings[i]);
	}
	if (err == 0)
		err = config_validate(cfg, et);
	if (err != 0)
		config_free(&cfg);
	return cfg;
}
