/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* Windows of a domain, and what revokes its containers after the holder, over a scripted IOMMU that has two places for windows,
 * fills the first free one, and fails on demand. The functions of backend/backend.h are defined here, so that the real ones are
 * not linked. */
#include "test_object_helpers.h"

#include "holder/domain.h"

/* --- the backend --------------------------------------------------------------------------------------------------*/

#define LOW UINT64_C(0)
#define HIGH UINT64_C(0x800000000000000)
#define SIZE UINT64_C(0x40000000)

struct container {
        struct backend_window windows[2];
        size_t n, n_mappings, devices;
        uint64_t mapped[16];
        int number;                     /* in order of opening */
};

struct device {
        struct container *container;
};

static struct {
        int opened, open_containers;
        struct container *containers[8];
        int fail_create_in, fail_remove_in, fail_reset_in, fail_unmap_in;       /* number of a container; -1: none */
        bool reset_fails_half_way;
        bool has_revoker, fail_revoker;
        char order[8][16];              /* what was done to windows, and where */
        size_t n_order;
} fake;

static const struct backend_window initial = { .start = LOW, .size = SIZE, .page_shift = 12, .levels = 1 };

static void note(char what, uint64_t start) {
        if (fake.n_order < 8)
                (void)snprintf(fake.order[fake.n_order++], sizeof fake.order[0], "%c%s", what, start == LOW ? "low" : "high");
}

int container_open(struct backend_open *o, struct container **ret, struct refusal *r) {
        struct container *c = calloc(1, sizeof *c);

        (void)o;
        (void)r;
        assert_non_null(c);
        c->windows[c->n++] = initial;
        c->number = fake.opened++;
        fake.containers[c->number] = c;
        fake.open_containers++;
        *ret = c;
        return 0;
}

struct container *container_close(struct container *c) {
        if (c) {
                fake.containers[c->number] = NULL;
                fake.open_containers--;
                free(c);
        }
        return NULL;
}

void container_info(const struct container *c, struct container_info *ret) {
        (void)c;
        *ret = (struct container_info){ .page_sizes = 4096, .max_mappings = UINT32_MAX, .n_ranges = 1,
                                        .ranges = { { 0, UINT64_MAX } },
                                        .windows = { .page_sizes = 1 << 12 | 1 << 16, .largest = SIZE, .max_windows = 2,
                                                     .levels_max = 1, .levels_default = 1, .initial = initial } };
}

static size_t window_of(const struct container *c, uint64_t iova) {
        size_t i = 0;

        while (i < c->n && (iova < c->windows[i].start || iova - c->windows[i].start >= c->windows[i].size))
                i++;
        return i;
}

int container_map(struct container *c, const struct backend_mapping *m, struct refusal *r) {
        if (window_of(c, m->iova) == c->n)
                return refuse(r, REFUSAL_NO_WINDOW, "no window");
        assert_int_equal(m->memory_page, PAGE);
        assert_non_null(m->object_vaddr);
        c->mapped[c->n_mappings++] = m->iova;
        return 0;
}

int container_unmap(struct container *c, uint64_t iova, uint64_t length, struct refusal *r) {
        (void)length;
        if (fake.fail_unmap_in == c->number)
                return refuse(r, REFUSAL_BACKEND_REFUSED, "as told");
        for (size_t i = 0; i < c->n_mappings; i++)
                if (c->mapped[i] == iova) {
                        c->mapped[i] = c->mapped[--c->n_mappings];
                        return 0;
                }
        fail_msg("unmap of what is not mapped");
        return -1;
}

int container_unmap_all(struct container *c, struct refusal *r) {
        (void)r;
        c->n_mappings = 0;
        return 0;
}

int container_window_create(struct container *c, const struct backend_window *want, struct backend_window *ret,
                            struct refusal *r) {
        uint64_t start = window_of(c, LOW) == c->n ? LOW : HIGH;

        if (fake.fail_create_in == c->number)
                return refuse(r, REFUSAL_BACKEND_REFUSED, "as told");
        if (c->n == 2)
                return refuse(r, REFUSAL_WINDOW_LIMIT, "two");
        if (want->start != WINDOW_ANYWHERE && want->start != start)
                return refuse(r, REFUSAL_OUTSIDE_APERTURE, "it would be elsewhere");
        note('+', start);
        *ret = *want;
        ret->start = start;
        if (start == LOW && c->n == 1) {
                c->windows[1] = c->windows[0];
                c->windows[0] = *ret;
        } else
                c->windows[c->n] = *ret;
        c->n++;
        return 0;
}

int container_window_remove(struct container *c, uint64_t start, struct refusal *r) {
        size_t i = window_of(c, start);

        if (fake.fail_remove_in == c->number)
                return refuse(r, REFUSAL_BACKEND_REFUSED, "as told");
        assert_true(i < c->n);
        for (size_t k = 0; k < c->n_mappings; k++)
                assert_true(window_of(c, c->mapped[k]) != i);
        note('-', start);
        if (i == 0)
                c->windows[0] = c->windows[1];
        c->n--;
        return 0;
}

int container_windows_reset(struct container *c, struct refusal *r) {
        if (fake.fail_reset_in == c->number) {
                if (fake.reset_fails_half_way)
                        c->n = 0;
                return refuse(r, REFUSAL_BACKEND_REFUSED, "as told");
        }
        assert_int_equal(c->n_mappings, 0);
        c->windows[0] = initial;
        c->n = 1;
        return 0;
}

/* Any fd. */
int container_revoker_fd(struct container *c, int *ret_fd, struct refusal *r) {
        (void)c;
        if (fake.fail_revoker)
                return refuse(r, REFUSAL_BACKEND_REFUSED, "as told");
        *ret_fd = fake.has_revoker ? memfd_create("revoker", MFD_CLOEXEC) : -1;
        return 0;
}

size_t container_windows(const struct container *c, struct backend_window ret[BACKEND_WINDOWS_MAX]) {
        memcpy(ret, c->windows, c->n * sizeof *ret);
        return c->n;
}

int device_open(struct container *c, const char *name, struct device **ret, struct refusal *r) {
        (void)name;
        (void)r;
        *ret = calloc(1, sizeof **ret);
        assert_non_null(*ret);
        (*ret)->container = c;
        return 0;
}

struct device *device_close(struct device *d) {
        free(d);
        return NULL;
}

int device_keeper_fd(struct device *d, int *ret_fd, struct refusal *r) {
        (void)d;
        (void)r;
        *ret_fd = -1;
        return 0;
}

int device_client_fd(struct device *d, int *ret_fd, enum device_fd_kind *ret_kind, struct refusal *r) {
        (void)d;
        (void)ret_fd;
        (void)ret_kind;
        return refuse(r, REFUSAL_UNSUPPORTED, "none");
}

/* --- the domain ---------------------------------------------------------------------------------------------------*/

struct fixture {
        struct objects *objects;
        struct domain *domain;
};

static void detaching(void *userdata, uint64_t attachment, uint64_t seq) {
        (void)userdata;
        (void)attachment;
        (void)seq;
}

/* Of the domain's event, or of a dump. */
struct told {
        uint32_t group;
        int fd;
        unsigned times, mapped;         /* what was mapped anywhere then */
};

static struct told told;

static void note_revoker(void *userdata, uint32_t group, int fd) {
        (void)userdata;
        assert_true(fcntl(fd, F_GETFD) >= 0);
        told.group = group;
        told.fd = fd;
        told.times++;
        told.mapped = 0;
        for (int i = 0; i < fake.opened; i++)
                if (fake.containers[i])
                        told.mapped += (unsigned)fake.containers[i]->n_mappings;
}

static int setup(void **state) {
        struct fixture *f = calloc(1, sizeof *f);
        const struct domain_events events = { .detaching = detaching, .revoker = note_revoker };
        const struct soft_personality soft = { 0 };
        int fd = full_memfd(16 * PAGE);

        memset(&fake, 0, sizeof fake);
        memset(&told, 0, sizeof told);
        fake.fail_create_in = fake.fail_remove_in = fake.fail_reset_in = fake.fail_unmap_in = -1;
        f->objects = objects_new(4);
        assert_done(try_register(f->objects, 1, fd, 16 * PAGE, 0));
        close(fd);
        f->domain = domain_new(1, f->objects, &soft, &events);
        *state = f;
        return 0;
}

static int teardown(void **state) {
        struct fixture *f = *state;

        domain_free(f->domain);
        assert_int_equal(fake.open_containers, 0);
        assert_done(try_unregister(f->objects, 1));     /* nothing of it is used any more */
        objects_free(f->objects);
        free(f);
        return 0;
}

static enum refusal_reason attach(struct fixture *f, uint64_t id, uint32_t group) {
        struct link_attach a = { .attachment = id, .backend = BACKEND_SOFT, .group = group, .device = "d" };
        int fds[2] = { -1, -1 }, keeper;

        last_refusal.reason = REFUSAL_NONE;
        (void)domain_attach(f->domain, &a, id, fds, &keeper, &last_refusal);
        return last_refusal.reason;
}

static enum refusal_reason map(struct fixture *f, uint64_t iova) {
        const struct link_map_entry e = { .iova = iova, .length = PAGE, .memory = 1, .access = READ_WRITE };
        bool undo;

        last_refusal.reason = REFUSAL_NONE;
        (void)domain_map(f->domain, &e, 1, &undo, &last_refusal);
        return last_refusal.reason;
}

static enum refusal_reason create(struct fixture *f, uint32_t page_shift, uint64_t *ret_start, bool *ret_undo) {
        const struct link_window want = { .start = WINDOW_ANYWHERE, .size = SIZE, .page_shift = page_shift, .levels = 1 };
        struct link_window made = { .start = 7 };

        last_refusal.reason = REFUSAL_NONE;
        (void)domain_window_create(f->domain, &want, &made, ret_undo, &last_refusal);
        *ret_start = made.start;
        return last_refusal.reason;
}

static enum refusal_reason drop(struct fixture *f, uint64_t start, const uint64_t *iovas, size_t n, bool *ret_undo) {
        struct link_unmap_entry e[4];

        for (size_t i = 0; i < n; i++)
                e[i] = (struct link_unmap_entry){ iovas[i], PAGE };
        last_refusal.reason = REFUSAL_NONE;
        (void)domain_window_remove(f->domain, start, e, n, ret_undo, &last_refusal);
        return last_refusal.reason;
}

static enum refusal_reason reset(struct fixture *f, const uint64_t *iovas, size_t n, bool *ret_undo) {
        const struct link_window first = { .start = LOW, .size = SIZE, .page_shift = 12, .levels = 1 };
        struct link_unmap_entry e[4];

        for (size_t i = 0; i < n; i++)
                e[i] = (struct link_unmap_entry){ iovas[i], PAGE };
        last_refusal.reason = REFUSAL_NONE;
        (void)domain_windows_reset(f->domain, &first, e, n, ret_undo, &last_refusal);
        return last_refusal.reason;
}

struct dumped {
        struct link_dump_domain domain;
        struct link_window windows[4];
        size_t n, n_mappings;
};

static void see_domain(void *userdata, const struct link_dump_domain *m) {
        ((struct dumped *)userdata)->domain = *m;
}

static void see_attachment(void *userdata, const struct link_dump_attachment *m, const int *fds, size_t n_fds) {
        (void)userdata;
        (void)m;
        (void)fds;
        (void)n_fds;
}

static void see_window(void *userdata, const struct link_window *m) {
        struct dumped *d = userdata;

        d->windows[d->n++] = *m;
}

static void see_mappings(void *userdata, const struct link_map_entry *entries, size_t n) {
        (void)entries;
        ((struct dumped *)userdata)->n_mappings += n;
}

static struct dumped dump(struct fixture *f) {
        struct dumped d = { .n = 0 };
        const struct domain_dump_sink sink = { .domain = see_domain, .attachment = see_attachment, .revoker = note_revoker,
                                               .window = see_window, .mappings = see_mappings, .userdata = &d };

        domain_dump(f->domain, &sink);
        assert_int_equal(d.n, d.domain.n_windows);
        return d;
}

static void assert_windows(struct fixture *f, size_t n, uint64_t first, uint64_t second) {
        struct dumped d = dump(f);

        assert_int_equal(d.domain.has_windows, 1);
        assert_int_equal(d.n, n);
        if (n > 0)
                assert_int_equal(d.windows[0].start, first);
        if (n > 1)
                assert_int_equal(d.windows[1].start, second);
}

/* --- I12: revokers ------------------------------------------------------------------------------------------------*/

/* Before anything is mapped there: from then on the holder may die at any instruction. */
static void test_a_containers_revoker_is_told_before_the_domain_is_replayed(void **state) {
        struct fixture *f = *state;

        assert_done(map(f, PAGE));
        fake.has_revoker = true;
        assert_done(attach(f, 1, 10));
        assert_int_equal(told.times, 1);
        assert_int_equal(told.group, 10);
        assert_int_equal(told.mapped, 0);
        assert_int_equal(fake.containers[0]->n_mappings, 1);
        assert_done(attach(f, 2, 10));          /* no new container */
        assert_int_equal(told.times, 1);
        assert_done(attach(f, 3, 11));
        assert_int_equal(told.times, 2);
        assert_int_equal(told.group, 11);
}

static void test_the_next_broker_is_told_of_each_in_the_dump(void **state) {
        struct fixture *f = *state;

        fake.has_revoker = true;
        assert_done(attach(f, 1, 10));
        assert_done(attach(f, 2, 10));
        assert_done(attach(f, 3, 11));
        told.times = 0;
        (void)dump(f);
        assert_int_equal(told.times, 2);
}

static void test_a_revokers_fd_goes_with_its_container(void **state) {
        struct fixture *f = *state;

        fake.has_revoker = true;
        assert_done(attach(f, 1, 10));
        assert_int_equal(domain_detach(f->domain, 1, &last_refusal), 0);
        assert_int_equal(fcntl(told.fd, F_GETFD), -1);
        told.times = 0;
        (void)dump(f);
        assert_int_equal(told.times, 0);
}

static void test_a_container_that_nobody_could_revoke_is_not_kept(void **state) {
        struct fixture *f = *state;

        fake.fail_revoker = true;
        assert_refused(attach(f, 1, 10), BACKEND_REFUSED);
        assert_int_equal(fake.open_containers, 0);
}

/* --- promises -----------------------------------------------------------------------------------------------------*/

static void test_the_first_container_says_which_there_are(void **state) {
        struct fixture *f = *state;
        uint64_t start;
        bool undo;

        assert_int_equal(dump(f).domain.has_windows, 0);
        assert_refused(create(f, 12, &start, &undo), UNSUPPORTED);
        assert_int_equal(start, 7);
        assert_refused(drop(f, LOW, NULL, 0, &undo), UNKNOWN_WINDOW);
        assert_done(attach(f, 1, 10));
        assert_windows(f, 1, LOW, 0);
        assert_done(create(f, 16, &start, &undo));
        assert_int_equal(start, HIGH);
        assert_windows(f, 2, LOW, HIGH);
        assert_int_equal(dump(f).windows[1].page_shift, 16);
        assert_refused(create(f, 12, &start, &undo), WINDOW_LIMIT);
        assert_false(undo);
        assert_windows(f, 2, LOW, HIGH);
}

static void test_all_containers_have_the_same_ones(void **state) {
        struct fixture *f = *state;
        uint64_t start;
        bool undo;

        assert_done(attach(f, 1, 10));
        assert_done(attach(f, 2, 20));
        assert_done(create(f, 12, &start, &undo));
        assert_int_equal(fake.containers[0]->n, 2);
        assert_int_equal(fake.containers[1]->n, 2);
        assert_done(drop(f, LOW, NULL, 0, &undo));
        assert_int_equal(fake.containers[0]->n, 1);
        assert_int_equal(fake.containers[1]->windows[0].start, HIGH);
        /* the one that was attached last comes first: it makes one, the other refuses */
        fake.fail_create_in = 0;
        assert_refused(create(f, 12, &start, &undo), BACKEND_REFUSED);
        assert_false(undo);
        assert_int_equal(fake.containers[1]->n, 1);
        assert_windows(f, 1, HIGH, 0);
        fake.fail_remove_in = 1;
        assert_refused(create(f, 12, &start, &undo), BACKEND_REFUSED);
        assert_true(undo);
        assert_int_equal(dump(f).domain.quarantined, 1);
        fake.fail_create_in = fake.fail_remove_in = -1;
        assert_refused(create(f, 12, &start, &undo), DOMAIN_QUARANTINED);
}

static void test_a_later_container_gets_them(void **state) {
        struct fixture *f = *state;
        uint64_t start;
        bool undo;

        assert_done(attach(f, 1, 10));
        assert_done(create(f, 12, &start, &undo));
        assert_done(drop(f, LOW, NULL, 0, &undo));
        assert_done(map(f, HIGH));
        fake.n_order = 0;
        assert_done(attach(f, 2, 20));
        /* it lies high only while the first one is there */
        assert_int_equal(fake.n_order, 2);
        assert_string_equal(fake.order[0], "+high");
        assert_string_equal(fake.order[1], "-low");
        assert_int_equal(fake.containers[1]->n_mappings, 1);
}

static void test_also_where_the_initial_one_was(void **state) {
        struct fixture *f = *state;
        uint64_t start;
        bool undo;

        assert_done(attach(f, 1, 10));
        assert_done(create(f, 12, &start, &undo));
        assert_done(drop(f, LOW, NULL, 0, &undo));
        assert_done(create(f, 16, &start, &undo));
        assert_int_equal(start, LOW);
        assert_done(map(f, LOW));
        assert_done(map(f, HIGH));
        fake.n_order = 0;
        assert_done(attach(f, 2, 20));
        assert_int_equal(fake.n_order, 3);
        assert_string_equal(fake.order[0], "+high");
        assert_string_equal(fake.order[1], "-low");
        assert_string_equal(fake.order[2], "+low");
        assert_int_equal(fake.containers[1]->windows[0].page_shift, 16);
        assert_int_equal(fake.containers[1]->n_mappings, 2);
        assert_windows(f, 2, LOW, HIGH);
}

static void test_they_outlive_the_last_container(void **state) {
        struct fixture *f = *state;
        struct refusal r;
        uint64_t start;
        bool undo;

        assert_done(attach(f, 1, 10));
        assert_done(create(f, 12, &start, &undo));
        assert_done(drop(f, LOW, NULL, 0, &undo));
        assert_int_equal(domain_detach(f->domain, 1, &r), 0);
        assert_int_equal(fake.open_containers, 0);
        assert_windows(f, 1, HIGH, 0);
        assert_done(map(f, HIGH + PAGE));
        assert_done(attach(f, 2, 10));
        assert_int_equal(fake.containers[1]->windows[0].start, HIGH);
        assert_int_equal(fake.containers[1]->n_mappings, 1);
        assert_int_equal(domain_detach(f->domain, 2, &r), 0);
        assert_done(reset(f, (uint64_t[]){ HIGH + PAGE }, 1, &undo));
        assert_windows(f, 1, LOW, 0);
        assert_done(attach(f, 3, 10));
        assert_int_equal(fake.containers[2]->windows[0].start, LOW);
}

static void test_an_attach_that_cannot_have_them_fails(void **state) {
        struct fixture *f = *state;
        uint64_t start;
        bool undo;

        assert_done(attach(f, 1, 10));
        assert_done(create(f, 12, &start, &undo));
        fake.fail_create_in = 1;
        assert_refused(attach(f, 2, 20), BACKEND_REFUSED);
        assert_int_equal(fake.open_containers, 1);
        assert_windows(f, 2, LOW, HIGH);
}

static void test_what_is_mapped_there_goes_with_it(void **state) {
        struct fixture *f = *state;
        uint64_t start;
        bool undo;

        assert_done(attach(f, 1, 10));
        assert_done(create(f, 12, &start, &undo));
        assert_done(map(f, HIGH));
        assert_done(map(f, HIGH + PAGE));
        assert_done(map(f, LOW));
        assert_refused(drop(f, HIGH, NULL, 0, &undo), IN_USE);
        assert_refused(drop(f, HIGH, (uint64_t[]){ HIGH }, 1, &undo), IN_USE);
        assert_refused(drop(f, HIGH, (uint64_t[]){ HIGH, HIGH + PAGE, LOW }, 3, &undo), BAD_MESSAGE);
        assert_refused(drop(f, HIGH, (uint64_t[]){ HIGH, HIGH + 2 * PAGE }, 2, &undo), NOT_MAPPED);
        assert_refused(drop(f, HIGH + PAGE, NULL, 0, &undo), UNKNOWN_WINDOW);
        assert_int_equal(fake.containers[0]->n_mappings, 3);
        assert_done(drop(f, HIGH, (uint64_t[]){ HIGH + PAGE, HIGH }, 2, &undo));
        assert_int_equal(fake.containers[0]->n_mappings, 1);
        assert_int_equal(dump(f).n_mappings, 1);
        assert_windows(f, 1, LOW, 0);
}

static void test_a_removal_that_fails_changes_nothing(void **state) {
        struct fixture *f = *state;
        uint64_t start;
        bool undo;

        assert_done(attach(f, 1, 10));
        assert_done(attach(f, 2, 20));
        assert_done(create(f, 12, &start, &undo));
        assert_done(map(f, HIGH));
        fake.fail_remove_in = 0;
        assert_refused(drop(f, HIGH, (uint64_t[]){ HIGH }, 1, &undo), BACKEND_REFUSED);
        assert_false(undo);
        assert_int_equal(fake.containers[0]->n_mappings, 1);
        assert_int_equal(fake.containers[1]->n_mappings, 1);
        assert_int_equal(fake.containers[1]->n, 2);
        assert_windows(f, 2, LOW, HIGH);
        fake.fail_remove_in = -1;
        fake.fail_unmap_in = 0;
        assert_refused(drop(f, HIGH, (uint64_t[]){ HIGH }, 1, &undo), BACKEND_REFUSED);
        assert_false(undo);
        assert_int_equal(fake.containers[1]->n_mappings, 1);
        fake.fail_unmap_in = -1;
        /* and one that cannot be undone says so */
        fake.fail_remove_in = 0;
        fake.fail_create_in = 1;
        assert_refused(drop(f, HIGH, (uint64_t[]){ HIGH }, 1, &undo), BACKEND_REFUSED);
        assert_true(undo);
        fake.fail_remove_in = fake.fail_create_in = -1;
        assert_int_equal(dump(f).domain.quarantined, 1);
}

static void test_a_reset_takes_everything(void **state) {
        struct fixture *f = *state;
        uint64_t start;
        bool undo;

        assert_done(attach(f, 1, 10));
        assert_done(create(f, 12, &start, &undo));
        assert_done(map(f, HIGH));
        assert_done(map(f, LOW));
        assert_refused(reset(f, (uint64_t[]){ HIGH }, 1, &undo), IN_USE);
        assert_done(reset(f, (uint64_t[]){ HIGH, LOW }, 2, &undo));
        assert_windows(f, 1, LOW, 0);
        assert_int_equal(dump(f).n_mappings, 0);
        assert_done(reset(f, NULL, 0, &undo));
        assert_windows(f, 1, LOW, 0);
}

static void test_a_reset_that_fails(void **state) {
        struct fixture *f = *state;
        uint64_t start;
        bool undo;

        assert_done(attach(f, 1, 10));
        assert_done(create(f, 12, &start, &undo));
        assert_done(map(f, HIGH));
        fake.fail_reset_in = 0;
        assert_refused(reset(f, (uint64_t[]){ HIGH }, 1, &undo), BACKEND_REFUSED);
        assert_false(undo);             /* as it was */
        assert_int_equal(fake.containers[0]->n_mappings, 1);
        assert_windows(f, 2, LOW, HIGH);
        fake.reset_fails_half_way = true;
        assert_refused(reset(f, (uint64_t[]){ HIGH }, 1, &undo), BACKEND_REFUSED);
        assert_true(undo);
        assert_int_equal(dump(f).domain.quarantined, 1);
}

#define PROMISE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                PROMISE(test_the_first_container_says_which_there_are),
                PROMISE(test_all_containers_have_the_same_ones),
                PROMISE(test_a_later_container_gets_them),
                PROMISE(test_also_where_the_initial_one_was),
                PROMISE(test_they_outlive_the_last_container),
                PROMISE(test_an_attach_that_cannot_have_them_fails),
                PROMISE(test_what_is_mapped_there_goes_with_it),
                PROMISE(test_a_removal_that_fails_changes_nothing),
                PROMISE(test_a_reset_takes_everything),
                PROMISE(test_a_reset_that_fails),
                PROMISE(test_a_containers_revoker_is_told_before_the_domain_is_replayed),
                PROMISE(test_the_next_broker_is_told_of_each_in_the_dump),
                PROMISE(test_a_revokers_fd_goes_with_its_container),
                PROMISE(test_a_container_that_nobody_could_revoke_is_not_kept),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
