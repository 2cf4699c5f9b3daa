/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/*
 * A client gets its device's fd only when the service of today has said that it keeps what revokes it: after a restart it says
 * so of each attachment anew, as the holder gives out nothing on the word of a service that is gone.
 */
#include "test_core_crash.h"

static void dump_attachment(struct holder *h, uint64_t domain, uint64_t attachment, bool acked) {
        struct link_dump_attachment m = { .attach = { .attachment = attachment, .backend = BACKEND_SOFT,
                                                      .group = BROKER_SOFT_GROUP_BASE }, .acked = acked };

        strcpy(m.attach.device, SOFT_DEVICE);
        dump_send(h, LINK_DUMP_ATTACHMENT, domain, 0, &m, sizeof m);
}

static void restart_with(bool acked) {
        uint64_t domain, attachment;
        struct holder *h;

        core_start_with_device();
        h = holder_open("alpha");
        domain = make_domain(h);
        attachment = attach_device(h, domain, &(struct container_info){ 0 });
        EVENTUALLY(sql("SELECT count(*) FROM op WHERE settled = 0") == 0);
        crash(h);
        core_start();
        come_back(h);
        dump_domain(h, domain, NULL, 0);
        dump_attachment(h, domain, attachment, acked);
        holder_done(h);
        holder_expect_ack(h, attachment);
        EVENTUALLY(is_back(h));
}

static void the_last_service_had_not_said_so(void **state) {
        (void)state;
        restart_with(false);
}

static void the_last_service_had(void **state) {
        (void)state;
        restart_with(true);
}

#define T(f) cmocka_unit_test_setup_teardown(f, core_setup, core_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(the_last_service_had_not_said_so),
                T(the_last_service_had),
        };

        return cmocka_run_group_tests_name("core: what the holder is told of attachments", tests, NULL, NULL);
}
