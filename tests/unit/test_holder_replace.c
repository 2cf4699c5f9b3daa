/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/*
 * Mappings go and others come in their place: wholly or not at all, whichever of the requests to the IOMMU fails, and what is
 * the same before and after is not touched. Over a scripted backend; the functions of backend/backend.h are defined here, so
 * that the real ones are not linked.
 */
#include "test_object_helpers.h"

#include <inttypes.h>

#include "holder/domain.h"
#include "util/log.h"

#define AT 0x100000ULL
#define GROUPS 2

/* --- the backend --------------------------------------------------------------------------------------------------*/

struct piece {
        uint64_t iova, length, offset;
        uint64_t access;                /* no padding: pieces are compared as bytes */
};

struct container {
        struct piece pieces[32];        /* by address */
        size_t n;
};

struct device {
        uint32_t nothing;
};

static struct {
        struct container *containers[GROUPS];
        size_t opened;
        unsigned requests;              /* maps and unmaps */
        unsigned fail, fail_for;        /* which of them fails, the first is 1, and how many do */
} fake;

static bool fails(struct refusal *r) {
        fake.requests++;
        if (fake.requests < fake.fail || fake.requests - fake.fail >= fake.fail_for)
                return false;
        refuse(r, REFUSAL_BACKEND_REFUSED, "as told");
        return true;
}

int container_open(struct backend_open *o, struct container **ret, struct refusal *r) {
        (void)o, (void)r;
        *ret = calloc(1, sizeof **ret);
        assert_non_null(*ret);
        assert_true(fake.opened < GROUPS);
        fake.containers[fake.opened++] = *ret;
        return 0;
}

struct container *container_close(struct container *c) {
        free(c);
        return NULL;
}

void container_info(const struct container *c, struct container_info *ret) {
        (void)c;
        *ret = (struct container_info){ .page_sizes = PAGE, .max_mappings = 100, .n_ranges = 1, .ranges = { { 0, UINT64_MAX } } };
}

int container_map(struct container *c, const struct backend_mapping *m, struct refusal *r) {
        size_t i;

        if (fails(r))
                return -1;
        assert_true(c->n < ARRAY_SIZE(c->pieces));
        for (i = c->n++; i > 0 && c->pieces[i - 1].iova > m->iova; i--)
                c->pieces[i] = c->pieces[i - 1];
        c->pieces[i] = (struct piece){ m->iova, m->length, m->offset, m->access };
        if (i > 0)
                assert_true(c->pieces[i - 1].iova + c->pieces[i - 1].length <= m->iova);
        if (i + 1 < c->n)
                assert_true(m->iova + m->length <= c->pieces[i + 1].iova);
        return 0;
}

int container_unmap(struct container *c, uint64_t iova, uint64_t length, struct refusal *r) {
        if (fails(r))
                return -1;
        for (size_t i = 0; i < c->n; i++)
                if (c->pieces[i].iova == iova && c->pieces[i].length == length) {
                        memmove(&c->pieces[i], &c->pieces[i + 1], (--c->n - i) * sizeof c->pieces[0]);
                        return 0;
                }
        fail_msg("0x%" PRIx64 " bytes at 0x%" PRIx64 " are unmapped, which are no piece", length, iova);
        return -1;
}

int container_unmap_all(struct container *c, struct refusal *r) {
        (void)r;
        c->n = 0;
        return 0;
}

int container_window_create(struct container *c, const struct backend_window *want, struct backend_window *ret,
                            struct refusal *r) {
        (void)c, (void)want, (void)ret, (void)r;
        fail_msg("a window is made");
        return -1;
}

int container_window_remove(struct container *c, uint64_t start, struct refusal *r) {
        (void)c, (void)start, (void)r;
        fail_msg("a window is removed");
        return -1;
}

int container_windows_reset(struct container *c, struct refusal *r) {
        (void)c, (void)r;
        fail_msg("windows are reset");
        return -1;
}

int container_revoker_fd(struct container *c, int *ret_fd, struct refusal *r) {
        (void)c, (void)r;
        *ret_fd = -1;
        return 0;
}

size_t container_windows(const struct container *c, struct backend_window ret[BACKEND_WINDOWS_MAX]) {
        (void)c, (void)ret;
        fail_msg("windows are listed");
        return 0;
}

int device_open(struct container *c, const char *name, struct device **ret, struct refusal *r) {
        (void)c, (void)name, (void)r;
        *ret = calloc(1, sizeof **ret);
        assert_non_null(*ret);
        return 0;
}

struct device *device_close(struct device *d) {
        free(d);
        return NULL;
}

int device_keeper_fd(struct device *d, int *ret_fd, struct refusal *r) {
        (void)d, (void)r;
        *ret_fd = -1;
        return 0;
}

int device_client_fd(struct device *d, int *ret_fd, enum device_fd_kind *ret_kind, struct refusal *r) {
        (void)d, (void)ret_fd, (void)ret_kind, (void)r;
        fail_msg("a device's fd is asked for");
        return -1;
}

/* --- the domain ---------------------------------------------------------------------------------------------------*/

struct fixture {
        struct objects *objects;
        struct domain *domain;
        struct container before[GROUPS];
};

static void detaching(void *userdata, uint64_t attachment, uint64_t seq) {
        (void)userdata, (void)attachment, (void)seq;
}

/* Two containers, and two objects of 16 pages. */
static void begin(struct fixture *f) {
        const struct domain_events events = { .detaching = detaching };
        const struct soft_personality soft = { 0 };

        memset(&fake, 0, sizeof fake);
        f->objects = objects_new(4);
        for (uint64_t id = 1; id <= 2; id++) {
                int fd = full_memfd(16 * PAGE);

                assert_done(try_register(f->objects, id, fd, 16 * PAGE, 0));
                close(fd);
        }
        f->domain = domain_new(1, f->objects, &soft, &events);
        for (uint32_t i = 1; i <= GROUPS; i++) {
                const struct link_attach a = { .attachment = i, .backend = BACKEND_SOFT, .group = i, .device = "d" };
                int fds[2] = { -1, -1 }, keeper;

                assert_int_equal(domain_attach(f->domain, &a, i, fds, &keeper, &last_refusal), 0);
        }
}

/* Without records that a failed undo leaves in use, nothing is. */
static void end(struct fixture *f, bool clean) {
        domain_free(f->domain);
        if (clean) {
                assert_done(try_unregister(f->objects, 1));
                assert_done(try_unregister(f->objects, 2));
        }
        objects_free(f->objects);
}

static struct link_map_entry entry(uint64_t page, uint64_t pages, uint64_t offset_page, uint32_t chunk_shift) {
        return (struct link_map_entry){ .iova = AT + page * PAGE, .length = pages * PAGE, .memory = 1,
                                        .offset = offset_page * PAGE, .access = READ_WRITE, .chunk_shift = chunk_shift };
}

static void map(struct fixture *f, const struct link_map_entry *e, size_t n) {
        bool undo_failed;

        assert_int_equal(domain_map(f->domain, e, n, &undo_failed, &last_refusal), 0);
}

/* All of what was mapped goes, and n others come. */
static bool replace(struct fixture *f, const struct link_map_entry *old, size_t n_old, const struct link_map_entry *new, size_t n,
                    bool *ret_undo_failed) {
        struct link_unmap_entry gone[4];

        for (size_t i = 0; i < n_old; i++)
                gone[i] = (struct link_unmap_entry){ old[i].iova, old[i].length };
        for (size_t i = 0; i < GROUPS; i++)
                f->before[i] = *fake.containers[i];
        fake.requests = 0;
        last_refusal = (struct refusal){ .reason = REFUSAL_NONE };
        return domain_replace(f->domain, gone, n_old, new, n, ret_undo_failed, &last_refusal) == 0;
}

static void assert_as_before(const struct fixture *f) {
        for (size_t i = 0; i < GROUPS; i++) {
                assert_int_equal(fake.containers[i]->n, f->before[i].n);
                assert_memory_equal(fake.containers[i]->pieces, f->before[i].pieces, f->before[i].n * sizeof(struct piece));
        }
}

static void assert_pieces(const struct piece *expected, size_t n) {
        for (size_t i = 0; i < GROUPS; i++) {
                assert_int_equal(fake.containers[i]->n, n);
                assert_memory_equal(fake.containers[i]->pieces, expected, n * sizeof *expected);
        }
}

#define PIECE(page, pages, offset_page) { AT + (page) * PAGE, (pages) * PAGE, (offset_page) * PAGE, READ_WRITE }

struct told {
        struct link_map_entry e[8];
        size_t n;
        bool quarantined;
};

static void see_domain(void *userdata, const struct link_dump_domain *m) {
        ((struct told *)userdata)->quarantined = m->quarantined;
}

static void see_attachment(void *userdata, const struct link_dump_attachment *m, const int *fds, size_t n_fds) {
        (void)userdata, (void)m, (void)fds, (void)n_fds;
}

static void see_mappings(void *userdata, const struct link_map_entry *e, size_t n) {
        struct told *t = userdata;

        for (size_t i = 0; i < n; i++)
                t->e[t->n++] = e[i];
}

static struct told dump(struct fixture *f) {
        struct told t = { .n = 0 };
        const struct domain_dump_sink sink = { .domain = see_domain, .attachment = see_attachment, .mappings = see_mappings,
                                               .userdata = &t };

        domain_dump(f->domain, &sink);
        return t;
}

/* --- promises -----------------------------------------------------------------------------------------------------*/

/* A hole in the middle of chunks: the pieces beside it are not asked for. */
static void what_stays_between_chunks_is_not_touched(void **state) {
        const struct link_map_entry old = entry(0, 8, 0, 12), new[] = { entry(0, 3, 0, 12), entry(5, 3, 5, 12) };
        const struct piece after[] = { PIECE(0, 1, 0), PIECE(1, 1, 1), PIECE(2, 1, 2),
                                       PIECE(5, 1, 5), PIECE(6, 1, 6), PIECE(7, 1, 7) };
        struct fixture f;
        bool undo_failed;

        (void)state;
        begin(&f);
        map(&f, &old, 1);
        assert_true(replace(&f, &old, 1, new, 2, &undo_failed));
        assert_int_equal(fake.requests, 2 * GROUPS);
        assert_pieces(after, ARRAY_SIZE(after));
        assert_int_equal(dump(&f).n, 2);
        end(&f, true);
}

/* Where pieces would have other borders, all of it is made anew. */
static void other_borders_are_other_pieces(void **state) {
        const struct link_map_entry old = entry(0, 8, 0, 13), new = entry(1, 7, 1, 13);
        const struct piece after[] = { PIECE(1, 2, 1), PIECE(3, 2, 3), PIECE(5, 2, 5), PIECE(7, 1, 7) };
        struct fixture f;
        bool undo_failed;

        (void)state;
        begin(&f);
        map(&f, &old, 1);
        assert_true(replace(&f, &old, 1, &new, 1, &undo_failed));
        assert_pieces(after, ARRAY_SIZE(after));
        end(&f, true);
}

/* An end that lies within a piece makes it another one. */
static void so_does_an_end_within_a_piece(void **state) {
        const struct link_map_entry old = entry(0, 8, 0, 13), new = entry(0, 5, 0, 13);
        const struct piece after[] = { PIECE(0, 2, 0), PIECE(2, 2, 2), PIECE(4, 1, 4) };
        struct fixture f;
        bool undo_failed;

        (void)state;
        begin(&f);
        map(&f, &old, 1);
        assert_true(replace(&f, &old, 1, &new, 1, &undo_failed));
        assert_pieces(after, ARRAY_SIZE(after));
        end(&f, true);
}

/* The same range with other memory, another offset, or other access is another mapping. */
static void the_same_range_is_not_the_same_mapping(void **state) {
        const struct link_map_entry old = entry(0, 4, 0, 0);
        struct link_map_entry new[3] = { old, old, old };
        bool undo_failed;

        (void)state;
        new[0].memory = 2;
        new[1].offset = PAGE;
        new[2].access = BACKEND_ACCESS_READ;
        for (size_t i = 0; i < ARRAY_SIZE(new); i++) {
                const struct piece after = { AT, 4 * PAGE, new[i].offset, new[i].access };
                struct fixture f;

                begin(&f);
                map(&f, &old, 1);
                assert_true(replace(&f, &old, 1, &new[i], 1, &undo_failed));
                assert_int_equal(fake.requests, 2 * GROUPS);
                assert_pieces(&after, 1);
                assert_int_equal(dump(&f).e[0].memory, new[i].memory);
                end(&f, true);
        }
}

/* What is refused before the IOMMU hears of it changes no record. */
static void a_refused_record_changes_nothing(void **state) {
        const struct link_map_entry old[] = { entry(0, 4, 0, 0), entry(8, 4, 8, 0) };
        const struct link_map_entry new[] = { entry(0, 2, 0, 0), entry(7, 2, 7, 0) };   /* the second lies over old[1] */
        struct fixture f;
        bool undo_failed;
        struct told t;

        (void)state;
        begin(&f);
        map(&f, old, 2);
        assert_false(replace(&f, &old[0], 1, new, 2, &undo_failed));
        assert_refused(last_refusal.reason, OVERLAP);
        assert_int_equal(last_refusal.element, 2);
        assert_false(undo_failed);
        assert_int_equal(fake.requests, 0);
        t = dump(&f);
        assert_int_equal(t.n, 2);
        assert_memory_equal(t.e, old, sizeof old);
        end(&f, true);
}

/* Two mappings that are cut, one in chunks, and a third that comes: every kind of step, in two containers. */
static const struct link_map_entry many_old[] = {
        { .iova = AT, .length = 6 * PAGE, .memory = 1, .access = READ_WRITE, .chunk_shift = 12 },
        { .iova = AT + 8 * PAGE, .length = 4 * PAGE, .memory = 2, .offset = PAGE, .access = READ_WRITE },
};
static const struct link_map_entry many_new[] = {
        { .iova = AT + 8 * PAGE, .length = PAGE, .memory = 2, .offset = PAGE, .access = READ_WRITE },
        { .iova = AT, .length = 2 * PAGE, .memory = 1, .access = READ_WRITE, .chunk_shift = 12 },
        { .iova = AT + 11 * PAGE, .length = PAGE, .memory = 2, .offset = 4 * PAGE, .access = READ_WRITE },
        { .iova = AT + 4 * PAGE, .length = 3 * PAGE, .memory = 1, .offset = 8 * PAGE, .access = READ_WRITE, .chunk_shift = 12 },
};

static void whichever_request_fails_everything_is_as_before(void **state) {
        unsigned failed = 0;
        bool done = false;

        (void)state;
        for (unsigned i = 1; !done; i++) {
                struct fixture f;
                bool undo_failed;

                begin(&f);
                map(&f, many_old, ARRAY_SIZE(many_old));
                fake.fail = i;
                fake.fail_for = 1;
                done = replace(&f, many_old, ARRAY_SIZE(many_old), many_new, ARRAY_SIZE(many_new), &undo_failed);
                assert_false(undo_failed);
                if (!done) {
                        struct told t = dump(&f);

                        assert_refused(last_refusal.reason, BACKEND_REFUSED);
                        assert_as_before(&f);
                        assert_false(t.quarantined);
                        assert_int_equal(t.n, ARRAY_SIZE(many_old));
                        assert_memory_equal(t.e, many_old, sizeof many_old);
                        failed++;
                        fake.fail = 0;          /* and it can be done yet */
                        assert_true(replace(&f, many_old, ARRAY_SIZE(many_old), many_new, ARRAY_SIZE(many_new), &undo_failed));
                }
                assert_int_equal(dump(&f).n, ARRAY_SIZE(many_new));
                end(&f, true);
        }
        assert_int_equal(failed, GROUPS * (5 + 5));     /* pieces that go, pieces that come */
}

/* I9, I12: when undoing fails too, that is said, nothing new is taken, and no memory that may be reached is given back. */
static void what_cannot_be_undone_is_quarantined(void **state) {
        bool done = false;

        (void)state;
        for (unsigned i = 1; !done; i++) {
                const struct link_map_entry other = entry(32, 1, 0, 0);
                struct fixture f;
                bool undo_failed, ignored;

                begin(&f);
                map(&f, many_old, ARRAY_SIZE(many_old));
                fake.fail = i;
                fake.fail_for = UINT32_MAX;
                done = replace(&f, many_old, ARRAY_SIZE(many_old), many_new, ARRAY_SIZE(many_new), &undo_failed);
                assert_int_equal(undo_failed, !done && i > 1);  /* before the first there is nothing to undo */
                assert_int_equal(dump(&f).quarantined, undo_failed);
                fake.fail = 0;
                if (undo_failed) {
                        assert_int_equal(domain_map(f.domain, &other, 1, &ignored, &last_refusal), -1);
                        assert_refused(last_refusal.reason, DOMAIN_QUARANTINED);
                        assert_refused(try_unregister(f.objects, 1), IN_USE);
                        assert_refused(try_unregister(f.objects, 2), IN_USE);
                }
                end(&f, !undo_failed);
        }
}

/* Memory that came with the replacement alone, and could not be taken out again: no record tells of it, and it is kept. */
static void memory_that_stays_in_the_iommu_is_kept(void **state) {
        const struct link_map_entry old = entry(0, 2, 0, 0);
        struct link_map_entry new = entry(0, 2, 0, 12);         /* two pieces in each container */
        struct fixture f;
        bool undo_failed;

        (void)state;
        new.memory = 2;
        begin(&f);
        map(&f, &old, 1);
        fake.fail = GROUPS + 2;
        fake.fail_for = UINT32_MAX;
        assert_false(replace(&f, &old, 1, &new, 1, &undo_failed));
        assert_true(undo_failed);
        assert_int_equal(fake.containers[0]->n + fake.containers[1]->n, 1);
        assert_refused(try_unregister(f.objects, 2), IN_USE);
        end(&f, false);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_stays_between_chunks_is_not_touched),
                cmocka_unit_test(other_borders_are_other_pieces),
                cmocka_unit_test(so_does_an_end_within_a_piece),
                cmocka_unit_test(the_same_range_is_not_the_same_mapping),
                cmocka_unit_test(a_refused_record_changes_nothing),
                cmocka_unit_test(whichever_request_fails_everything_is_as_before),
                cmocka_unit_test(what_cannot_be_undone_is_quarantined),
                cmocka_unit_test(memory_that_stays_in_the_iommu_is_kept),
        };

        log_set_max_level(LOG_EMERG);   /* failures on purpose say much */
        return cmocka_run_group_tests(tests, NULL, NULL);
}
