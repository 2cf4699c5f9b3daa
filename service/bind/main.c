/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iommud-bind: changes the driver of a PCI device to vfio-pci and back, on behalf of the broker, which has no right to.
 * Started by the service manager for each connection (iommud-bind.socket, Accept=yes), serves one request and ends.
 */
#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <systemd/sd-daemon.h>

#include "bind/allow.h"
#include "bind/serve.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/size.h"

#define DEADLINE_SECONDS 10             /* less than core/bind_client.h waits */

static void usage(FILE *to) {
        fputs("Usage: iommud-bind --broker-user=NAME|--broker-uid=UID [--config=FILE] [--sysfs=DIRECTORY]\n"
              "\n"
              "Changes drivers of PCI devices for iommud. Started by iommud-bind.socket with the connection as\n"
              "descriptor 3. What it may touch: " ALLOW_FILE ", see iommud(8).\n", to);
}

static bool parse_uid(const char *text, uid_t *ret) {
        uint64_t number;

        if (!size_parse(text, &number) || number >= UINT32_MAX)
                return false;
        *ret = (uid_t)number;
        return true;
}

static bool find_user(const char *name, uid_t *ret) {
        const struct passwd *p = getpwnam(name);

        if (p)
                *ret = p->pw_uid;
        return p != NULL;
}

/* 0, 1 when all is done, 2 for wrong usage. */
static int parse_arguments(int argc, char **argv, struct serve_options *o) {
        static const struct option options[] = {
                { "broker-uid", required_argument, NULL, 'u' }, { "broker-user", required_argument, NULL, 'n' },
                { "config", required_argument, NULL, 'c' },     { "sysfs", required_argument, NULL, 's' },
                { "help", no_argument, NULL, 'h' },             { "version", no_argument, NULL, 'V' },
                { 0 },
        };
        bool known = false;
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case 'u':
                        if (!(known = parse_uid(optarg, &o->broker_uid))) {
                                fprintf(stderr, "iommud-bind: '%s' is not a uid\n", optarg);
                                return 2;
                        }
                        break;
                case 'n':
                        if (!(known = find_user(optarg, &o->broker_uid))) {
                                fprintf(stderr, "iommud-bind: there is no user '%s'\n", optarg);
                                return 2;
                        }
                        break;
                case 'c':
                        o->allow_file = optarg;
                        break;
                case 's':
                        o->tree.sysfs = optarg;
                        break;
                case 'h':
                        usage(stdout);
                        return 1;
                case 'V':
                        puts("iommud-bind " IOMMUD_VERSION);
                        return 1;
                default:
                        usage(stderr);
                        return 2;
                }
        if (!known || optind != argc || strlen(o->tree.sysfs) > 256) {
                usage(stderr);
                return 2;
        }
        return 0;
}

int main(int argc, char **argv) {
        struct serve_options o = { .tree = { .sysfs = "/sys" }, .allow_file = ALLOW_FILE, .broker_uid = (uid_t)-1,
                                   .deadline_seconds = DEADLINE_SECONDS };
        int r = parse_arguments(argc, argv, &o);

        if (r != 0)
                return r == 1 ? EXIT_SUCCESS : r;
        log_open("iommud-bind");
        if (sd_listen_fds(1) != 1 || sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_SEQPACKET, 0, NULL, 0) <= 0) {
                log_error("no connection was passed: this program is started by iommud-bind.socket");
                return 2;
        }
        r = serve_connection(&o, SD_LISTEN_FDS_START);
        if (r < 0)
                log_error("no answer given: %s", strerror(-r));
        fd_close(SD_LISTEN_FDS_START);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
