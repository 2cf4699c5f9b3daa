/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "run.h"

/*
 * What a device reaches, page by page, by letting it read and write there. Reads go into the device's buffer, and from there out to
 * a page that it may write (the mailbox); then the buffer is written to the same pages. All of the memory that any client has must
 * then be byte for byte what the model says: that shows what arrived, at the right place, and that nothing else did.
 *
 * In each cell, bytes 0 to 255 are for reading (8 for each probe, so that aliases do not meet), 256 to 511 for writing, and
 * 512 to 767 for the mailbox.
 */
#define WRITES_AT (BUFFER_PROBES * 8)
#define MAILBOX_AT (2 * BUFFER_PROBES * 8)

struct spot {
        uint32_t page;
        struct translation is;
        uint64_t in_page;       /* offset of a cell */
};

struct probing {
        struct run *run;
        uint32_t client, domain, device, n;
        struct spot spots[BUFFER_PROBES];
        struct spot mailbox;
        bool has_mailbox;
        struct order order;
};

void probe_forget(struct run *r, uint32_t device) {
        r->devices[device].known = false;
}

/* ---- where ---- */

static bool add_spot(struct probing *p, uint32_t page) {
        struct run *r = p->run;

        if (page >= world_pages(&r->world) || p->n == r->world.probes || p->n == BUFFER_PROBES)
                return false;
        for (uint32_t i = 0; i < p->n; i++)
                if (p->spots[i].page == page)
                        return false;
        p->spots[p->n++] = (struct spot){ .page = page, .is = model_translate(&r->model, p->client, p->domain, page),
                                          .in_page = random_below(&r->random, CELLS_PER_PAGE) * model_cell_bytes(&r->model) };
        return true;
}

static bool differs(const struct probing *p, const struct model *before, uint32_t page) {
        struct translation now = model_translate(&p->run->model, p->client, p->domain, page), then = { 0 };

        if (before)
                then = model_translate(before, p->client, p->domain, page);
        return now.access != then.access || (now.access && (now.file != then.file || now.offset != then.offset));
}

/* Of the pages that changed the first and the last with their neighbours, and some between; then others. */
static void choose(struct probing *p, const struct model *before) {
        struct run *r = p->run;
        uint32_t n = world_pages(&r->world), first = n, last = 0, from = random_below(&r->random, n);

        for (uint32_t page = 0; page < n; page++)
                if (differs(p, before, page)) {
                        first = first == n ? page : first;
                        last = page;
                }
        if (first < n) {
                add_spot(p, first);
                add_spot(p, last);
                add_spot(p, last + 1);
                add_spot(p, first - 1);
        }
        for (uint32_t i = 0; i < n && first < n && p->n < r->world.probes / 2 + 2; i++)
                if (differs(p, before, (from + i) % n))
                        add_spot(p, (from + i) % n);
        for (uint32_t i = 0; i < 4 * BUFFER_PROBES; i++)
                add_spot(p, random_below(&r->random, n));
        for (uint32_t i = 0; i < n && !p->has_mailbox; i++) {
                p->mailbox = (struct spot){ .page = (from + i) % n,
                                            .is = model_translate(&r->model, p->client, p->domain, (from + i) % n) };
                p->has_mailbox = p->mailbox.is.access == IOMMUD_READ_WRITE;
        }
}

/* ---- what the memory is made to be, and must be ---- */

static uint8_t *at(uint8_t *memory, const struct spot *s, uint64_t offset) {
        return memory + s->is.offset + s->in_page + offset;
}

static void stamp(struct run *r, const struct spot *s, uint64_t offset) {
        uint64_t value = random_next(&r->random);

        memcpy(at(r->files[s->is.file].bytes, s, offset), &value, sizeof value);
        memcpy(at(r->files[s->is.file].shadow, s, offset), &value, sizeof value);
}

static uint64_t expected(const struct run *r, const struct spot *s, uint64_t offset) {
        uint64_t value;

        memcpy(&value, at(r->files[s->is.file].shadow, s, offset), sizeof value);
        return value;
}

static void expect(struct run *r, const struct spot *s, uint64_t offset, uint64_t value) {
        memcpy(at(r->files[s->is.file].shadow, s, offset), &value, sizeof value);
}

/* ---- transfers ---- */

static void transfer(struct probing *p, const struct spot *s, uint64_t offset, uint32_t buffer, uint32_t length, bool to_memory) {
        const struct world *w = &p->run->world;

        p->order.transfers[p->order.n++] = (struct transfer){ .iova = world_page_iova(w, s->page) + s->in_page + offset,
                                                              .length = length, .buffer = buffer, .to_memory = to_memory };
}

/* The buffer gets the mailbox's content, so that we know what is in it. */
static void fill_buffer(struct probing *p) {
        struct run *r = p->run;

        for (uint32_t i = 0; i < BUFFER_PROBES; i++) {
                stamp(r, &p->mailbox, MAILBOX_AT + 8 * i);
                r->devices[p->device].buffer[i] = expected(r, &p->mailbox, MAILBOX_AT + 8 * i);
        }
        transfer(p, &p->mailbox, MAILBOX_AT, 0, 8 * BUFFER_PROBES, false);
        r->devices[p->device].known = true;
}

/* Hardware exists that lets a device read what it may only write: nothing is promised there. */
static bool may_read_or_not(const struct run *r, const struct spot *s) {
        return r->world.kind != WORLD_SOFT && s->is.access == IOMMUD_WRITE;
}

static void plan_reads(struct probing *p) {
        uint64_t *buffer = p->run->devices[p->device].buffer;
        struct run *r = p->run;

        for (uint32_t i = 0; i < p->n; i++) {
                struct spot *s = &p->spots[i];

                if (may_read_or_not(r, s))
                        continue;
                if (s->is.access)
                        stamp(r, s, 8 * i);
                transfer(p, s, 8 * i, 8 * i, 8, false);
                if (s->is.access & IOMMUD_READ)
                        buffer[i] = expected(r, s, 8 * i);
        }
        transfer(p, &p->mailbox, MAILBOX_AT, 0, 8 * p->n, true);
        for (uint32_t i = 0; i < p->n; i++)
                expect(r, &p->mailbox, MAILBOX_AT + 8 * i, buffer[i]);
}

static void plan_writes(struct probing *p) {
        struct run *r = p->run;

        for (uint32_t i = 0; i < p->n; i++) {
                struct spot *s = &p->spots[i];
                bool writable = s->is.access & IOMMUD_WRITE;

                if (writable && !r->devices[p->device].known)
                        continue;
                if (s->is.access)
                        stamp(r, s, WRITES_AT + 8 * i);
                transfer(p, s, WRITES_AT + 8 * i, 8 * i, 8, true);
                if (writable)
                        expect(r, s, WRITES_AT + 8 * i, r->devices[p->device].buffer[i]);
        }
}

/* ---- the result ---- */

static bool explain(struct probing *p, uint32_t file, uint64_t offset) {
        const struct run *r = p->run;
        const uint64_t mailbox = p->mailbox.is.offset + MAILBOX_AT;
        uint64_t iova = 0;
        const char *what = "changed, which nothing explains; the last probe was of";

        if (p->has_mailbox && file == p->mailbox.is.file && offset >= mailbox && offset < mailbox + 8 * p->n) {
                iova = world_page_iova(&r->world, p->spots[(offset - mailbox) / 8].page);
                what = "is wrong after a device read at (result is there)";
        } else
                for (uint32_t i = 0; i < p->n; i++) {
                        const struct spot *s = &p->spots[i];
                        uint64_t mine = s->is.offset + s->in_page + WRITES_AT + 8 * i;

                        iova = world_page_iova(&r->world, s->page);
                        if (s->is.access && file == s->is.file && offset >= mine && offset < mine + 8) {
                                what = "is wrong after a device write at";
                                break;
                        }
                }
        return disagree(p->run, "client %u, domain %u: byte 0x%" PRIx64 " of file %u %s IOVA 0x%" PRIx64
                        " (the service's is 0x%02x, "
                                "the model's 0x%02x)", p->client, p->domain, offset, file, what, iova,
                        r->files[file].bytes[offset], r->files[file].shadow[offset]);
}

/* Blocked, a read leaves in the buffer what was there; or zeros, as QEMU's device does it. Which it was is in the mailbox. */
static void learn_blocked_reads(struct probing *p) {
        struct run *r = p->run;

        for (uint32_t i = 0; i < p->n; i++) {
                static const uint64_t zero = 0;

                if (p->spots[i].is.access != 0 ||
                    memcmp(at(r->files[p->mailbox.is.file].bytes, &p->mailbox, MAILBOX_AT + 8 * i), &zero, sizeof zero) != 0)
                        continue;
                expect(r, &p->mailbox, MAILBOX_AT + 8 * i, 0);
                r->devices[p->device].buffer[i] = 0;
        }
}

static bool check_memory(struct probing *p) {
        const struct run *r = p->run;
        uint64_t size = r->world.file_pages * r->world.page;

        for (uint32_t i = 0; i < FILES; i++)
                if (memcmp(r->files[i].bytes, r->files[i].shadow, size) != 0)
                        for (uint64_t k = 0; k < size; k++)
                                if (r->files[i].bytes[k] != r->files[i].shadow[k])
                                        return explain(p, i, k);
        return true;
}

static bool probe_with(struct run *r, uint32_t client, uint32_t domain, uint32_t device, const struct model *before) {
        struct probing p = { .run = r, .client = client, .domain = domain, .device = device,
                             .order = { .kind = ORDER_TRANSFER, .device = device } };
        const struct report *report;

        choose(&p, before);
        if (p.has_mailbox && !r->devices[device].known)
                fill_buffer(&p);
        if (p.has_mailbox)
                plan_reads(&p);
        plan_writes(&p);
        r->translations += p.order.n;
        report = crew_order(r, client, &p.order, -1);
        if (!report || report->result < 0)
                return disagree(r, "client %u cannot use device %u: %s", client, device,
                                report ? report->error.text : "it is gone");
        if (p.has_mailbox && r->world.kind != WORLD_SOFT)
                learn_blocked_reads(&p);
        return check_memory(&p);
}

bool probe(struct run *r, uint32_t client, uint32_t domain, const struct model *before) {
        uint32_t from = random_below(&r->random, r->world.n_devices);

        for (uint32_t i = 0; i < r->world.n_devices; i++) {
                uint32_t device = (from + i) % r->world.n_devices;

                if (r->model.devices[device].client == client && r->model.devices[device].domain == domain)
                        return probe_with(r, client, domain, device, before);
        }
        return true;
}
