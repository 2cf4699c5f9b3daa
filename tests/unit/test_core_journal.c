/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker util */
/*
 * Group commit, on a scripted ledger: first in first out, deferred entries with the next commit, one entry's fault not its
 * neighbours', a deferred entry that failed is tried again, nobody applies while somebody else does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "core/journal.h"
#include "util/log.h"

/* ---- the scripted ledger: what journal.c asks of db/ ---- */

static struct {
        char committed[4096];   /* names of entries, in the order in which they became durable */
        char open[4096];        /* of the open transaction */
        unsigned transactions, rollbacks, fail_begin, fail_commit;
        atomic_int inside;      /* threads between begin and commit */
        bool overlapped;
        unsigned commit_us;
        bool unwell;            /* what failed would fail for any other, too */
} disk;

static void append(char *text, size_t size, const char *more) {
        size_t n = strlen(text);

        assert_true(n + strlen(more) < size);
        memcpy(text + n, more, strlen(more) + 1);
}

int ledger_begin(struct ledger *l, struct refusal *r) {
        (void)l;
        if (atomic_fetch_add(&disk.inside, 1) != 0)
                disk.overlapped = true;
        disk.open[0] = '\0';
        if (disk.fail_begin == 0)
                return 0;
        disk.fail_begin--;
        atomic_fetch_sub(&disk.inside, 1);
        return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "begin");
}

bool ledger_is_unwell(struct ledger *l) {
        (void)l;
        return disk.unwell;
}

int ledger_commit(struct ledger *l, struct refusal *r) {
        (void)l;
        if (disk.commit_us > 0)
                usleep(disk.commit_us);
        if (disk.fail_commit > 0) {
                disk.fail_commit--;
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "commit");
        }
        append(disk.committed, sizeof disk.committed, disk.open);
        disk.transactions++;
        atomic_fetch_sub(&disk.inside, 1);
        return 0;
}

void ledger_rollback(struct ledger *l) {
        (void)l;
        disk.rollbacks++;
        atomic_fetch_sub(&disk.inside, 1);
}

/* ---- entries ---- */

struct named {
        struct journal_entry entry;
        char name;
        unsigned fail;          /* how often it still fails */
        unsigned applied, done;
};

static char done_order[64];

static int apply(struct journal_entry *entry, struct ledger *l, struct refusal *r) {
        struct named *e = (struct named *)entry;
        const char text[2] = { e->name, '\0' };

        (void)l;
        e->applied++;
        if (e->fail > 0) {
                e->fail--;
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "entry %c", e->name);
        }
        append(disk.open, sizeof disk.open, text);
        return 0;
}

static void done(struct journal_entry *entry) {
        struct named *e = (struct named *)entry;

        e->done++;
        done_order[strlen(done_order)] = e->name;
}

static struct named named(char name, unsigned fail) {
        return (struct named){ .entry = { .apply = apply, .done = done }, .name = name, .fail = fail };
}

static int setup(void **state) {
        memset(&disk, 0, sizeof disk);
        memset(done_order, 0, sizeof done_order);
        log_set_max_level(LOG_EMERG);
        *state = journal_new(NULL);
        return *state ? 0 : -1;
}

static int teardown(void **state) {
        journal_free(*state);
        return 0;
}

/* ---- tests ---- */

static void a_commit_is_durable_on_return(void **state) {
        struct named a = named('a', 0);
        struct refusal r;

        assert_int_equal(journal_commit(*state, &a.entry, &r), 0);
        assert_string_equal(disk.committed, "a");
        assert_int_equal(a.applied, 1);
        assert_int_equal(a.done, 0);            /* only deferred entries are called back */
}

static void deferred_entries_wait_for_the_next_commit_and_come_first(void **state) {
        struct named a = named('a', 0), b = named('b', 0), c = named('c', 0);
        struct refusal r;

        journal_defer(*state, &a.entry);
        journal_defer(*state, &b.entry);
        assert_string_equal(disk.committed, "");
        assert_int_equal(a.done, 0);
        assert_int_equal(journal_commit(*state, &c.entry, &r), 0);
        assert_string_equal(disk.committed, "abc");
        assert_int_equal(disk.transactions, 1);
        assert_string_equal(done_order, "ab");
}

static void a_flush_commits_what_is_deferred_and_nothing_when_nothing_is(void **state) {
        struct named a = named('a', 0);
        struct refusal r;

        assert_int_equal(journal_flush(*state, &r), 0);
        assert_int_equal(disk.transactions, 0);
        journal_defer(*state, &a.entry);
        assert_int_equal(journal_flush(*state, &r), 0);
        assert_string_equal(disk.committed, "a");
        assert_int_equal(a.done, 1);
        assert_int_equal(journal_flush(*state, &r), 0);
        assert_int_equal(disk.transactions, 1);
}

static void what_is_deferred_is_committed_before_the_journal_goes(void **state) {
        struct named a = named('a', 0);

        journal_defer(*state, &a.entry);
        *state = journal_free(*state);
        assert_null(*state);
        assert_string_equal(disk.committed, "a");
        assert_int_equal(a.done, 1);
}

static void a_neighbours_fault_does_not_become_mine(void **state) {
        struct named a = named('a', 0), bad = named('x', 2), c = named('c', 0);
        struct refusal r = { 0 };

        journal_defer(*state, &a.entry);
        journal_defer(*state, &bad.entry);
        assert_int_equal(journal_commit(*state, &c.entry, &r), 0);
        assert_string_equal(disk.committed, "ac");
        assert_int_equal(a.done, 1);
        assert_int_equal(bad.done, 0);
        assert_int_equal(r.reason, REFUSAL_NONE);
        assert_int_equal(journal_flush(*state, &r), 0);
        assert_string_equal(disk.committed, "acx");
}

static void my_fault_is_told_to_me_alone(void **state) {
        struct named a = named('a', 0), bad = named('x', 2);
        struct refusal r;

        journal_defer(*state, &a.entry);
        assert_int_equal(journal_commit(*state, &bad.entry, &r), -1);
        assert_int_equal(r.reason, REFUSAL_LEDGER_UNAVAILABLE);
        assert_string_equal(r.text, "entry x");
        assert_string_equal(disk.committed, "a");
        assert_int_equal(a.done, 1);
}

static void a_refused_commit_is_not_tried_again(void **state) {
        struct named bad = named('x', 2), b = named('b', 0);
        struct refusal r;

        assert_int_equal(journal_commit(*state, &bad.entry, &r), -1);
        assert_int_equal(journal_commit(*state, &b.entry, &r), 0);
        assert_string_equal(disk.committed, "b");
}

static void a_deferred_entry_that_failed_is_tried_again_in_its_place(void **state) {
        struct named a = named('a', 0), bad = named('x', 2), worse = named('y', 2), late = named('l', 0);
        struct refusal r;

        journal_defer(*state, &bad.entry);
        journal_defer(*state, &a.entry);
        journal_defer(*state, &worse.entry);
        assert_int_equal(journal_flush(*state, &r), 0);
        assert_string_equal(disk.committed, "a");
        journal_defer(*state, &late.entry);
        assert_int_equal(journal_flush(*state, &r), 0);
        assert_string_equal(disk.committed, "axyl");
        assert_string_equal(done_order, "axyl");
        assert_int_equal(bad.done, 1);
}

static void a_disk_that_fails_loses_nothing_that_was_deferred(void **state) {
        struct named a = named('a', 0), b = named('b', 0), c = named('c', 0);
        struct refusal r;

        journal_defer(*state, &a.entry);
        journal_defer(*state, &b.entry);
        disk.fail_commit = 4;                   /* the group, and each of the three alone */
        assert_int_equal(journal_commit(*state, &c.entry, &r), -1);
        assert_string_equal(r.text, "commit");
        assert_int_equal(disk.rollbacks, 4);
        assert_string_equal(disk.committed, "");
        disk.fail_begin = 4;
        assert_int_equal(journal_commit(*state, &c.entry, &r), -1);
        assert_string_equal(r.text, "begin");
        assert_int_equal(a.done + b.done, 0);
        assert_int_equal(journal_flush(*state, &r), 0);
        assert_string_equal(disk.committed, "ab");
        assert_string_equal(done_order, "ab");
}

/* Ten who wait for a lock that somebody else has would else wait ten times as long, one after the other. */
static void a_fault_of_the_ledger_is_met_once_and_told_to_all(void **state) {
        struct named a = named('a', 0), b = named('b', 0), c = named('c', 0);
        struct refusal r;

        journal_defer(*state, &a.entry);
        journal_defer(*state, &b.entry);
        disk.unwell = true;
        disk.fail_begin = 1;
        assert_int_equal(journal_commit(*state, &c.entry, &r), -1);
        assert_string_equal(r.text, "begin");
        assert_string_equal(disk.committed, "");
        assert_int_equal(a.applied + b.applied + c.applied, 0);
        disk.unwell = false;
        assert_int_equal(journal_flush(*state, &r), 0);
        assert_string_equal(disk.committed, "ab");
}

/* What they hold is given back all the same: nobody else will. */
static void what_can_never_be_recorded_is_let_go_at_the_end(void **state) {
        struct named a = named('a', 0);

        journal_defer(*state, &a.entry);
        disk.unwell = true;
        disk.fail_begin = 10;
        *state = journal_free(*state);
        assert_string_equal(disk.committed, "");
        assert_int_equal(a.done, 1);
}

static struct journal *reentered;
static struct named second;

static void done_and_defer(struct journal_entry *entry) {
        done(entry);
        second = named('2', 0);
        journal_defer(reentered, &second.entry);
}

static void an_entry_may_defer_another_when_it_is_done(void **state) {
        struct named first = named('1', 0);
        struct refusal r;

        reentered = *state;
        first.entry.done = done_and_defer;
        journal_defer(*state, &first.entry);
        assert_int_equal(journal_flush(*state, &r), 0);
        assert_string_equal(disk.committed, "1");
        assert_int_equal(journal_flush(*state, &r), 0);
        assert_string_equal(disk.committed, "12");
        assert_int_equal(second.done, 1);
}

/* ---- threads ---- */

#define THREADS 8
#define EACH 40

struct committer {
        struct journal *journal;
        char name;
        int failed;
};

static void *commit_many(void *arg) {
        struct committer *c = arg;
        struct refusal r;

        for (unsigned i = 0; i < EACH; i++) {
                struct named e = named(c->name, 0);

                c->failed += journal_commit(c->journal, &e.entry, &r) < 0;
        }
        return NULL;
}

static void many_committers_share_transactions_and_never_overlap(void **state) {
        struct committer c[THREADS];
        pthread_t threads[THREADS];
        unsigned count[256] = { 0 };

        disk.commit_us = 200;
        for (int i = 0; i < THREADS; i++) {
                c[i] = (struct committer){ *state, (char)('A' + i), 0 };
                assert_int_equal(pthread_create(&threads[i], NULL, commit_many, &c[i]), 0);
        }
        for (int i = 0; i < THREADS; i++) {
                pthread_join(threads[i], NULL);
                assert_int_equal(c[i].failed, 0);
        }
        for (const char *p = disk.committed; *p; p++)
                count[(unsigned char)*p]++;
        for (int i = 0; i < THREADS; i++)
                assert_int_equal(count['A' + i], EACH);
        assert_false(disk.overlapped);
        assert_true(disk.transactions < THREADS * EACH);        /* some rode on another's commit */
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(a_commit_is_durable_on_return),
                T(deferred_entries_wait_for_the_next_commit_and_come_first),
                T(a_flush_commits_what_is_deferred_and_nothing_when_nothing_is),
                T(what_is_deferred_is_committed_before_the_journal_goes),
                T(a_neighbours_fault_does_not_become_mine),
                T(my_fault_is_told_to_me_alone),
                T(a_refused_commit_is_not_tried_again),
                T(a_deferred_entry_that_failed_is_tried_again_in_its_place),
                T(a_disk_that_fails_loses_nothing_that_was_deferred),
                T(a_fault_of_the_ledger_is_met_once_and_told_to_all),
                T(what_can_never_be_recorded_is_let_go_at_the_end),
                T(an_entry_may_defer_another_when_it_is_done),
                T(many_committers_share_transactions_and_never_overlap),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
