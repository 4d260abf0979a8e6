/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "base/units.h"
#include "cli/cli.h"

#define DEFAULT_TIMEOUT_NS (60 * NS_PER_S)

static const struct cli_command commands[] = {
    {"status", "", 0, 0, 0, false, cli_status,
	"Show the daemon, its storage, cache, load and last takeover."},
    {"conf get", "NAME", 1, 1, 0, false, cli_conf_get,
	"Print the value of a property, and nothing else."},
    {"conf list", "", 0, 0, 0, false, cli_conf_list,
	"List all properties with value, default, and whether they change live."},
    {"conf set", "NAME VALUE", 2, 2, 0, false, cli_conf_set,
	"Change a live property at once, and for later daemons of this mount."},
    {"fs ls", "[-R] PATH", 1, 1, CLI_RECURSIVE, false, cli_fs_ls,
	"List a namespace path: size, persistence state, time, kind, cached %, path."},
    {"fs stat", "PATH", 1, 1, 0, false, cli_fs_stat,
	"Show one namespace path in full."},
    {"fs load", "PATH", 1, 1, 0, false, cli_fs_load,
	"Fill the cache with a file or with all files of a tree.\n"
	"Exit code 0: all of it is on the cache disk.  Run again, it goes on."},
    {"fs free", "PATH", 1, 1, 0, false, cli_fs_free,
	"Drop a file or all files of a tree from the cache."},
    {"fs rm", "[-R] PATH", 1, 1, CLI_RECURSIVE, false, cli_fs_rm,
	"Remove a file, or with -R a tree.  Run again, it goes on."},
    {"fs explain", "PATH", 1, 1, 0, false, cli_fs_explain,
	"Show what decides about a file, where it is stored and where its pages are."},
    {"upgrade", "[--check] [--binary FILE] [-- FLAGS]", 0, 0, CLI_CHECK | CLI_BINARY, true,
	cli_upgrade,
	"Start a new daemon and let it take over; open files go on working.\n"
	"--check only says whether it would work.  FLAGS are added to the\n"
	"daemon's command line."},
    {"pathconfig show", "", 0, 0, 0, false, cli_pathconfig_show,
	"Print the path rules: which write policy each path has."},
    {"pathconfig edit", "", 0, 0, 0, false, cli_pathconfig_edit,
	"Change them in $EDITOR.  Files that are created from then on have the new ones."},
    {"pathconfig set", "FILE", 1, 1, 0, false, cli_pathconfig_set,
	"Set them from a file; - is the standard input."},
    {"pathconfig test", "--path PATH", 0, 1, CLI_PATH, false, cli_pathconfig_test,
	"Print the rule that decides about a namespace path."},
    {"async-persist list", "[--worker ID | --kept]", 0, 0, CLI_WORKER | CLI_KEPT, false, cli_persist_list,
	"List the files that were written and are not in the storage yet, of all\n"
	"machines or of the one that has the data.\n"
	"--kept: those that earlier mounts could not store, and were set aside."},
    {"async-persist stat", "--path PATH", 0, 1, CLI_PATH, false, cli_persist_stat,
	"Show one of them."},
    {"async-persist drain", "[--timeout TIME]", 0, 0, CLI_WAIT, false, cli_persist_drain,
	"Wait until there are none (but TRANSIENT ones).  Exit code 0 only then."},
    {"async-persist retry", "PATH | --kept PATH|NAME", 1, 1, CLI_KEPT, false, cli_persist_retry,
	"Upload a file whose upload has failed, now.\n"
	"--kept: one that an earlier mount could not store."},
    {"async-persist drop", "PATH | --kept PATH|NAME", 1, 1, CLI_KEPT, false, cli_persist_drop,
	"Throw away what was written to a file whose upload has failed.\n"
	"--kept: what an earlier mount could not store."},
    {"meta export", "FILE", 1, 1, 0, false, cli_meta_export,
	"Write the metadata store to a file, to move it to another back end.\n"
	"Refused while files are not in the storage, or the store is in use."},
    {"meta import", "FILE", 1, 1, 0, false, cli_meta_import,
	"Put what was exported into an empty metadata store.  Run again, it goes on."},
    {"umount", "[--drain TIME] [--force]", 0, 0, CLI_FORCE | CLI_DRAIN, false, cli_umount,
	"Unmount and end the daemon.  Refused while files are not in the storage:\n"
	"--drain waits so long for them; --force unmounts all the same, also if the\n"
	"mount is in use: those under a write policy are stored by the next mount,\n"
	"others are set aside (async-persist list --kept)."},
};

enum {
	OPT_JSON = 256,
	OPT_TIMEOUT,
	OPT_FORCE,
	OPT_CHECK,
	OPT_BINARY,
	OPT_PATH,
	OPT_DRAIN,
	OPT_WORKER,
	OPT_KEPT
};

static const struct option options[] = {
    {"mountpoint", required_argument, NULL, 'm'},
    {"socket", required_argument, NULL, 'S'},
    {"json", no_argument, NULL, OPT_JSON},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"recursive", no_argument, NULL, 'R'},
    {"force", no_argument, NULL, OPT_FORCE},
    {"check", no_argument, NULL, OPT_CHECK},
    {"binary", required_argument, NULL, OPT_BINARY},
    {"path", required_argument, NULL, OPT_PATH},
    {"drain", required_argument, NULL, OPT_DRAIN},
    {"worker", required_argument, NULL, OPT_WORKER},
    {"kept", no_argument, NULL, OPT_KEPT},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

enum cli_exit cli_error(const struct cli *c, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "batonfs: %s%s", c->words != NULL ? c->words : "",
	    c->words != NULL ? ": " : "");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return CLI_FAILURE;
}

static void usage(FILE *to)
{
	fprintf(to, "Usage: batonfs [-m MOUNTPOINT | -S SOCKET] [--json] [--timeout TIME] "
		    "COMMAND\n\n");
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		const struct cli_command *cmd = &commands[i];
		int first = (int)strcspn(cmd->help, "\n");

		fprintf(to, "  %s%s%s\n      %.*s\n", cmd->words, cmd->operands[0] ? " " : "",
		    cmd->operands, first, cmd->help);
	}
	fprintf(to, "\n"
		    "  -m, --mountpoint DIR  the mount that is meant; not needed if there is one\n"
		    "  -S, --socket PATH     the daemon's control socket\n"
		    "      --json            print the answer as one JSON object\n"
		    "      --timeout TIME    longest silence of the daemon (default 60s; 0: any)\n"
		    "  -h, --help            this text; after a command: about the command\n"
		    "  -V, --version         the version\n");
}

static void usage_of(FILE *to, const struct cli_command *cmd)
{
	fprintf(to, "Usage: batonfs %s%s%s\n%s\n", cmd->words, cmd->operands[0] ? " " : "",
	    cmd->operands, cmd->help);
}

static enum cli_exit misuse(const struct cli_command *cmd)
{
	if (cmd != NULL)
		usage_of(stderr, cmd);
	else
		fprintf(stderr, "Try `batonfs -h`.\n");
	return CLI_USAGE;
}

/* An option that getopt does not know, with the nearest that it does. */
static enum cli_exit unknown_option(const struct cli *c, char **argv)
{
	const char *word = argv[optind - 1];
	const struct option *best = options;

	if (optopt != 0 && optopt < 256) {
		cli_error(c, "unknown option -%c, or its argument is missing", optopt);
		return misuse(NULL);
	}
	if (optopt != 0) {
		cli_error(c, "%s: its argument is missing, or it takes none", word);
		return misuse(NULL);
	}
	word += strspn(word, "-");
	for (const struct option *o = options; o->name != NULL; o++)
		if (cli_distance(word, o->name) < cli_distance(word, best->name))
			best = o;
	cli_error(c, "unknown option --%s; the nearest is --%s", word, best->name);
	return misuse(NULL);
}

struct given {
	bool help, version;
};

/* -1: go on. */
static int parse_options(struct cli *c, struct given *g, int argc, char **argv)
{
	int ch;

	opterr = 0;
	while ((ch = getopt_long(argc, argv, "m:S:RVh", options, NULL)) != -1) {
		switch (ch) {
		case 'm':
			c->mountpoint = optarg;
			break;
		case 'S':
			c->socket = optarg;
			break;
		case OPT_JSON:
			c->json = true;
			break;
		case OPT_TIMEOUT:
			if (units_parse_duration(optarg, &c->timeout_ns) != 0) {
				cli_error(c, "--timeout %s: not a duration such as 500ms or 10s",
				    optarg);
				return CLI_USAGE;
			}
			c->drain_timeout = optarg;
			break;
		case 'R':
			c->seen |= CLI_RECURSIVE;
			break;
		case OPT_FORCE:
			c->seen |= CLI_FORCE;
			break;
		case OPT_CHECK:
			c->seen |= CLI_CHECK;
			break;
		case OPT_BINARY:
			c->seen |= CLI_BINARY;
			c->binary = optarg;
			break;
		case OPT_PATH:
			c->seen |= CLI_PATH;
			c->path_given = optarg;
			break;
		case OPT_DRAIN:
			c->seen |= CLI_DRAIN;
			c->drain_timeout = optarg;
			break;
		case OPT_WORKER:
			c->seen |= CLI_WORKER;
			c->worker = optarg;
			break;
		case OPT_KEPT:
			c->seen |= CLI_KEPT;
			break;
		case 'V':
			g->version = true;
			break;
		case 'h':
			g->help = true;
			break;
		default:
			return unknown_option(c, argv);
		}
	}
	if (c->mountpoint != NULL && c->socket != NULL) {
		cli_error(c, "-m and -S exclude each other");
		return CLI_USAGE;
	}
	return -1;
}

/* The row whose words the operands begin with; *used: how many words. */
static const struct cli_command *find_command(char **word, int n, int *used)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		const char *space = strchr(commands[i].words, ' ');
		size_t first = strcspn(commands[i].words, " ");

		if (strlen(word[0]) != first || strncmp(word[0], commands[i].words, first) != 0)
			continue;
		*used = space == NULL ? 1 : 2;
		if (space == NULL || (n > 1 && strcmp(word[1], space + 1) == 0))
			return &commands[i];
	}
	return NULL;
}

/* "conf" alone: the commands that begin with it. */
static bool usage_of_family(FILE *to, const char *word)
{
	size_t n = strlen(word);
	bool any = false;

	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strncmp(commands[i].words, word, n) == 0 && commands[i].words[n] == ' ') {
			usage_of(to, &commands[i]);
			any = true;
		}
	return any;
}

static enum cli_exit unknown_command(const struct cli *c, char **word, int n)
{
	const char *best = commands[0].words;
	char given[128];

	snprintf(given, sizeof(given), "%s%s%s", word[0], n > 1 ? " " : "", n > 1 ? word[1] : "");
	for (size_t i = 1; i < ARRAY_LEN(commands); i++) {
		bool two = strchr(commands[i].words, ' ') != NULL;
		unsigned d = cli_distance(two ? given : word[0], commands[i].words);

		if (d < cli_distance(strchr(best, ' ') != NULL ? given : word[0], best))
			best = commands[i].words;
	}
	cli_error(c, "unknown command \"%s\"; the nearest is \"%s\"",
	    strncmp(given, "fs", 2) == 0 || strncmp(given, "conf", 4) == 0 ? given : word[0], best);
	return misuse(NULL);
}

static enum cli_exit run(struct cli *c, const struct cli_command *cmd)
{
	unsigned extra = c->seen & ~cmd->options;

	c->words = cmd->words;
	if (extra != 0) {
		cli_error(c, "it has no option %s",
		    (extra & CLI_RECURSIVE) != 0 ? "-R"
		    : (extra & CLI_FORCE) != 0	 ? "--force"
		    : (extra & CLI_CHECK) != 0	 ? "--check"
		    : (extra & CLI_PATH) != 0	 ? "--path"
		    : (extra & CLI_DRAIN) != 0	 ? "--drain"
		    : (extra & CLI_KEPT) != 0	 ? "--kept"
						 : "--binary");
		return misuse(cmd);
	}
	/* How long to wait is there the daemon's to know. */
	if ((cmd->options & CLI_WAIT) != 0)
		c->timeout_ns = DEFAULT_TIMEOUT_NS;
	if (c->noperands < cmd->min || c->noperands > cmd->max) {
		cli_error(c, c->noperands < cmd->min ? "something is missing"
						     : "too many arguments");
		return misuse(cmd);
	}
	return cmd->fn(c);
}

int main(int argc, char **argv)
{
	struct cli c = {.timeout_ns = DEFAULT_TIMEOUT_NS};
	const struct cli_command *cmd;
	struct given g = {0};
	int ex, used, end = 1;

	/* Writing to a closed pipe is an error like others. */
	signal(SIGPIPE, SIG_IGN);
	while (end < argc && strcmp(argv[end], "--") != 0)
		end++;
	c.flags = argv + (end < argc ? end + 1 : argc);
	c.nflags = end < argc ? argc - end - 1 : 0;
	ex = parse_options(&c, &g, end, argv);
	if (ex >= 0)
		return ex;
	if (g.version) {
		printf("batonfs %s\n", PACKAGE_VERSION);
		return cli_flush(&c);
	}
	if (optind == end) {
		usage(g.help ? stdout : stderr);
		return g.help ? cli_flush(&c) : CLI_USAGE;
	}
	cmd = find_command(argv + optind, end - optind, &used);
	if (cmd == NULL && end - optind == 1 &&
	    usage_of_family(g.help ? stdout : stderr, argv[optind]))
		return g.help ? cli_flush(&c) : CLI_USAGE;
	if (cmd == NULL)
		return unknown_command(&c, argv + optind, end - optind);
	if (g.help) {
		usage_of(stdout, cmd);
		return cli_flush(&c);
	}
	c.operands = argv + optind + used;
	c.noperands = end - optind - used;
	if (!cmd->takes_flags && c.nflags > 0 && c.noperands == 0) {
		/* "--" before a path that begins with "-". */
		c.operands = c.flags;
		c.noperands = c.nflags;
	}
	return run(&c, cmd);
}
