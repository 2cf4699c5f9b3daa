/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the service that does what the driver says (orders.h): a process of its own, so that it can be killed, and be another
 * user. It judges nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

#include "lib/edu.h"
#include "orders.h"
#include "transport/tsan.h"

#ifdef TRANSPORT_TSAN
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
        return "ignore_noninstrumented_modules=1 report_thread_leaks=0";
}
#endif

static struct iommud_client *client;
static struct iommud_domain *domains[DOMAINS];
static struct iommud_memory *memories[MEMORIES];
static struct iommud_attachment *devices[WORLD_DEVICES];

static int do_connect(const struct order *o) {
        const struct iommud_connect_options options = { .size = sizeof options, .directory = o->text, .client_name = "reference" };

        return iommud_connect(&options, &client);
}

static int do_close(void) {
        iommud_close(client);
        client = NULL;
        memset(domains, 0, sizeof domains);
        memset(memories, 0, sizeof memories);
        memset(devices, 0, sizeof devices);
        return 0;
}

static int do_domain(const struct order *o, struct report *r) {
        const struct iommud_domain_options options = {
                .size = sizeof options, .flush_mode = o->flags & 1 ? IOMMUD_FLUSH_LAZY : IOMMUD_FLUSH_STRICT
        };
        int k = iommud_domain_create_with(client, &options, &domains[o->domain]);

        r->id = k < 0 ? 0 : iommud_domain_id(domains[o->domain]);
        return k;
}

static int do_register(const struct order *o, int fd, struct report *r) {
        const struct iommud_memory_options options = { .size = sizeof options, .no_seal = (o->flags & OP_REGISTER_UNSEALED) != 0,
                                                       .read_only = (o->flags & OP_REGISTER_READ_ONLY) != 0 };
        int k = iommud_memory_import(client, fd, o->length, &options, &memories[o->memory]);

        r->id = k < 0 ? 0 : iommud_memory_id(memories[o->memory]);
        return k;
}

static int do_attach(const struct order *o) {
        int k = iommud_device_attach(domains[o->domain], o->text, &devices[o->device]);

        return k < 0 ? k : edu_enable(devices[o->device]);
}

static int do_map(const struct order *o, struct report *r) {
        const struct iommud_map_options options = { .size = sizeof options, .flags = o->flags, .chunk = o->chunk };
        struct iommud_map_result result = { .size = sizeof result };
        struct iommud_map_entry entries[OP_ELEMENTS];
        int k;

        for (uint32_t i = 0; i < o->n; i++)
                entries[i] = (struct iommud_map_entry){ .iova = o->e[i].iova, .memory = memories[o->e[i].memory],
                                                        .offset = o->e[i].offset, .length = o->e[i].length,
                                                        .access = (enum iommud_access)o->e[i].access };
        k = iommud_map_with(domains[o->domain], entries, o->n, &options, &result);
        r->iova = result.iova;
        r->mappings = result.mappings;
        r->locked_bytes = result.locked_bytes;
        r->table_bytes = result.table_bytes;
        return k;
}

static int do_unmap(const struct order *o, struct report *r) {
        const struct iommud_unmap_options options = { .size = sizeof options, .split = (enum iommud_split_policy)o->flags };
        struct iommud_unmap_entry entries[OP_ELEMENTS];

        for (uint32_t i = 0; i < o->n; i++)
                entries[i] = (struct iommud_unmap_entry){ .iova = o->e[i].iova, .length = o->e[i].length };
        return iommud_unmap_with(domains[o->domain], entries, o->n, &options, &r->bytes);
}

static int do_window(const struct order *o, struct report *r) {
        const struct iommud_window_options options = { .size = sizeof options, .length = o->length, .page_shift = o->flags,
                                                       .quota = o->limit };
        int k = iommud_window_create(domains[o->domain], &options, &r->windows[0]);

        r->id = k < 0 ? 0 : r->windows[0].id;
        return k;
}

static int describe_windows(const struct order *o, struct report *r) {
        struct iommud_window *list;
        size_t n;
        int k = iommud_window_query(domains[o->domain], &list, &n, NULL);

        if (k < 0)
                return k;
        r->n_windows = (uint32_t)n;
        memcpy(r->windows, list, (n < REPORT_WINDOWS ? n : REPORT_WINDOWS) * sizeof *list);
        iommud_window_list_free(list);
        return 0;
}

static int do_quotas(struct report *r) {
        size_t n = sizeof r->quotas / sizeof r->quotas[0];
        int k = iommud_quota_get(client, r->quotas, &n);

        r->n = (uint32_t)n;
        return k;
}

static int do_describe(const struct order *o, struct report *r) {
        struct iommud_mapping *list;
        size_t n;
        int k;

        r->info.size = sizeof r->info;
        k = iommud_domain_info(domains[o->domain], &r->info);
        if (k == 0)
                k = iommud_mapping_list(domains[o->domain], &list, &n);
        if (k < 0)
                return k;
        r->n = (uint32_t)n;
        memcpy(r->list, list, (n < MAPPINGS ? n : MAPPINGS) * sizeof *list);
        iommud_mapping_list_free(list);
        return describe_windows(o, r);
}

static int do_transfer(const struct order *o) {
        int k = 0;

        for (uint32_t i = 0; i < o->n && k == 0; i++) {
                const struct transfer *t = &o->transfers[i];

                k = edu_transfer_at(devices[o->device], t->iova, t->buffer, t->length, t->to_memory != 0);
        }
        return k;
}

static int do_capabilities(const struct order *o, struct report *r) {
        r->constraints.size = sizeof r->constraints;
        return iommud_capabilities(client, o->text[0] ? o->text : NULL, &r->constraints);
}

/* What has been closed is not there any more, also for the next one in its place. */
static int do_detach(const struct order *o) {
        int k = iommud_device_detach(devices[o->device]);

        if (k == 0)
                devices[o->device] = NULL;
        return k;
}

static int do_destroy(const struct order *o) {
        int k = iommud_domain_destroy(domains[o->domain]);

        if (k == 0)
                domains[o->domain] = NULL;
        return k;
}

static int do_unregister(const struct order *o) {
        int k = iommud_memory_close(memories[o->memory]);

        if (k == 0)
                memories[o->memory] = NULL;
        return k;
}

static int obey(const struct order *o, int fd, struct report *r) {
        switch (o->kind) {
        case ORDER_CONNECT:
                return do_connect(o);
        case ORDER_CLOSE:
                return do_close();
        case ORDER_DOMAIN:
                return do_domain(o, r);
        case ORDER_DESTROY:
                return do_destroy(o);
        case ORDER_REGISTER:
                return do_register(o, fd, r);
        case ORDER_UNREGISTER:
                return do_unregister(o);
        case ORDER_ATTACH:
                return do_attach(o);
        case ORDER_DETACH:
                return do_detach(o);
        case ORDER_MAP:
                return do_map(o, r);
        case ORDER_UNMAP:
                return do_unmap(o, r);
        case ORDER_UNMAP_ALL:
                return iommud_unmap_all(domains[o->domain], &r->bytes);
        case ORDER_SYNC:
                return iommud_domain_sync(domains[o->domain], &r->bytes);
        case ORDER_WINDOW:
                return do_window(o, r);
        case ORDER_UNWINDOW:
                return iommud_window_remove(domains[o->domain], o->window, (int)o->flags);
        case ORDER_QUOTAS:
                return do_quotas(r);
        case ORDER_DESCRIBE:
                return do_describe(o, r);
        case ORDER_TRANSFER:
                return do_transfer(o);
        case ORDER_CAPABILITIES:
                return do_capabilities(o, r);
        default:
                return -EINVAL;
        }
}

/* False: the driver is gone. */
static bool receive(struct order *o, int *ret_fd) {
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec data = { o, sizeof *o };
        struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
        struct cmsghdr *c;

        *ret_fd = -1;
        if (recvmsg(STDIN_FILENO, &m, MSG_CMSG_CLOEXEC) != sizeof *o)
                return false;
        c = CMSG_FIRSTHDR(&m);
        if (c && c->cmsg_type == SCM_RIGHTS)
                memcpy(ret_fd, CMSG_DATA(c), sizeof *ret_fd);
        return true;
}

int main(void) {
        static struct report r;
        static struct order o;
        int fd;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (receive(&o, &fd)) {
                memset(&r, 0, sizeof r);
                r.error.size = sizeof r.error;
                r.result = obey(&o, fd, &r);
                if (r.result < 0 && iommud_error_detail(&r.error) < 0)
                        snprintf(r.error.text, sizeof r.error.text, "without details");
                if (fd >= 0)
                        close(fd);
                if (send(STDIN_FILENO, &r, sizeof r, MSG_NOSIGNAL) != sizeof r)
                        break;
        }
        _exit(0);       /* without a word to the service: it sees to it */
}
