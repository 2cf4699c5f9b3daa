/* SPDX-License-Identifier: Apache-2.0 */
#include "systemd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <systemd/sd-daemon.h>

#include "util/cleanup.h"
#include "util/log.h"

static const struct {
        const char *name;
        enum listener_role role;
} roles[] = {
        { "grpc", LISTENER_CLIENT },
        { "session", LISTENER_CLIENT_SESSION },
        { "operator", LISTENER_OPERATOR },
};

static int take(struct transport *t, int fd, const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(roles); i++)
                if (strcmp(name, roles[i].name) == 0)
                        return transport_add_listener(t, fd, roles[i].role, NULL);
        log_warning("the service manager passed a socket named '%s', which means nothing here: closed", name);
        fd_close(fd);
        return 0;
}

int systemd_take_sockets(struct transport *t, size_t *ret_n, const char **ret_name) {
        char **names = NULL;
        int n = sd_listen_fds_with_names(1, &names), r = 0;

        *ret_n = n > 0 ? (size_t)n : 0;
        *ret_name = "";
        for (int i = 0; i < n; i++) {
                if (r == 0 && (r = take(t, SD_LISTEN_FDS_START + i, names[i])) < 0)
                        for (size_t k = 0; k < ARRAY_SIZE(roles); k++)
                                if (strcmp(names[i], roles[k].name) == 0)
                                        *ret_name = roles[k].name;
                free(names[i]);
        }
        free(names);
        return n < 0 ? n : r;
}

void systemd_ready(const char *status) {
        sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void systemd_reloading(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, (uint64_t)t.tv_sec * 1000000U + (uint64_t)t.tv_nsec / 1000U);
}

void systemd_stopping(void) {
        sd_notify(0, "STOPPING=1");
}

int systemd_watchdog_ms(void) {
        uint64_t usec;

        return sd_watchdog_enabled(0, &usec) > 0 ? (int)(usec / 2000) : -1;
}

void systemd_alive(void) {
        sd_notify(0, "WATCHDOG=1");
}
