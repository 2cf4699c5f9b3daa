/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A service that dies and another one that finds its disk, with the holder of test_core_harness.h:
 *
 *   crash(h); core_start(); come_back(h);  then the holder tells what it has. */
#include "test_core_harness.h"

/* ---- dying: the disk as it is now becomes the next service's, whatever the old one writes while it is taken down ---- */

static inline void copy_file(const char *from_dir, const char *to_dir, const char *name) {
        char from[192], to[192], buffer[65536];
        FILE *in, *out;
        size_t n;

        (void)snprintf(from, sizeof from, "%s/%s", from_dir, name);
        (void)snprintf(to, sizeof to, "%s/%s", to_dir, name);
        in = fopen(from, "re");
        if (!in)
                return;                 /* no such file, such as a WAL that is not there */
        out = fopen(to, "we");
        assert_non_null(out);
        while ((n = fread(buffer, 1, sizeof buffer, in)) > 0)
                assert_int_equal(fwrite(buffer, 1, n, out), n);
        fclose(in);
        assert_int_equal(fclose(out), 0);
}

static inline void crash(struct holder *h) {
        char disk[sizeof core.ledger_path];

        (void)snprintf(disk, sizeof disk, "%s/disk", core.directory);
        assert_int_equal(mkdir(disk, 0700), 0);
        copy_file(core.ledger_path, disk, "config.db");
        copy_file(core.ledger_path, disk, "config.db-wal");
        copy_file(core.ledger_path, disk, "state.db");
        copy_file(core.ledger_path, disk, "state.db-wal");
        h->session = session_unref(h->session);
        broker_stop(core.broker, false);
        core.broker = broker_free(core.broker);
        core.ledger = ledger_close(core.ledger);
        h->link = fd_close(h->link);
        strcpy(core.ledger_path, disk);
}

/* ---- coming back ---- */

static inline int connect_silently(struct holder *h) {
        char byte;

        assert_int_equal(send(h->child_control, "", 1, 0), 1);
        assert_int_equal(fdmsg_receive(h->child_control, &byte, 1, h->fds, 0), 1);
        return fd_steal(&h->fds[0]);
}

static inline void return_as(struct holder *h, const uint8_t secret[LINK_SECRET_BYTES]) {
        struct link_hello hello = { .session = h->setup.session, .pid = (uint32_t)h->child, .sandboxed = 1 };

        memcpy(hello.secret, secret, sizeof hello.secret);
        fd_close(h->link);
        h->link = connect_silently(h);
        holder_send(h, LINK_HELLO, 0, &hello, sizeof hello);
}

/* The holder is asked for its account. */
static inline void come_back(struct holder *h) {
        return_as(h, h->setup.secret);
        holder_expect(h, LINK_DUMP);
}

/* The session serves its client again. */
static inline bool is_back(struct holder *h) {
        struct refusal r;

        return session_authenticate(core.broker, h->token, &h->peer, &h->session, &r) == 0;
}

/* ---- what it has: messages of a dump, which holder_done() for its number ends ---- */

static inline void dump_memory(struct holder *h, uint64_t memory, uint64_t size) {
        const struct link_dump_memory m = { .memory = memory, .info = { .size = size, .page_size = PAGE, .dev = 1, .ino = 1,
                                                                        .sealed = !memory_is_unsealed, .writable = 1 } };

        holder_send(h, LINK_DUMP_MEMORY, 0, &m, sizeof m);
}

static inline void dump_send(struct holder *h, enum link_type type, uint64_t domain, size_t count, const void *payload,
                             size_t size) {
        static struct {
                struct link_header header;
                uint8_t payload[LINK_MESSAGE_MAX - sizeof(struct link_header)];
        } m;

        assert_true(size <= sizeof m.payload);
        m.header = (struct link_header){ .version = LINK_VERSION, .type = (uint16_t)type, .domain = domain,
                                         .count = (uint32_t)count };
        memcpy(m.payload, payload, size);
        assert_int_equal(fdmsg_send(h->link, &m, sizeof m.header + size, NULL, 0, 0), 0);
}

/* The domain, and its mappings: ascending, and any number of them. */
static inline void dump_domain(struct holder *h, uint64_t domain, const struct link_map_entry *mappings, size_t n) {
        const struct link_dump_domain d = { .mappings = n };

        dump_send(h, LINK_DUMP_DOMAIN, domain, 0, &d, sizeof d);
        for (size_t at = 0, batch; at < n; at += batch) {
                batch = n - at < LINK_BATCH_MAX ? n - at : LINK_BATCH_MAX;
                dump_send(h, LINK_DUMP_MAPPINGS, domain, batch, mappings + at, batch * sizeof *mappings);
        }
}
