/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "service.h"
#include "util/log.h"

static void usage(FILE *f) {
        fputs("iommud [--config=FILE | --private=DIRECTORY]\n"
              "\n"
              "Brokers IOMMU domains and VFIO containers for programs that must not be root.\n"
              "\n"
              "  -c, --config=FILE        configuration (default " CONFIG_FILE ")\n"
              "  -p, --private=DIRECTORY  no configuration: software IOMMU, ledger and sockets below DIRECTORY,\n"
              "                           the caller is the one tenant; needs no privilege\n"
              "  -h, --help               this\n"
              "      --version            version\n"
              "\n"
              "Without an option and without " CONFIG_FILE ", DIRECTORY is $XDG_RUNTIME_DIR/iommud or /tmp/iommud-UID.\n"
              "See iommud(8), iommud.conf(5), iommuctl(1).\n",
              f);
}

/* A folder that is ours alone: in /tmp somebody else may have been there first. */
static int make_private(const char *path) {
        struct stat st;

        if (mkdir(path, 0700) < 0 && errno != EEXIST)
                return -errno;
        if (lstat(path, &st) < 0)
                return -errno;
        return S_ISDIR(st.st_mode) && st.st_uid == geteuid() ? 0 : -EPERM;
}

static int load_private(const char *path, struct config *config, struct refusal *r) {
        int e = make_private(path);

        if (e < 0)
                return refuse(r, REFUSAL_INTERNAL, "cannot use the folder %s: %s", path, strerror(-e));
        return config_embedded(path, config, r);
}

static int load_default(struct config *config, bool *ret_embedded, struct refusal *r) {
        const char *runtime = getenv("XDG_RUNTIME_DIR");
        char path[CONFIG_PATH_MAX];

        if (access(CONFIG_FILE, F_OK) == 0)
                return config_load(CONFIG_FILE, config, r);
        *ret_embedded = true;
        if (runtime && runtime[0] == '/')
                (void)snprintf(path, sizeof path, "%s/iommud", runtime);
        else
                (void)snprintf(path, sizeof path, "/tmp/iommud-%u", geteuid());
        return load_private(path, config, r);
}

int main(int argc, char **argv) {
        static const struct option options[] = {
                { "config", required_argument, NULL, 'c' }, { "private", required_argument, NULL, 'p' },
                { "help", no_argument, NULL, 'h' },         { "version", no_argument, NULL, 'V' },
                { NULL, 0, NULL, 0 },
        };
        const char *file = NULL, *directory = NULL;
        struct config config = { 0 };
        bool embedded = false;
        struct refusal r;
        int c, e;

        while ((c = getopt_long(argc, argv, "c:p:h", options, NULL)) != -1)
                switch (c) {
                case 'c':
                        file = optarg;
                        break;
                case 'p':
                        directory = optarg;
                        break;
                case 'h':
                        usage(stdout);
                        return EXIT_SUCCESS;
                case 'V':
                        puts("iommud " IOMMUD_VERSION);
                        return EXIT_SUCCESS;
                default:
                        usage(stderr);
                        return 2;
                }
        if (optind < argc || (file && directory)) {
                usage(stderr);
                return 2;
        }
        log_open("iommud");
        embedded = directory != NULL;
        e = file ? config_load(file, &config, &r)
                 : directory ? load_private(directory, &config, &r) : load_default(&config, &embedded, &r);
        if (e < 0) {
                log_error("%s", r.text);
                return EXIT_FAILURE;
        }
        log_set_max_level((int)config.log_level);
        e = service_run(&config, embedded);
        config_clear(&config);
        return e;
}
