/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* When the client goes, devices reach nothing of it any more, and the broker hears of it after that. */
#include "test_holder_harness.h"

#define DOMAIN 5
#define SIZE (16 * PAGE)

static uint8_t *map;

/* client: whose pidfd goes along. */
static int begin(struct holder *h, pid_t client, int *ret_device) {
        int fd = memory_new(SIZE, 0, &map);
        struct session_msg m;

        holder_default_setup(h);
        holder_setup(h, NULL);
        holder_give_client(h, client);
        client_expect(h, SESSION_TOKEN, &m, NULL);
        assert_done(register_fd(h, 1, fd, SIZE, LINK_REGISTER_SEAL, NULL));
        for (uint64_t d = DOMAIN; d < DOMAIN + 3; d++) {
                assert_done(link_op(h, LINK_DOMAIN_CREATE, d, 0, NULL, 0, NULL));
                assert_done(map_one(h, d, 0x10000, 2 * PAGE, 1, 0, READ_WRITE));
        }
        assert_done(attach(h, DOMAIN, 8, 0, "edu0", NULL));
        ack(h, DOMAIN, 8);
        *ret_device = client_device(h, 8);
        assert_true(device_copies(*ret_device, 0x10000, 0x11000, map, map + PAGE, 0x21));
        return fd;
}

static void check_gone(struct holder *h, int device) {
        static struct seen seen;
        struct message m;

        link_expect(h, LINK_CLIENT_GONE, &m);
        assert_false(device_copies(device, 0x10000, 0x11000, map, map + PAGE, 0x43));
        dump(h, &seen);
        assert_int_equal(seen.n_domains, 3);
        assert_int_equal(seen.n_mappings, 0);
        assert_refused(map_one(h, DOMAIN, 0x10000, PAGE, 1, 0, READ_WRITE), UNKNOWN_SESSION);
        assert_refused(link_op(h, LINK_DOMAIN_CREATE, 99, 0, NULL, 0, NULL), UNKNOWN_SESSION);
}

static void test_hang_up(void **state) {
        struct holder h;
        int device, fd = begin(&h, 0, &device);

        (void)state;
        h.client = fd_close(h.client);
        check_gone(&h, device);
        close(device);
        close(fd);
        holder_end(&h);
}

/* Half a hang-up is one: the client will ask for nothing more. */
static void test_half_hang_up(void **state) {
        struct holder h;
        int device, fd = begin(&h, 0, &device);

        (void)state;
        assert_int_equal(shutdown(h.client, SHUT_WR), 0);
        check_gone(&h, device);
        close(device);
        close(fd);
        holder_end(&h);
}

/* The connection may live on in somebody to whom the client gave it, here in this test. */
static void test_death_with_an_open_connection(void **state) {
        struct holder h;
        pid_t client = fork();
        int device, fd;

        (void)state;
        if (client == 0)
                for (;;)
                        pause();
        fd = begin(&h, client, &device);
        assert_false(readable(h.link, 100));
        kill(client, SIGKILL);
        check_gone(&h, device);
        waitpid(client, NULL, 0);
        close(device);
        close(fd);
        holder_end(&h);
}

#define BATCHES 40U
#define ATTEMPTS 20

/* Of many batches, how many the holder had done before the client went, and how many it refused as the client was gone when their
 * turn came. */
static unsigned refused_in_line(unsigned *ret_done) {
        static struct link_map_entry e[LINK_BATCH_MAX];
        struct holder h;
        int device, fd = begin(&h, 0, &device);
        struct message m;
        unsigned refused = 0;

        for (size_t i = 0; i < LINK_BATCH_MAX; i++)
                e[i] = (struct link_map_entry){ .length = PAGE * 16, .memory = 1, .access = READ_WRITE };
        for (uint64_t b = 0; b < BATCHES; b++) {
                for (size_t i = 0; i < LINK_BATCH_MAX; i++)
                        e[i].iova = (1 << 20) + (b * LINK_BATCH_MAX + i) * PAGE * 16;
                link_post(&h, LINK_MAP, ++h.seq, DOMAIN, LINK_BATCH_MAX, e, sizeof e, NULL, 0);
        }
        for (*ret_done = 0; readable(h.link, 0); ++*ret_done)
                assert_true(link_read(&h, &m));
        h.client = fd_close(h.client);
        for (unsigned results = *ret_done, gone = 0; results < BATCHES || !gone;) {
                assert_true(link_read(&h, &m));
                gone += m.header.type == LINK_CLIENT_GONE;
                results += m.header.type == LINK_RESULT;
                if (m.header.type == LINK_RESULT && m.result.refusal.reason == REFUSAL_UNKNOWN_SESSION)
                        refused++;
        }
        assert_false(device_copies(device, 1 << 20, 0x11000, map, map + PAGE, 0x43));
        close(device);
        close(fd);
        holder_end(&h);
        return refused;
}

/* Operations that wait in line do not keep the mappings alive. On a busy machine the holder may have done much of the line before
 * we hang up: then it says nothing, and there is another one. */
static void test_overtakes_the_queue(void **state) {
        unsigned refused = 0, done = BATCHES;

        (void)state;
        for (int i = 0; i < ATTEMPTS && done > BATCHES / 4; i++)
                refused = refused_in_line(&done);
        print_message("%u of %u batches came too late\n", refused, BATCHES);
        assert_true(refused > BATCHES / 2);     /* more than what can be on its way to the queue */
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_hang_up),
                cmocka_unit_test(test_half_hang_up),
                cmocka_unit_test(test_death_with_an_open_connection),
                cmocka_unit_test(test_overtakes_the_queue),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
