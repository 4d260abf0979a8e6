/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

/* A message that fits needs no allocation. */
#define LOG_BUF 2048

static atomic_int log_level = LOG_LVL_INFO;
static const char *log_ident = "batonfs";
static enum log_target log_target = LOG_TO_STDERR;
static bool log_to_journal;
/* Lines given up because their reader did not keep up. */
static atomic_ulong log_lost;
static pthread_mutex_t syslog_lock = PTHREAD_MUTEX_INITIALIZER;
static int syslog_fd = -1;

static const struct {
	const char *word;
	int priority;
} level_table[] = {
    [LOG_LVL_ERROR] = {"error", LOG_ERR},
    [LOG_LVL_WARN] = {"warning", LOG_WARNING},
    [LOG_LVL_INFO] = {"info", LOG_INFO},
    [LOG_LVL_DEBUG] = {"debug", LOG_DEBUG},
};

/* The variable is inherited by programs whose stderr goes elsewhere, so the
 * device and inode that it names are compared with the descriptor's. */
static bool stderr_is_journal(void)
{
	const char *env = getenv("JOURNAL_STREAM");
	uintmax_t dev, ino;
	struct stat st;

	return env != NULL && sscanf(env, "%ju:%ju", &dev, &ino) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void log_open(const char *ident, enum log_target target)
{
	log_ident = ident;
	log_target = target;
	log_to_journal = target == LOG_TO_STDERR && stderr_is_journal();
}

/* --- syslog.  Not syslog(3): it waits for a logger that does not read, and so would
 * the file system.  Its datagrams are made here, and what is not taken is lost. */

static int syslog_connect(void)
{
	static const struct sockaddr_un sun = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};

	if (syslog_fd >= 0)
		close(syslog_fd);
	syslog_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return syslog_fd >= 0 ? connect(syslog_fd, (const struct sockaddr *)&sun, sizeof(sun)) : -1;
}

static bool syslog_send(const struct iovec *iov)
{
	struct msghdr mh = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = 2};
	bool sent;

	pthread_mutex_lock(&syslog_lock);
	sent = syslog_fd >= 0 && sendmsg(syslog_fd, &mh, MSG_NOSIGNAL) >= 0;
	/* A logger that was restarted has another socket. */
	if (!sent && (syslog_fd < 0 || (errno != EAGAIN && errno != EMSGSIZE)))
		sent = syslog_connect() == 0 && sendmsg(syslog_fd, &mh, MSG_NOSIGNAL) >= 0;
	pthread_mutex_unlock(&syslog_lock);
	return sent;
}

static bool syslog_line(enum log_level level, char *text)
{
	char head[128], when[32];
	time_t now = time(NULL);
	struct iovec iov[2];
	struct tm tm;
	int n;

	localtime_r(&now, &tm);
	strftime(when, sizeof(when), "%b %e %H:%M:%S", &tm);
	n = snprintf(head, sizeof(head), "<%d>%s %s[%d]: ", LOG_DAEMON | level_table[level].priority,
	    when, log_ident, (int)getpid());
	iov[0].iov_base = head;
	iov[0].iov_len = n < (int)sizeof(head) ? (size_t)n : sizeof(head) - 1;
	iov[1].iov_base = text;
	iov[1].iov_len = strlen(text);
	return syslog_send(iov);
}

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

bool log_wants(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

/* Names from storage and paths get into messages: one message stays one line. */
static void defuse(char *s)
{
	for (; *s != '\0'; s++) {
		if ((unsigned char)*s < ' ' || *s == '\177')
			*s = '?';
	}
}

static int format_head(enum log_level level, char *buf, size_t len)
{
	struct timespec ts;
	struct tm tm;
	char when[32];

	if (log_to_journal)
		return snprintf(buf, len, "<%d>", level_table[level].priority);
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	return snprintf(buf, len, "%s.%03ldZ %s[%d] %s: ", when, ts.tv_nsec / 1000000, log_ident,
	    (int)getpid(), level_table[level].word);
}

/* One call a line, so that lines of threads and processes do not mix.  A
 * terminal that is held or a full pipe must not hold the file system: if the
 * line cannot be taken now, it is counted and dropped. */
static bool write_line(enum log_level level, char *text)
{
	struct pollfd pfd = {.fd = STDERR_FILENO, .events = POLLOUT};
	char head[128], newline[] = "\n";
	struct iovec iov[3];
	ssize_t n;

	if (poll(&pfd, 1, 0) != 1 || (pfd.revents & POLLOUT) == 0 ||
	    (pfd.revents & (POLLERR | POLLNVAL)) != 0)
		return false;
	iov[0].iov_base = head;
	iov[0].iov_len = (size_t)format_head(level, head, sizeof(head));
	if (iov[0].iov_len >= sizeof(head))
		iov[0].iov_len = sizeof(head) - 1;
	iov[1].iov_base = text;
	iov[1].iov_len = strlen(text);
	iov[2].iov_base = newline;
	iov[2].iov_len = 1;
	do
		n = writev(STDERR_FILENO, iov, 3);
	while (n < 0 && errno == EINTR);
	return n >= 0;
}

static bool put_line(enum log_level level, char *text)
{
	return log_target == LOG_TO_SYSLOG ? syslog_line(level, text) : write_line(level, text);
}

static void put_or_count(enum log_level level, char *text)
{
	unsigned long lost = atomic_exchange(&log_lost, 0);
	char note[96];

	if (lost > 0) {
		snprintf(note, sizeof(note), "%lu log lines were lost: %s was not read", lost,
		    log_target == LOG_TO_SYSLOG ? "/dev/log" : "stderr");
		if (!put_line(LOG_LVL_WARN, note)) {
			atomic_fetch_add(&log_lost, lost + 1);
			return;
		}
	}
	if (!put_line(level, text))
		atomic_fetch_add(&log_lost, 1);
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char buf[LOG_BUF], *text = buf, *big = NULL;
	int saved = errno, n;
	va_list ap;

	if (!log_wants(level))
		return;
	va_start(ap, fmt);
	n = vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	if (n >= (int)sizeof(buf)) {
		big = malloc((size_t)n + 1);
		if (big != NULL) {
			va_start(ap, fmt);
			vsnprintf(big, (size_t)n + 1, fmt, ap);
			va_end(ap);
			text = big;
		} else {
			memcpy(buf + sizeof(buf) - sizeof("..."), "...", sizeof("..."));
		}
	} else if (n < 0) {
		snprintf(buf, sizeof(buf), "(message cannot be formatted: %s)", fmt);
	}
	defuse(text);
	put_or_count(level, text);
	free(big);
	errno = saved;
}
