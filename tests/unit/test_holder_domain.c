/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* A domain over a scripted backend that fails on demand, as hardware never does. The functions of backend/backend.h are
 * defined here, so that the real ones are not linked. */
#include "test_object_helpers.h"

#include "holder/domain.h"

/* --- the backend --------------------------------------------------------------------------------------------------*/

#define FAKE_MAPPINGS 64U

struct container {
        struct container_info info;
        struct backend_mapping mappings[FAKE_MAPPINGS];
        size_t n;
        unsigned devices;
        int number;                     /* in order of opening */
};

struct device {
        struct container *container;
};

static struct {
        unsigned open_containers, open_devices;
        int opened;
        struct container *containers[8];        /* by number; NULL: closed */
        uint64_t fail_map, fail_unmap;  /* IOVA; 0: none */
        int fail_map_in, fail_unmap_in; /* only that container; -1: all */
        bool fail_open, fail_device, fail_unmap_all;
        uint64_t page_sizes[8];
        struct iova_range range[8];
        bool keepers;                   /* devices have keeper fds, as on VFIO */
} fake;

static void fake_reset(void) {
        memset(&fake, 0, sizeof fake);
        fake.fail_map_in = fake.fail_unmap_in = -1;
        for (size_t i = 0; i < ARRAY_SIZE(fake.range); i++) {
                fake.page_sizes[i] = PAGE;
                fake.range[i] = (struct iova_range){ 0, UINT64_MAX };
        }
}

int container_open(struct backend_open *o, struct container **ret, struct refusal *r) {
        struct container *c;

        o->container_fd = fd_close(o->container_fd);
        o->group_fd = fd_close(o->group_fd);
        if (fake.fail_open)
                return refuse(r, REFUSAL_BACKEND_REFUSED, "as told");
        c = calloc(1, sizeof *c);
        assert_non_null(c);
        c->number = fake.opened++;
        c->info = (struct container_info){ .page_sizes = fake.page_sizes[c->number], .max_mappings = 100, .n_ranges = 1,
                                           .ranges = { fake.range[c->number] } };
        fake.containers[c->number] = c;
        fake.open_containers++;
        *ret = c;
        return 0;
}

struct container *container_close(struct container *c) {
        if (!c)
                return NULL;
        assert_int_equal(c->devices, 0);
        fake.containers[c->number] = NULL;
        fake.open_containers--;
        free(c);
        return NULL;
}

void container_info(const struct container *c, struct container_info *ret) {
        *ret = c->info;
}

int container_map(struct container *c, const struct backend_mapping *m, struct refusal *r) {
        if (fake.fail_map == m->iova && fake.fail_map && (fake.fail_map_in < 0 || fake.fail_map_in == c->number))
                return refuse(r, REFUSAL_BACKEND_REFUSED, "as told");
        assert_true(c->n < FAKE_MAPPINGS);
        c->mappings[c->n++] = *m;
        return 0;
}

int container_unmap(struct container *c, uint64_t iova, uint64_t length, struct refusal *r) {
        if (fake.fail_unmap == iova && fake.fail_unmap && (fake.fail_unmap_in < 0 || fake.fail_unmap_in == c->number))
                return refuse(r, REFUSAL_BACKEND_REFUSED, "as told");
        for (size_t i = 0; i < c->n; i++)
                if (c->mappings[i].iova == iova && c->mappings[i].length == length) {
                        c->mappings[i] = c->mappings[--c->n];
                        return 0;
                }
        fail_msg("unmap of what is not mapped");
        return -1;
}

int container_unmap_all(struct container *c, struct refusal *r) {
        if (fake.fail_unmap_all)
                return refuse(r, REFUSAL_BACKEND_REFUSED, "as told");
        c->n = 0;
        return 0;
}

/* It has no windows of its own: nobody asks for any. */
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
        (void)c;
        (void)r;
        *ret_fd = -1;
        return 0;
}

size_t container_windows(const struct container *c, struct backend_window ret[BACKEND_WINDOWS_MAX]) {
        (void)c, (void)ret;
        fail_msg("windows are listed");
        return 0;
}

int device_open(struct container *c, const char *name, struct device **ret, struct refusal *r) {
        (void)name;
        if (fake.fail_device)
                return refuse(r, REFUSAL_DEVICE_BUSY, "as told");
        *ret = calloc(1, sizeof **ret);
        assert_non_null(*ret);
        (*ret)->container = c;
        c->devices++;
        fake.open_devices++;
        return 0;
}

struct device *device_close(struct device *d) {
        if (d) {
                d->container->devices--;
                fake.open_devices--;
                free(d);
        }
        return NULL;
}

int device_keeper_fd(struct device *d, int *ret_fd, struct refusal *r) {
        (void)d;
        (void)r;
        *ret_fd = fake.keepers ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;
        return 0;
}

int device_client_fd(struct device *d, int *ret_fd, enum device_fd_kind *ret_kind, struct refusal *r) {
        (void)d;
        (void)r;
        *ret_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        *ret_kind = DEVICE_FD_VFIO;
        return 0;
}

/* --- the domain ---------------------------------------------------------------------------------------------------*/

struct fixture {
        struct objects *objects;
        struct domain *domain;
        unsigned fds_given, fds_refused, detached;
        uint64_t last_cookie, last_seq;
};

static void fd_answered(void *userdata, const struct domain_fd_answer *a) {
        struct fixture *f = userdata;

        f->last_cookie = a->cookie;
        assert_true((a->fd >= 0) == (a->refusal == NULL));
        *(a->refusal ? &f->fds_refused : &f->fds_given) += 1;
}

static void detaching(void *userdata, uint64_t attachment, uint64_t seq) {
        struct fixture *f = userdata;

        (void)attachment;
        f->detached++;
        f->last_seq = seq;
}

static int setup(void **state) {
        struct fixture *f = calloc(1, sizeof *f);
        const struct domain_events events = { .fd_answered = fd_answered, .detaching = detaching, .userdata = f };
        struct soft_personality soft = { 0 };
        int fd = full_memfd(16 * PAGE);

        fake_reset();
        f->objects = objects_new(4);
        assert_done(try_register(f->objects, 1, fd, 16 * PAGE, 0));
        close(fd);
        f->domain = domain_new(1, f->objects, &soft, &events);
        *state = f;
        return 0;
}

static int teardown(void **state) {
        struct fixture *f = *state;

        fake.fail_unmap_all = false;
        domain_free(f->domain);
        assert_int_equal(fake.open_devices, 0);
        assert_int_equal(fake.open_containers, 0);
        assert_done(try_unregister(f->objects, 1));     /* nothing of it is used any more */
        objects_free(f->objects);
        free(f);
        return 0;
}

static enum refusal_reason attach_as(struct fixture *f, uint64_t attachment, uint32_t group, uint32_t backend,
                                     int fds[2]) {
        struct link_attach a = { .attachment = attachment, .backend = backend, .group = group, .device = "d" };
        int keeper = -1;

        last_refusal.reason = REFUSAL_NONE;
        (void)domain_attach(f->domain, &a, 1000 + attachment, fds, &keeper, &last_refusal);
        if (last_refusal.reason == REFUSAL_NONE)
                assert_true((keeper >= 0) == fake.keepers);
        return last_refusal.reason;
}

static enum refusal_reason attach_soft(struct fixture *f, uint64_t attachment, uint32_t group) {
        int fds[2] = { -1, -1 };

        return attach_as(f, attachment, group, BACKEND_SOFT, fds);
}

static enum refusal_reason map(struct fixture *f, const uint64_t *iovas, size_t n, bool *ret_undo_failed) {
        struct link_map_entry e[8];

        for (size_t i = 0; i < n; i++)
                e[i] = (struct link_map_entry){ .iova = iovas[i], .length = PAGE, .memory = 1, .offset = i * PAGE,
                                                .access = READ_WRITE };
        last_refusal = (struct refusal){ .reason = REFUSAL_NONE };
        (void)domain_map(f->domain, e, n, ret_undo_failed, &last_refusal);
        return last_refusal.reason;
}

static enum refusal_reason unmap(struct fixture *f, const uint64_t *iovas, size_t n, bool *ret_undo_failed) {
        struct link_unmap_entry e[8];

        for (size_t i = 0; i < n; i++)
                e[i] = (struct link_unmap_entry){ .iova = iovas[i], .length = PAGE };
        last_refusal = (struct refusal){ .reason = REFUSAL_NONE };
        (void)domain_unmap(f->domain, e, n, ret_undo_failed, &last_refusal);
        return last_refusal.reason;
}

struct dumped {
        struct link_dump_domain domain;
        uint64_t iovas[32];
        size_t n, n_attachments, n_containers_sent;
};

static void see_domain(void *userdata, const struct link_dump_domain *m) {
        ((struct dumped *)userdata)->domain = *m;
}

static void see_attachment(void *userdata, const struct link_dump_attachment *m, const int *fds, size_t n_fds) {
        struct dumped *d = userdata;

        assert_int_equal(n_fds, fake.keepers ? 1 + m->container_sent : 0);
        for (size_t i = 0; i < n_fds; i++)
                assert_true(fcntl(fds[i], F_GETFD) >= 0);
        d->n_attachments++;
        d->n_containers_sent += m->container_sent;
}

static void see_mappings(void *userdata, const struct link_map_entry *entries, size_t n) {
        struct dumped *d = userdata;

        for (size_t i = 0; i < n; i++)
                d->iovas[d->n++] = entries[i].iova;
}

static struct dumped dump(struct fixture *f) {
        struct dumped d = { .n = 0 };
        struct domain_dump_sink sink = { .domain = see_domain, .attachment = see_attachment, .mappings = see_mappings,
                                         .userdata = &d };

        domain_dump(f->domain, &sink);
        assert_int_equal(d.n, d.domain.mappings);
        assert_int_equal(d.n_attachments, d.domain.attachments);
        return d;
}

static const uint64_t three[] = { 0x3000, 0x1000, 0x2000 };

/* --- promises -----------------------------------------------------------------------------------------------------*/

static void test_each_group_has_its_container(void **state) {
        struct fixture *f = *state;
        struct refusal r;
        bool undo;

        assert_done(map(f, three, 3, &undo));
        assert_done(attach_soft(f, 1, 10));
        assert_done(attach_soft(f, 2, 10));
        assert_done(attach_soft(f, 3, 20));
        assert_int_equal(fake.open_containers, 2);
        assert_int_equal(fake.containers[0]->n, 3);     /* replayed */
        assert_int_equal(fake.containers[1]->n, 3);
        assert_int_equal(domain_detach(f->domain, 1, &r), 0);
        assert_int_equal(fake.open_containers, 2);
        assert_int_equal(domain_detach(f->domain, 2, &r), 0);
        assert_null(fake.containers[0]);
        assert_int_equal(fake.containers[1]->n, 3);
        assert_int_equal(domain_detach(f->domain, 2, &r), -1);
        assert_refused(r.reason, UNKNOWN_ATTACHMENT);
        assert_int_equal(f->detached, 2);
        assert_int_equal(f->last_seq, 1002);
}

static void test_failed_attach_leaves_nothing(void **state) {
        struct fixture *f = *state;
        bool undo;

        assert_done(map(f, three, 3, &undo));
        fake.fail_open = true;
        assert_refused(attach_soft(f, 1, 10), BACKEND_REFUSED);
        fake.fail_open = false;
        fake.fail_map = 0x3000;
        assert_refused(attach_soft(f, 1, 10), BACKEND_REFUSED);
        assert_int_equal(fake.open_containers, 0);
        fake.fail_map = 0;
        fake.fail_device = true;
        assert_refused(attach_soft(f, 1, 10), DEVICE_BUSY);
        assert_int_equal(fake.open_containers, 0);
        fake.fail_device = false;
        assert_done(attach_soft(f, 1, 10));
        assert_refused(attach_soft(f, 1, 10), IN_USE);
        assert_int_equal(dump(f).n_attachments, 1);
}

/* The kernel objects come from the broker, once for each group. */
static void test_attach_takes_its_fds(void **state) {
        struct fixture *f = *state;
        int fds[2] = { -1, -1 };

        fake.keepers = true;
        assert_refused(attach_as(f, 1, 10, BACKEND_VFIO_TYPE1, fds), BAD_MESSAGE);
        fds[0] = open("/dev/null", O_RDONLY);
        assert_refused(attach_as(f, 1, 10, BACKEND_VFIO_TYPE1, fds), BAD_MESSAGE);
        fds[1] = open("/dev/null", O_RDONLY);
        assert_done(attach_as(f, 1, 10, BACKEND_VFIO_TYPE1, fds));
        assert_int_equal(fds[0], -1);
        assert_int_equal(fds[1], -1);
        assert_done(attach_as(f, 2, 10, BACKEND_VFIO_TYPE1, fds));
        assert_int_equal(fake.open_containers, 1);
        assert_refused(attach_as(f, 3, 10, BACKEND_SOFT, fds), BAD_MESSAGE);
        assert_int_equal(dump(f).n_containers_sent, 1);
}

static void test_map_is_undone_in_every_container(void **state) {
        struct fixture *f = *state;
        bool undo;

        assert_done(attach_soft(f, 1, 10));
        assert_done(attach_soft(f, 2, 20));
        for (int in = 0; in < 2; in++) {
                fake.fail_map = 0x2000;
                fake.fail_map_in = in;
                assert_refused(map(f, three, 3, &undo), BACKEND_REFUSED);
                assert_int_equal(last_refusal.element, 2);
                assert_false(undo);
                assert_int_equal(fake.containers[0]->n + fake.containers[1]->n, 0);
                assert_int_equal(dump(f).n, 0);
        }
        fake.fail_map = 0;
        assert_done(map(f, three, 3, &undo));
        assert_int_equal(fake.containers[0]->n, 3);
        assert_int_equal(fake.containers[1]->n, 3);
}

/* I9: what could not be undone is said, stays in the dump, and nothing new is taken. */
static void test_undo_of_map_fails(void **state) {
        const uint64_t fourth[] = { 0x4000 };
        struct fixture *f = *state;
        bool undo;

        assert_done(attach_soft(f, 1, 10));
        fake.fail_map = 0x2000;
        fake.fail_unmap = 0x1000;
        assert_refused(map(f, three, 3, &undo), BACKEND_REFUSED);
        assert_true(undo);
        assert_int_equal(dump(f).n, 1);
        assert_int_equal(dump(f).iovas[0], 0x1000);
        assert_int_equal(dump(f).domain.quarantined, 1);
        assert_int_equal(fake.containers[0]->n, 1);
        fake.fail_map = fake.fail_unmap = 0;
        assert_refused(map(f, fourth, 1, &undo), DOMAIN_QUARANTINED);
        assert_refused(attach_soft(f, 2, 20), DOMAIN_QUARANTINED);
        assert_refused(try_unregister(f->objects, 1), IN_USE);
        assert_done(unmap(f, &three[1], 1, &undo));     /* getting rid of things is always welcome */
}

/* The element that failed half-way is itself what cannot be undone. */
static void test_undo_within_one_element_fails(void **state) {
        struct fixture *f = *state;
        bool undo;

        assert_done(attach_soft(f, 1, 10));
        assert_done(attach_soft(f, 2, 20));
        /* containers are asked newest first */
        fake.fail_map = fake.fail_unmap = 0x1000;
        fake.fail_map_in = 0;
        fake.fail_unmap_in = 1;
        assert_refused(map(f, &three[1], 1, &undo), BACKEND_REFUSED);
        assert_true(undo);
        assert_int_equal(fake.containers[1]->n, 1);
        assert_int_equal(dump(f).n, 1);
        assert_int_equal(dump(f).iovas[0], 0x1000);
        assert_refused(try_unregister(f->objects, 1), IN_USE);
}

static void test_failed_unmap_unmaps_nothing(void **state) {
        struct fixture *f = *state;
        bool undo;

        assert_done(attach_soft(f, 1, 10));
        assert_done(attach_soft(f, 2, 20));
        assert_done(map(f, three, 3, &undo));
        for (int in = 0; in < 2; in++) {
                fake.fail_unmap = 0x2000;
                fake.fail_unmap_in = in;
                assert_refused(unmap(f, three, 3, &undo), BACKEND_REFUSED);
                assert_int_equal(last_refusal.element, 2);
                assert_false(undo);
                assert_int_equal(fake.containers[0]->n, 3);
                assert_int_equal(fake.containers[1]->n, 3);
                assert_int_equal(dump(f).n, 3);
        }
        fake.fail_unmap = 0;
        assert_done(unmap(f, three, 3, &undo));
        assert_int_equal(fake.containers[0]->n + fake.containers[1]->n, 0);
}

static void test_undo_of_unmap_fails(void **state) {
        struct fixture *f = *state;
        bool undo;

        assert_done(attach_soft(f, 1, 10));
        assert_done(map(f, three, 3, &undo));
        fake.fail_unmap = 0x2000;
        fake.fail_map = 0x3000;
        assert_refused(unmap(f, three, 3, &undo), BACKEND_REFUSED);
        assert_true(undo);
        assert_int_equal(dump(f).domain.quarantined, 1);
        fake.fail_unmap = fake.fail_map = 0;
}

static void test_unmap_wants_whole_mappings(void **state) {
        struct fixture *f = *state;
        struct link_map_entry m = { .iova = 0x10000, .length = 4 * PAGE, .memory = 1, .access = READ_WRITE };
        struct link_unmap_entry u = { 0x11000, PAGE };
        bool undo;

        assert_int_equal(domain_map(f->domain, &m, 1, &undo, &last_refusal), 0);
        assert_int_equal(domain_unmap(f->domain, &u, 1, &undo, &last_refusal), -1);
        assert_refused(last_refusal.reason, PARTIAL_UNMAP);
        assert_int_equal(last_refusal.nearest_below, 0x10000);
        assert_int_equal(last_refusal.nearest_above, 0x14000);
        u = (struct link_unmap_entry){ 0x10000, 5 * PAGE };
        assert_int_equal(domain_unmap(f->domain, &u, 1, &undo, &last_refusal), -1);
        assert_refused(last_refusal.reason, NOT_MAPPED);
        u = (struct link_unmap_entry){ UINT64_MAX - PAGE + 1, 2 * PAGE };
        assert_int_equal(domain_unmap(f->domain, &u, 1, &undo, &last_refusal), -1);
        assert_refused(last_refusal.reason, RANGE_WRAPS);
        u.length = 0;
        assert_int_equal(domain_unmap(f->domain, &u, 1, &undo, &last_refusal), -1);
        assert_refused(last_refusal.reason, ZERO_LENGTH);
        u = (struct link_unmap_entry){ 0x10000, 4 * PAGE };
        assert_int_equal(domain_unmap(f->domain, &u, 1, &undo, &last_refusal), 0);
}

/* Also where no container would notice. */
static void test_unmap_names_each_mapping_once(void **state) {
        const uint64_t twice[] = { 0x1000, 0x2000, 0x1000 };
        struct fixture *f = *state;
        bool undo;

        assert_done(map(f, three, 3, &undo));
        assert_refused(unmap(f, twice, 3, &undo), NOT_MAPPED);
        assert_int_equal(last_refusal.element, 2);
        assert_int_equal(dump(f).n, 3);
        assert_done(unmap(f, twice, 2, &undo));
        assert_int_equal(dump(f).n, 1);
}

/* The very end of the address space is an address like any other; what wraps is refused. */
static void test_end_of_the_address_space(void **state) {
        const uint64_t last[] = { 0 - PAGE };
        struct fixture *f = *state;
        struct link_map_entry m = { .iova = 0 - PAGE, .length = 2 * PAGE, .memory = 1, .access = READ_WRITE };
        bool undo;

        assert_int_equal(domain_map(f->domain, &m, 1, &undo, &last_refusal), -1);
        assert_refused(last_refusal.reason, RANGE_WRAPS);
        assert_done(map(f, last, 1, &undo));
        assert_refused(map(f, last, 1, &undo), OVERLAP);
        assert_done(unmap(f, last, 1, &undo));
}

static void test_info_is_what_all_can_do(void **state) {
        struct fixture *f = *state;
        struct container_info i;

        domain_info(f->domain, &i);
        assert_int_equal(i.page_sizes, 0);
        fake.page_sizes[0] = PAGE | (2 << 20) | (1 << 30);
        fake.range[0] = (struct iova_range){ 0, 0xffffffff };
        fake.page_sizes[1] = 0x10000 | (2 << 20);
        fake.range[1] = (struct iova_range){ 0x1000, UINT64_MAX };
        assert_done(attach_soft(f, 1, 10));
        assert_done(attach_soft(f, 2, 20));
        domain_info(f->domain, &i);
        assert_int_equal(i.page_sizes, 0x10000 | (2 << 20));    /* 64K is made of 4K pages where need be */
        assert_int_equal(i.n_ranges, 1);
        assert_int_equal(i.ranges[0].first, 0x1000);
        assert_int_equal(i.ranges[0].last, 0xffffffff);
        assert_int_equal(i.max_mappings, 100);
}

static void test_end_unmaps_and_takes_nothing_new(void **state) {
        const uint64_t fourth[] = { 0x4000 };
        struct fixture *f = *state;
        bool undo;

        assert_done(attach_soft(f, 1, 10));
        assert_done(map(f, three, 3, &undo));
        domain_end(f->domain);
        assert_int_equal(fake.containers[0]->n, 0);
        assert_int_equal(dump(f).n, 0);
        assert_refused(map(f, fourth, 1, &undo), UNKNOWN_SESSION);
        assert_refused(attach_soft(f, 2, 20), UNKNOWN_SESSION);
}

static void test_end_that_fails_is_told(void **state) {
        struct fixture *f = *state;
        bool undo;

        assert_done(attach_soft(f, 1, 10));
        assert_done(map(f, three, 3, &undo));
        fake.fail_unmap_all = true;
        domain_end(f->domain);
        assert_int_equal(dump(f).n, 3);
        assert_int_equal(dump(f).domain.quarantined, 1);
}

/* I12: the ack of a broker that died is worth nothing where there was something to keep. */
static void test_ack_dies_with_the_broker(void **state) {
        struct fixture *f = *state;
        int fds[2] = { open("/dev/null", O_RDONLY), open("/dev/null", O_RDONLY) };

        fake.keepers = true;
        assert_done(attach_as(f, 1, 10, BACKEND_VFIO_TYPE1, fds));
        domain_request_fd(f->domain, 1, 7);
        assert_int_equal(f->fds_given, 0);
        domain_ack(f->domain, 1);
        assert_int_equal(f->fds_given, 1);
        assert_int_equal(f->last_cookie, 7);
        domain_request_fd(f->domain, 1, 8);
        assert_int_equal(f->fds_given, 2);
        domain_unack(f->domain);
        domain_request_fd(f->domain, 1, 9);
        assert_int_equal(f->fds_given, 2);
        domain_ack(f->domain, 1);
        assert_int_equal(f->fds_given, 3);
        assert_int_equal(f->last_cookie, 9);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_each_group_has_its_container, setup, teardown),
                cmocka_unit_test_setup_teardown(test_failed_attach_leaves_nothing, setup, teardown),
                cmocka_unit_test_setup_teardown(test_attach_takes_its_fds, setup, teardown),
                cmocka_unit_test_setup_teardown(test_map_is_undone_in_every_container, setup, teardown),
                cmocka_unit_test_setup_teardown(test_undo_of_map_fails, setup, teardown),
                cmocka_unit_test_setup_teardown(test_undo_within_one_element_fails, setup, teardown),
                cmocka_unit_test_setup_teardown(test_failed_unmap_unmaps_nothing, setup, teardown),
                cmocka_unit_test_setup_teardown(test_undo_of_unmap_fails, setup, teardown),
                cmocka_unit_test_setup_teardown(test_unmap_wants_whole_mappings, setup, teardown),
                cmocka_unit_test_setup_teardown(test_unmap_names_each_mapping_once, setup, teardown),
                cmocka_unit_test_setup_teardown(test_end_of_the_address_space, setup, teardown),
                cmocka_unit_test_setup_teardown(test_info_is_what_all_can_do, setup, teardown),
                cmocka_unit_test_setup_teardown(test_end_unmaps_and_takes_nothing_new, setup, teardown),
                cmocka_unit_test_setup_teardown(test_end_that_fails_is_told, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ack_dies_with_the_broker, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
