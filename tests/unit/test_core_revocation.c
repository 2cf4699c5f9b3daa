/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/*
 * Taking everything back, with containers that only note what is done to them: the holder is killed, everything is unmapped and
 * once more after its death, and until then, and while somebody has the device open, nobody else gets it (I12).
 */
#include "test_core_harness.h"

#include <fcntl.h>

#include "backend/revoke.h"
#include "core/lease.h"
#include "core/revocation.h"

/* ---- backend/revoke.h, scripted ---- */

static struct {
        pthread_mutex_t lock;
        const struct holder *holder;
        unsigned unmapped, unmapped_unkilled, unmapped_after_death, bad, fail;
        bool busy;                      /* somebody has the device open */
        unsigned free_group;            /* but that one; 0: none */
        unsigned asked;                 /* the revoker */
        int revoker_says;               /* once the holder is dead */
        bool not_revokers;
} vfio = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Killed it is as soon as the signal is pending; death comes a moment later. */
static bool is_killed(const struct holder *h) {
        char path[64], line[128];
        unsigned long long pending;
        bool killed = false;
        FILE *f;

        (void)snprintf(path, sizeof path, "/proc/%d/status", h->child);
        f = fopen(path, "re");
        while (f && fgets(line, sizeof line, f))
                if (sscanf(line, "SigPnd: %llx", &pending) == 1 || sscanf(line, "ShdPnd: %llx", &pending) == 1)
                        killed |= (pending >> (SIGKILL - 1) & 1) != 0;
        if (f)
                fclose(f);
        return killed || !child_is_alive(h);
}

int revoke_container_fd(int container_fd) {
        LOCK_SCOPE(&vfio.lock);

        vfio.bad += fcntl(container_fd, F_GETFD) < 0;
        vfio.unmapped++;
        vfio.unmapped_unkilled += vfio.holder && !is_killed(vfio.holder);
        if (vfio.holder && !child_is_alive(vfio.holder)) {
                if (vfio.fail > 0) {
                        vfio.fail--;
                        return -EBUSY;
                }
                vfio.unmapped_after_death++;
        }
        return 0;
}

bool revoke_group_is_free(const char *vfio_dir, unsigned group) {
        LOCK_SCOPE(&vfio.lock);

        (void)vfio_dir;
        return !vfio.busy || group == vfio.free_group;
}

bool revoke_group_is_busy(const char *vfio_dir, unsigned group) {
        return !revoke_group_is_free(vfio_dir, group);
}

bool revoke_is_device_fd(int fd) {
        return fd >= 0;
}

bool revoke_is_container_fd(int fd) {
        return fd >= 0;
}

bool revoke_is_revoker_fd(int fd) {
        return fd >= 0 && !vfio.not_revokers;
}

int revoke_by_revoker(int revoker_fd, int timeout_ms) {
        LOCK_SCOPE(&vfio.lock);

        vfio.bad += fcntl(revoker_fd, F_GETFD) < 0 || timeout_ms != 0;
        vfio.asked++;
        if (child_is_alive(vfio.holder))
                return -EINPROGRESS;
        return vfio.revoker_says;
}

static int open_null(int *ret_fd) {
        *ret_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        return *ret_fd < 0 ? -errno : 0;
}

int vfio_open_container(const char *vfio_dir, int *ret_fd) {
        (void)vfio_dir;
        return open_null(ret_fd);
}

int vfio_open_group(const char *vfio_dir, unsigned group, int *ret_fd) {
        (void)vfio_dir, (void)group;
        return open_null(ret_fd);
}

/* ---- the scene: a session that has one group ---- */

#define GROUP 7U
#define DEVICE "0000:00:05.0"

static struct holder *scene_on(enum backend_kind backend, uint64_t *ret_domain) {
        struct holder *h;
        struct refusal r;
        bool fresh;
        int container, group;

        core.options.backend = backend;
        core_start();
        h = holder_open("alpha");
        *ret_domain = make_domain(h);
        pthread_mutex_lock(&vfio.lock);
        vfio.holder = h;
        vfio.unmapped = vfio.unmapped_unkilled = vfio.unmapped_after_death = vfio.bad = vfio.fail = 0;
        vfio.busy = vfio.not_revokers = false;
        vfio.free_group = 0;
        vfio.asked = 0;
        vfio.revoker_says = 0;
        pthread_mutex_unlock(&vfio.lock);
        assert_int_equal(lease_take(core.broker, h->session, *ret_domain, GROUP, DEVICE, &fresh, &container, &group, &r), 0);
        assert_true(fresh);
        fd_close(container);
        fd_close(group);
        return h;
}

static struct holder *scene(uint64_t *ret_domain) {
        return scene_on(BACKEND_VFIO_TYPE1, ret_domain);
}

static int teardown(void **state) {
        pthread_mutex_lock(&vfio.lock);
        vfio.fail = 0;
        vfio.revoker_says = 0;
        vfio.busy = false;
        pthread_mutex_unlock(&vfio.lock);
        return core_teardown(state);
}

static unsigned of_vfio(const unsigned *counter) {
        LOCK_SCOPE(&vfio.lock);
        return *counter;
}

static enum refusal_reason take(struct holder *h, uint64_t domain) {
        struct refusal r;
        int container, group;
        bool fresh;

        if (lease_take(core.broker, h->session, domain, GROUP, DEVICE, &fresh, &container, &group, &r) < 0)
                return r.reason;
        fd_close(container);
        fd_close(group);
        lease_drop(core.broker, GROUP);
        return REFUSAL_NONE;
}

static bool is_leased(void) {
        struct lease l;

        return lease_describe(core.broker, GROUP, &l);
}

/* ---- tests ---- */

static void everything_is_unmapped_again_after_the_holders_death(void **state) {
        uint64_t domain;
        struct holder *h = scene(&domain);

        (void)state;
        revocation_begin(h->session, REFUSAL_NOT_PERMITTED, "test");
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        assert_false(child_is_alive(h));
        assert_int_equal(of_vfio(&vfio.unmapped), 2);
        assert_true(of_vfio(&vfio.unmapped_after_death) >= 1);
        /* An unmap from here would wait behind a pin that the holder is in: the kill comes first. */
        assert_int_equal(of_vfio(&vfio.unmapped_unkilled), 0);
        assert_int_equal(of_vfio(&vfio.bad), 0);
        assert_false(is_leased());
}

/* A container that refuses is not given up, and nothing is refunded meanwhile. */
static void what_cannot_be_unmapped_stays_charged_and_is_tried_again(void **state) {
        uint64_t domain;
        struct holder *h = scene(&domain);

        (void)state;
        pthread_mutex_lock(&vfio.lock);
        vfio.fail = 2;
        pthread_mutex_unlock(&vfio.lock);
        revocation_begin(h->session, REFUSAL_NOT_PERMITTED, "test");
        EVENTUALLY(of_vfio(&vfio.unmapped) >= 2);
        assert_int_equal(charged("alpha", RESOURCE_SESSIONS), 1);
        assert_int_equal(charged("alpha", RESOURCE_DOMAINS), 1);
        assert_true(is_leased());
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        assert_true(of_vfio(&vfio.unmapped_after_death) > 0);
        assert_int_equal(charged("alpha", RESOURCE_DOMAINS), 0);
}

/* The client hears that the holder is lost; whether its map happened nobody knows until everything is unmapped. */
static void what_was_under_way_stays_charged_until_then(void **state) {
        uint64_t domain, memory;
        struct holder *h = scene(&domain);
        struct asked a;

        (void)state;
        memory = make_memory(h, 4 * PAGE);
        ask_map(h, domain, memory, 16 * PAGE, PAGE, 7, &a);
        holder_expect(h, LINK_MAP);
        pthread_mutex_lock(&vfio.lock);
        vfio.fail = 2;
        pthread_mutex_unlock(&vfio.lock);
        h->link = fd_close(h->link);
        assert_refused(&a, REFUSAL_HOLDER_LOST);
        EVENTUALLY(of_vfio(&vfio.unmapped) >= 2);
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), 1);
        assert_int_equal(charged("alpha", RESOURCE_LOCKED_BYTES), PAGE);
        assert_int_equal(sql("SELECT count(*) FROM mapping"), 1);
        assert_int_equal(sql("SELECT count(*) FROM op WHERE settled = 0"), 1);
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), 0);
}

static void the_end_is_in_the_ledger_before_it_begins(void **state) {
        uint64_t domain;
        struct holder *h = scene(&domain);

        (void)state;
        pthread_mutex_lock(&vfio.lock);
        vfio.fail = 2;
        pthread_mutex_unlock(&vfio.lock);
        revocation_begin(h->session, REFUSAL_NOT_PERMITTED, "test");
        EVENTUALLY(of_vfio(&vfio.unmapped) >= 1);
        assert_int_equal(sql("SELECT state FROM session"), LEDGER_ENDING);
        EVENTUALLY(sql("SELECT count(*) FROM session") == 0);
}

static void a_session_is_revoked_once(void **state) {
        uint64_t domain;
        struct holder *h = scene(&domain);

        (void)state;
        for (unsigned i = 0; i < 4; i++)
                revocation_begin(h->session, REFUSAL_NOT_PERMITTED, "test");
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        revocation_begin(h->session, REFUSAL_NOT_PERMITTED, "test");
        revocation_wait_all(core.broker, WAIT_MS);
        assert_int_equal(of_vfio(&vfio.unmapped), 2);
}

/* Only the session that ends is cut off. */
static void another_sessions_group_is_left_alone(void **state) {
        uint64_t domain;
        struct holder *h = scene(&domain), *other = holder_open("beta");

        (void)state;
        revocation_begin(other->session, REFUSAL_NOT_PERMITTED, "test");
        EVENTUALLY(charged("beta", RESOURCE_SESSIONS) == 0);
        assert_int_equal(of_vfio(&vfio.unmapped), 0);
        assert_true(is_leased());
        assert_true(child_is_alive(h));
}

static void a_lent_group_is_lent_to_nobody_else(void **state) {
        uint64_t domain, second;
        struct holder *h = scene(&domain), *other = holder_open("beta");

        (void)state;
        second = make_domain(h);
        assert_int_equal(take(other, 1), REFUSAL_DEVICE_BUSY);
        assert_int_equal(take(h, second), REFUSAL_DEVICE_BUSY);
        assert_int_equal(take(h, domain), REFUSAL_NONE);
        lease_drop(core.broker, GROUP);
        assert_int_equal(take(other, 1), REFUSAL_NONE);
}

/* Given back, but somebody still has it open: an orphan, lent to nobody until it proves to be free. */
static void an_orphan_is_named_and_not_lent(void **state) {
        uint64_t domain;
        struct holder *h = scene(&domain), *other = holder_open("beta");

        (void)state;
        pthread_mutex_lock(&vfio.lock);
        vfio.busy = true;
        pthread_mutex_unlock(&vfio.lock);
        revocation_begin(h->session, REFUSAL_NOT_PERMITTED, "test");
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        assert_int_equal(lease_count_orphans(core.broker), 1);
        assert_int_equal(take(other, 1), REFUSAL_DEVICE_ORPHANED);
        pthread_mutex_lock(&vfio.lock);
        vfio.busy = false;
        pthread_mutex_unlock(&vfio.lock);
        lease_check_orphans(core.broker);
        assert_int_equal(lease_count_orphans(core.broker), 0);
        assert_int_equal(take(other, 1), REFUSAL_NONE);
}

/* I10: a client that keeps many devices open holds up nobody whose device is free. */
static void orphans_that_stay_do_not_hide_others(void **state) {
        struct lease l;
        uint64_t domain;

        (void)state;
        scene(&domain);
        pthread_mutex_lock(&vfio.lock);
        vfio.busy = true;
        vfio.free_group = 1200;
        pthread_mutex_unlock(&vfio.lock);
        for (uint32_t group = 1001; group <= 1200; group++)
                lease_adopt_orphan(core.broker, 0, "beta", group, DEVICE);
        assert_int_equal(lease_count_orphans(core.broker), 200);
        lease_check_orphans(core.broker);
        assert_int_equal(lease_count_orphans(core.broker), 199);
        assert_false(lease_describe(core.broker, 1200, &l));
        assert_true(lease_describe(core.broker, 1001, &l));
}

/* ---- sPAPR: a process of the holder's revokes, and says so ---- */

static void set(int *what, int value) {
        LOCK_SCOPE(&vfio.lock);
        *what = value;
}

static void set_busy(bool busy) {
        LOCK_SCOPE(&vfio.lock);
        vfio.busy = busy;
}

/* As the holder does when it has made a container. */
static void send_revoker(struct holder *h, uint32_t group) {
        struct {
                struct link_header header;
                struct link_revoker revoker;
        } m = { { .version = LINK_VERSION, .type = LINK_REVOKER }, { .group = group } };
        int fd;

        assert_int_equal(open_null(&fd), 0);
        assert_int_equal(fdmsg_send(h->link, &m, sizeof m, &fd, 1, 0), 0);
        close(fd);
}

static bool has_revoker(void) {
        struct lease l;

        return lease_describe(core.broker, GROUP, &l) && l.keepers.revoker_fd >= 0;
}

static struct holder *spapr_scene(uint64_t *ret_domain) {
        struct holder *h = scene_on(BACKEND_VFIO_SPAPR, ret_domain);

        send_revoker(h, GROUP);
        EVENTUALLY(has_revoker());
        return h;
}

static void the_revokers_word_ends_a_session(void **state) {
        uint64_t domain;
        struct holder *h = spapr_scene(&domain);

        (void)state;
        set(&vfio.revoker_says, -EINPROGRESS);
        revocation_begin(h->session, REFUSAL_NOT_PERMITTED, "test");
        EVENTUALLY(of_vfio(&vfio.asked) >= 4);
        assert_false(child_is_alive(h));
        assert_int_equal(charged("alpha", RESOURCE_SESSIONS), 1);
        assert_true(is_leased());
        set(&vfio.revoker_says, 0);
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        assert_int_equal(of_vfio(&vfio.unmapped), 0);   /* the kernel would answer the broker EPERM */
        assert_int_equal(of_vfio(&vfio.bad), 0);
        assert_false(is_leased());
}

/* Holder and revoker killed at once: only the client that closes its device ends it. */
static void without_a_revoker_a_session_stays_charged_until_its_device_is_closed(void **state) {
        uint64_t domain;
        struct holder *h = spapr_scene(&domain), *other = holder_open("beta");

        (void)state;
        set(&vfio.revoker_says, -ENOTRECOVERABLE);
        set_busy(true);
        revocation_begin(h->session, REFUSAL_NOT_PERMITTED, "test");
        EVENTUALLY(lease_any_unrevoked(core.broker, h->session->id));
        assert_int_equal(charged("alpha", RESOURCE_SESSIONS), 1);
        assert_int_equal(charged("alpha", RESOURCE_DOMAINS), 1);
        assert_int_equal(lease_count_orphans(core.broker), 1);
        assert_int_equal(take(other, 1), REFUSAL_DEVICE_ORPHANED);
        set_busy(false);
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        assert_int_equal(lease_count_orphans(core.broker), 0);
        assert_int_equal(take(other, 1), REFUSAL_NONE);
}

/* It died while it made the container: nobody has the device, so that the kernel gives it out when the keepers are closed. */
static void a_holder_that_sent_no_revoker_holds_nothing_up(void **state) {
        uint64_t domain;
        struct holder *h = scene_on(BACKEND_VFIO_SPAPR, &domain);

        (void)state;
        revocation_begin(h->session, REFUSAL_NOT_PERMITTED, "test");
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        assert_int_equal(of_vfio(&vfio.asked), 0);
        assert_false(is_leased());
}

static void what_is_no_revoker_ends_the_session_of_who_sent_it(void **state) {
        uint64_t domain;
        struct holder *h = scene_on(BACKEND_VFIO_SPAPR, &domain);

        (void)state;
        vfio.not_revokers = true;
        send_revoker(h, GROUP);
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        assert_int_equal(of_vfio(&vfio.asked), 0);
}

static void nobody_gives_another_sessions_group_a_revoker(void **state) {
        uint64_t domain;
        struct holder *h = scene_on(BACKEND_VFIO_SPAPR, &domain), *other = holder_open("beta");

        (void)state;
        send_revoker(other, GROUP);
        EVENTUALLY(charged("beta", RESOURCE_SESSIONS) == 0);
        assert_false(has_revoker());
        assert_true(child_is_alive(h));
}

/* More than fit in one of anything. */
static void every_group_of_a_session_is_revoked(void **state) {
        uint64_t domain;
        struct holder *h = scene(&domain);
        struct refusal r;
        int container, group;
        bool fresh;

        (void)state;
        for (uint32_t n = 1; n < 100; n++) {
                assert_int_equal(lease_take(core.broker, h->session, domain, GROUP + n, DEVICE, &fresh, &container, &group, &r), 0);
                fd_close(container);
                fd_close(group);
        }
        revocation_begin(h->session, REFUSAL_NOT_PERMITTED, "test");
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        assert_int_equal(of_vfio(&vfio.unmapped_after_death) >= 100, 1);
        EVENTUALLY((lease_check_orphans(core.broker), lease_count_orphans(core.broker) == 0));
}

#define T(f) cmocka_unit_test_setup_teardown(f, core_setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(everything_is_unmapped_again_after_the_holders_death),
                T(what_cannot_be_unmapped_stays_charged_and_is_tried_again),
                T(what_was_under_way_stays_charged_until_then),
                T(the_end_is_in_the_ledger_before_it_begins),
                T(a_session_is_revoked_once),
                T(another_sessions_group_is_left_alone),
                T(a_lent_group_is_lent_to_nobody_else),
                T(an_orphan_is_named_and_not_lent),
                T(orphans_that_stay_do_not_hide_others),
                T(every_group_of_a_session_is_revoked),
                T(the_revokers_word_ends_a_session),
                T(without_a_revoker_a_session_stays_charged_until_its_device_is_closed),
                T(a_holder_that_sent_no_revoker_holds_nothing_up),
                T(what_is_no_revoker_ends_the_session_of_who_sent_it),
                T(nobody_gives_another_sessions_group_a_revoker),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
