/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "holder/discard.h"
#include "holder/link.h"
#include "holder/sandbox.h"
#include "holder/serve.h"
#include "holder/setup.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"

/*
 * iommud-holder: owns the memory, containers and devices of one client (service/README.md). Its link to the broker is
 * fd 3, inherited from a broker that forks or from the service manager (Accept=yes), which pass it in the same place.
 */
#define LINK_FD 3
#define SETUP_TIMEOUT_MS 10000U

struct options {
        struct setup_options setup;
        uid_t broker_uid;
        bool discard;
};

static const char usage[] =
        "usage: iommud-holder [--uid-range=FIRST-LAST] [--cgroup-root=DIR] [--broker-uid=USER]\n"
        "                     [--reconnect-group=GROUP] [--discard]\n"
        "Started by iommud or its service manager, with the link to iommud as fd 3.\n";

/* --- arguments ----------------------------------------------------------------------------------------------------*/

/* A decimal id, up to `end`. UINT32_MAX means "no id" to the kernel and is none. */
static bool parse_id(const char *text, char end, uint32_t *ret, const char **ret_rest) {
        unsigned long long v;
        char *stop;

        if (*text < '0' || *text > '9')
                return false;
        errno = 0;
        v = strtoull(text, &stop, 10);
        if (errno != 0 || v >= UINT32_MAX || *stop != end)
                return false;
        *ret = (uint32_t)v;
        *ret_rest = stop;
        return true;
}

static bool parse_range(const char *text, struct setup_options *o) {
        const char *rest;

        o->has_uid_range = true;
        return parse_id(text, '-', &o->uid_first, &rest) && parse_id(rest + 1, '\0', &o->uid_last, &rest) &&
               o->uid_first > 0 && o->uid_first <= o->uid_last;
}

/* A number, or a name of this machine: units know names only. */
static bool parse_user(const char *text, uint32_t *ret) {
        const struct passwd *user;
        const char *rest;

        if (parse_id(text, '\0', ret, &rest))
                return true;
        user = getpwnam(text);
        if (user)
                *ret = user->pw_uid;
        return user != NULL;
}

static bool parse_group(const char *text, uint32_t *ret) {
        const struct group *group;
        const char *rest;

        if (parse_id(text, '\0', ret, &rest))
                return true;
        group = getgrnam(text);
        if (group)
                *ret = group->gr_gid;
        return group != NULL;
}

static bool parse_option(int c, const char *argument, struct options *o) {
        switch (c) {
        case 'u':
                return parse_range(argument, &o->setup);
        case 'c':
                o->setup.cgroup_root = argument;
                return argument[0] == '/';
        case 'b':
                return parse_user(argument, &o->broker_uid);
        case 'g':
                o->setup.has_reconnect_group = true;
                return parse_group(argument, &o->setup.reconnect_group);
        case 'd':
                o->discard = true;
                return true;
        default:
                return false;
        }
}

static int parse_arguments(int argc, char **argv, struct options *o) {
        static const struct option known[] = {
                { "uid-range", required_argument, NULL, 'u' },
                { "cgroup-root", required_argument, NULL, 'c' },
                { "broker-uid", required_argument, NULL, 'b' },
                { "reconnect-group", required_argument, NULL, 'g' },
                { "discard", no_argument, NULL, 'd' },
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, 'v' },
                { NULL, 0, NULL, 0 },
        };
        int c;

        while ((c = getopt_long(argc, argv, "", known, NULL)) >= 0) {
                if (c == 'h' || c == 'v') {
                        (void)fputs(c == 'h' ? usage : "iommud-holder " IOMMUD_VERSION "\n", stdout);
                        exit(EXIT_SUCCESS);
                }
                if (parse_option(c, optarg, o))
                        continue;
                if (c != '?')
                        (void)fprintf(stderr, "iommud-holder: '%s' does not fit its option\n", optarg);
                (void)fputs(usage, stderr);
                return -EINVAL;
        }
        return optind == argc ? 0 : -EINVAL;
}

/* --- the link's fd ------------------------------------------------------------------------------------------------*/

/* The service manager says how many fds it passes, and to whom; what is said to another process (a broker that was
 * activated itself and handed its environment on) is not for us. */
static int check_listen_fds(void) {
        const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
        bool ours = pid && strtoll(pid, NULL, 10) == getpid();

        if (ours && (!n || strcmp(n, "1") != 0)) {
                log_error("the service manager passed %s fds, not 1: is the socket Accept=yes?", n ? n : "no");
                return -EINVAL;
        }
        (void)unsetenv("LISTEN_PID");
        (void)unsetenv("LISTEN_FDS");
        (void)unsetenv("LISTEN_FDNAMES");
        return 0;
}

/* Of all that a holder may have inherited only the link and the standard streams are its business. */
static int prepare_fds(void) {
        int k = check_listen_fds();

        if (k < 0)
                return k;
        if (fcntl(LINK_FD, F_SETFD, FD_CLOEXEC) < 0) {
                log_error("there is no link on fd %d: iommud starts this program, nobody else", LINK_FD);
                return -errno;
        }
        (void)close_range(LINK_FD + 1, UINT_MAX, 0);
        return 0;
}

/* --- a session ----------------------------------------------------------------------------------------------------*/

/* 1: in the sandbox; 0: this build has none; or -errno. */
static int enter_sandbox(void) {
        int k = sandbox_enter();

        if (k == -EOPNOTSUPP) {
                log_warning("this is an instrumented build: it runs without its sandbox");
                return 0;
        }
        if (k < 0)
                log_error("the sandbox cannot be set up: %s", strerrordesc_np(-k));
        return k < 0 ? k : 1;
}

/* Becomes the tenant's, in the order in which privileges are needed. */
static int become(const struct setup_options *o, const struct link_setup *s, struct link_facts *ret) {
        int k;

        *ret = (struct link_facts){ .session = s->session, .orphan_seconds = s->orphan_seconds };
        memcpy(ret->secret, s->secret, sizeof ret->secret);
        memcpy(ret->reconnect, s->reconnect, sizeof ret->reconnect);
        if (s->cgroup[0] != '\0') {
                k = setup_join_cgroup(o->cgroup_root, s->cgroup);
                if (k < 0)
                        log_warning("cgroup %s cannot be joined, memory is charged elsewhere: %s", s->cgroup,
                                    strerrordesc_np(-k));
                ret->cgroup_joined = k == 0;
        }
        setup_limits(s);
        k = setup_identity(o, s);
        if (k < 0) {
                log_error("the holder's identity cannot be taken: %s", strerrordesc_np(-k));
                return k;
        }
        k = enter_sandbox();
        ret->sandboxed = k == 1;
        return k < 0 ? k : 0;
}

static int hold(const struct options *o, struct link *link) {
        struct link_setup setup;
        struct link_facts facts;
        struct serve *s;
        int k;

        k = link_receive_setup(link, SETUP_TIMEOUT_MS, &setup);
        if (k < 0) {
                log_error("no setup came from the broker: %s", strerrordesc_np(-k));
                return k;
        }
        FAILPOINT(holder_started);
        k = become(&o->setup, &setup, &facts);
        FAILPOINT(holder_sandboxed);
        if (k == 0)
                k = serve_new(link, &setup, &s);
        explicit_bzero(setup.secret, sizeof setup.secret);
        if (k < 0)
                return k;
        k = serve_run(s, &facts);
        serve_free(s);
        explicit_bzero(&facts, sizeof facts);
        return k;
}

static int discard(struct link *link) {
        int k;

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -errno;
        k = enter_sandbox();
        if (k < 0)
                return k;
        return discard_run(link_fd(link)) == EXIT_SUCCESS ? 0 : -EPROTO;
}

int main(int argc, char **argv) {
        struct options o = { .setup = { .cgroup_root = "/sys/fs/cgroup" }, .broker_uid = geteuid() };
        struct link *link;
        int k, fd = LINK_FD;

        log_open("iommud-holder");
        k = parse_arguments(argc, argv, &o);
        if (k < 0)
                return EXIT_FAILURE;
        (void)signal(SIGPIPE, SIG_IGN);
        k = prepare_fds();
        if (k == 0) {
                k = link_new(&fd, o.broker_uid, &link);
                if (k < 0)
                        log_error("fd %d is no link to the broker: %s", LINK_FD, strerrordesc_np(-k));
        }
        if (k < 0)
                return EXIT_FAILURE;
        k = o.discard ? discard(link) : hold(&o, link);
        link_free(link);
        return k == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
