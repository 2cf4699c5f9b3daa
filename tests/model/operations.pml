/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intent, apply, settle: one session with two domains that map the same two pages, its two client threads, the broker with
 * its journal, the ledger, the holder with a worker per domain, and crashes of broker and holder at any step. README.md says
 * what stands for what.
 *
 * Nothing is counted: any number of requests, crashes, refusals and ledger faults, in any order. Where the service has numbers
 * that never repeat (request keys, sequence numbers) only what can still be compared is kept, so that there are finitely many
 * states.
 *
 * Mistakes that must be found are in #ifdef; test_model.sh has their names.
 */

#include "reached.pml"

#define WHOLE 3                 /* a set of pages, a bit each */
#define HALF 1
#define other(d) (1 - (d))

mtype:kind = { NOTHING, MAP, UNMAP, LAZY, FLUSH, REPLACE };     /* LAZY: its intent; FLUSH: the act */
mtype:node = { FREE, INTENDED, LIVE, UNMAPPING, DEFERRED, REPLACING, QUARANTINED };
mtype:phase = { IDLE, QUEUED, COMMITTED, SENT };
mtype:stage = { DOWN, DETACHED, SERVING, ENDING, REVOKED, ENDED };
mtype:reply = { NONE, DONE, REFUSED, UNDO_FAILED };
mtype:thread = { RESTING, WAITING, REPEATING, HOMELESS };
mtype:entry = { INTEND, SETTLE_DONE, SETTLE_REFUSED, SETTLE_PART };

/* ---- the kernel: what devices of a domain can reach; goes with the last fd of the container ---- */
byte translated[2];

/* ---- the ledger (durable) ---- */
mtype:stage session_row = SERVING;      /* SERVING, ENDING, ENDED: no row */
byte row[2];                            /* mapping rows of a domain: the pages that they cover */
mtype:kind open_kind[2] = NOTHING;      /* its operation that is intended and not settled */
byte open_new[2], open_key[2];
mtype:reply answer[2] = NONE;           /* of settled operations: to the request that the client may still repeat */

/* ---- the broker (memory) ---- */
mtype:stage stage = SERVING;
bool keeper = true;                     /* duplicates of the containers' fds */
mtype:node node[2] = FREE;              /* a domain's mapping */
byte pages[2];                          /* ... of which pages */
byte charged[2];                        /* per page: how many mappings it is charged for; once per tenant (I5) */
mtype:phase phase[2] = IDLE;            /* the operation under way in a domain */
mtype:kind kind[2] = NOTHING;
byte new[2], key[2];                    /* what is to be mapped afterwards; key 0: nobody's request (a flush) */
mtype:reply known[2] = NONE;            /* as answer[] */
chan journal = [4] of { mtype:entry, byte };    /* the queue, with the domain: at most a settle and an intent of each */

/* ---- the link, and the holder (memory, but for what is in the sockets) ---- */
bool holder = true, killed;
mtype:kind message[2] = NOTHING;        /* to the worker of a domain */
byte message_new[2], message_key[2];
bool message_again[2];                  /* its sequence number is that of the one before */
bool half[2];                           /* the worker is in the middle of it */
byte before[2];
bool stuck[2];                          /* a failure could not be undone: the domain is quarantined */
mtype:reply done[2] = NONE;             /* results.c: how the newest ended, by its sequence number */
mtype:reply result[2] = NONE;           /* to the broker */

/* ---- a client's thread for each domain ---- */
mtype:thread thread[2] = RESTING;
byte told[2];                           /* what it was told to be mapped */
byte wanted[2];                         /* what will be when its request is done */
mtype:kind request[2] = NOTHING;
byte request_key[2];                    /* 1 or 2, what the one before had not */
mtype:reply reply[2] = NONE;            /* on its way to it */
bool effect[2];                         /* ghost: its request was carried out */
mtype:reply first[2] = NONE;            /* ghost: the first answer to its request that said DONE */

/* ---- small things ---- */

#define container_is_open (holder || keeper)
#define is_charged(p, set) (((set) >> (p)) & 1)

inline kernel_closes() {
        if
        :: !container_is_open -> translated[0] = 0; translated[1] = 0
        :: else
        fi
}

inline charge(set) {
        charged[0] = charged[0] + is_charged(0, set);
        charged[1] = charged[1] + is_charged(1, set)
}

inline refund(set) {
        charged[0] = charged[0] - is_charged(0, set);
        charged[1] = charged[1] - is_charged(1, set)
}

/* ---- the client ---- */

inline ask(d, what, then) {
        request[d] = what;
        wanted[d] = then;
        request_key[d] = (open_key[d] == 1 -> 2 : 1);
        printf("client %d: asks for %e, key %d\n", d, request[d], request_key[d]);
        submit(d)
}

inline answered(d, how) {
        if
        :: how == DONE -> first[d] = DONE
        :: else
        fi;
        if
        :: thread[d] == WAITING -> reply[d] = how
        :: else                 /* nobody listens any more */
        fi
}

/* It never repeats this request again. */
inline rest(d) {
        thread[d] = RESTING;
        request[d] = NOTHING;
        request_key[d] = 0;
        wanted[d] = told[d];
        reply[d] = NONE;
        known[d] = NONE;
        answer[d] = NONE;
        effect[d] = false;
        first[d] = NONE
}

/* op.c, begin() and admit(): with the session's lock held. */
inline submit(d) {
        thread[d] = WAITING;
        if
        :: phase[d] != IDLE && key[d] == request_key[d] ->
                printf("broker: %d is under way\n", request_key[d]);
                thread[d] = REPEATING
        :: else ->
                if
                :: known[d] != NONE ->
                        printf("broker: knows key %d: %e\n", request_key[d], known[d]);
                        answered(d, known[d])
                :: else -> admit(d)
                fi
        fi
}

#ifdef UNMAP_IN_PARTS           /* more than fits into one message: an operation for each part, the last has the key */
#define first_part(d) (pages[d] == WHOLE -> WHOLE & ~HALF : 0)
#else
#define first_part(d) 0
#endif

inline admit(d) {
        if
        :: phase[d] == IDLE && node[d] == FREE && request[d] == MAP ->
                node[d] = INTENDED;
                pages[d] = wanted[d];
                charge(wanted[d]);
                enqueue(d, MAP, wanted[d], request_key[d])
        :: phase[d] == IDLE && node[d] == LIVE && request[d] == UNMAP ->
                node[d] = UNMAPPING;
#ifdef REFUND_BEFORE_UNMAP
                refund(pages[d]);
#endif
                enqueue(d, UNMAP, first_part(d), request_key[d])
        :: phase[d] == IDLE && node[d] == LIVE && request[d] == LAZY ->
                node[d] = UNMAPPING;
                enqueue(d, LAZY, 0, request_key[d])
        :: phase[d] == IDLE && node[d] == LIVE && request[d] == REPLACE ->
                node[d] = REPLACING;
                charge(wanted[d]);      /* the new first, the old is given back when it is gone */
                enqueue(d, REPLACE, wanted[d], request_key[d])
        :: else ->                      /* being changed, or not flushed yet: the IOVA is not free */
                printf("broker: refuses, %e\n", node[d]);
                answered(d, REFUSED)
        fi
}

inline enqueue(d, what, then, k) {
        kind[d] = what;
        new[d] = then;
        key[d] = k;
        phase[d] = QUEUED;
        journal!INTEND, d
}

/* The clients ask for what makes sense after what they were told. The second one has plain requests only. */
#define may_ask(d) (thread[d] == RESTING && stage == SERVING)

proctype Client(byte d) {
        do
        :: d_step { may_ask(d) && told[d] == 0 -> ask(d, MAP, WHOLE) }
        :: d_step { may_ask(d) && told[d] != 0 -> ask(d, UNMAP, 0) }
        :: d_step { d == 0 && may_ask(d) && told[d] != 0 -> ask(d, LAZY, 0) }
        :: d_step { d == 0 && may_ask(d) && told[d] == WHOLE -> ask(d, REPLACE, HALF) }
        :: d_step { d == 0 && may_ask(d) && told[d] == HALF -> ask(d, REPLACE, WHOLE) }
        :: d_step { thread[d] == REPEATING && stage == SERVING ->
                printf("client %d: repeats key %d\n", d, request_key[d]);
                submit(d)
           }
        :: d_step { thread[d] == WAITING && reply[d] == DONE ->
                printf("client %d: hears that %e is done\n", d, request[d]);
                told[d] = wanted[d];
                rest(d)
           }
        :: d_step { thread[d] == WAITING && reply[d] == REFUSED ->
                printf("client %d: hears that %e is refused\n", d, request[d]);
                rest(d)
           }
        :: d_step { thread[d] == WAITING ->
                printf("client %d: waits no longer\n", d);
                reply[d] = NONE;
                thread[d] = REPEATING
           }
        :: d_step { thread[d] != HOMELESS && stage == ENDED ->
                printf("client %d: hears that its session is gone\n", d);
                thread[d] = HOMELESS
           }
        od
}

/* ---- the ledger's transactions ---- */

inline record_answer(d, k, how) {
        if
        :: k != 0 && k == request_key[d] -> answer[d] = how
        :: else
        fi
}

inline write_intent(d) {
        assert(open_kind[d] == NOTHING);        /* journal.h: a settle is in the ledger before a later intent */
        open_kind[d] = kind[d];
        open_new[d] = new[d];
        open_key[d] = key[d];
        if
        :: kind[d] == MAP -> row[d] = new[d]
        :: else
        fi
}

inline close_record(d) {
        open_kind[d] = NOTHING;
        open_new[d] = 0;
        open_key[d] = 0;
        done[d] = NONE                  /* the holder may forget it */
}

/* A replace has no row of its own for what it makes: the record has it, as rows of one domain do not overlap. */
inline settle_done(d) {
        record_answer(d, open_key[d], DONE);
        if
        :: open_kind[d] == MAP
        :: open_kind[d] == UNMAP || open_kind[d] == LAZY || open_kind[d] == REPLACE -> row[d] = open_new[d]
        fi;
        close_record(d)
}

inline settle_refused(d) {
        if
        :: open_kind[d] == MAP -> row[d] = 0
        :: else
        fi;
        close_record(d)
}

/* ---- the broker ---- */

inline op_over(d) {
        phase[d] = IDLE;
        kind[d] = NOTHING;
        new[d] = 0;
        key[d] = 0
}

/* finish(): the mapping's final state in memory. */
inline finish(d, how) {
        if
        :: kind[d] == MAP && how == DONE -> here; node[d] = LIVE
        :: kind[d] == MAP && how == REFUSED -> here; refund(pages[d]); node[d] = FREE; pages[d] = 0
        :: (kind[d] == UNMAP || kind[d] == FLUSH) && how == DONE ->
                here;
#ifdef REFUND_BEFORE_UNMAP
                if
                :: kind[d] == UNMAP
                :: else -> refund(pages[d])
                fi;
#else
                refund(pages[d]);
#endif
                node[d] = FREE;
                pages[d] = 0
        :: kind[d] == UNMAP && how == REFUSED ->
                here;
#ifdef REFUND_BEFORE_UNMAP
                charge(pages[d]);
#endif
                node[d] = LIVE
        :: kind[d] == FLUSH && how == REFUSED -> here           /* waits on */
        :: kind[d] == LAZY && how == REFUSED -> here; node[d] = LIVE
        :: kind[d] == LAZY && how == DONE -> here; node[d] = DEFERRED
        :: kind[d] == REPLACE && how == DONE -> here; refund(pages[d]); pages[d] = new[d]; node[d] = LIVE
        :: kind[d] == REPLACE && how == REFUSED -> here; refund(new[d]); node[d] = LIVE
        fi
}

/* op_complete(): finish, queue the settle, answer. */
inline complete(d, how) {
        printf("broker: %e in domain %d: %e\n", kind[d], d, how);
        finish(d, how);
        if
        :: kind[d] == LAZY || kind[d] == FLUSH && how == REFUSED        /* open until it was flushed */
        :: kind[d] != LAZY && how == DONE -> journal!SETTLE_DONE, d
        :: kind[d] != LAZY && kind[d] != FLUSH && how == REFUSED -> journal!SETTLE_REFUSED, d
        fi;
        if
        :: key[d] != 0 && key[d] == request_key[d] -> known[d] = how; answered(d, how)
        :: else
        fi;
        op_over(d)
}

/* Half of it was done: the intent stays open and explains it, charged, until the session ends; the client hears so. */
inline complete_stuck(d) {
        printf("broker: %e in domain %d is done by half: quarantined\n", kind[d], d);
        if
        :: kind[d] == REPLACE || kind[d] == LAZY -> assert(false)       /* not by halves */
        :: else
        fi;
        node[d] = QUARANTINED;
        if
        :: key[d] != 0 && key[d] == request_key[d] -> known[d] = REFUSED; answered(d, REFUSED)
        :: else
        fi;
        op_over(d)
}

#ifdef UNMAP_IN_PARTS
inline hand_on(d) {
        refund(pages[d] & ~new[d]);
        pages[d] = new[d];
        new[d] = 0;
        journal!SETTLE_PART, d;
        phase[d] = QUEUED;
        journal!INTEND, d
}
#endif

/* op_never_happened(): the key is forgotten, the client is refused. */
inline never_happened(d) {
        printf("broker: the intent of %e in domain %d could not be recorded\n", kind[d], d);
        finish(d, REFUSED);
        if
        :: key[d] != 0 && key[d] == request_key[d] -> answered(d, REFUSED)
        :: else
        fi;
        op_over(d)
}

#ifdef ACK_BEFORE_COMMIT
#define may_send(d) (phase[d] == COMMITTED || phase[d] == QUEUED)
#else
#define may_send(d) (phase[d] == COMMITTED)
#endif

inline commit_first() {
        journal?what, d;
        if
        :: what == INTEND ->
                printf("ledger: intent of %e in domain %d\n", kind[d], d);
                write_intent(d);
                if
                :: phase[d] == QUEUED -> phase[d] = COMMITTED
                :: else                 /* only when it was sent without waiting */
                fi
        :: what == SETTLE_DONE ->
                printf("ledger: %e in domain %d is settled: done\n", open_kind[d], d);
                settle_done(d)
#ifdef UNMAP_IN_PARTS
        :: what == SETTLE_PART ->
                open_key[d] = 0;
                settle_done(d)
#endif
        :: what == SETTLE_REFUSED ->
                printf("ledger: %e in domain %d is settled: refused\n", open_kind[d], d);
                record_answer(d, open_key[d], REFUSED);
                settle_refused(d)
        fi
}

/* Group commit: everybody who waits, or as many as came before the leader took the queue. */
proctype Journal() {
        mtype:entry what;
        byte d;

        do
        :: atomic { nempty(journal) ->
                commit_first();
                do
                :: nempty(journal) -> commit_first()
                :: break
                od;
                printf("ledger: commit\n");
                what = 0; d = 0
           }
        /* An intent that cannot be written. A settle that cannot be written stays where it is, and nothing passes it. */
        :: d_step { journal?[INTEND, d] ->
                journal?INTEND, d;
                never_happened(d);
                d = 0
           }
#ifdef SETTLE_PASSED
        /* The group failed, and then each is tried alone: the settle fails again, what came behind it does not. */
        :: atomic { journal?[SETTLE_DONE, d] && len(journal) == 2 ->
                journal?what, d;
                commit_first();
                printf("ledger: commit, but for a settle before it\n");
                journal!SETTLE_DONE, d;
                what = 0; d = 0
           }
#endif
        od
}

#define is_answered(d) ((stage == SERVING || stage == ENDING) && phase[d] == SENT && result[d] != NONE)
#ifdef UNMAP_IN_PARTS
#define is_part(d) (kind[d] == UNMAP && new[d] != 0 && result[d] == DONE)
#else
#define is_part(d) false
#endif
#define broker_is_up (stage != DOWN)

proctype Broker(byte d) {
        do
        :: d_step { stage == SERVING && may_send(d) && kind[d] != LAZY && holder && message[d] == NOTHING ->
                printf("broker: sends %e to domain %d\n", kind[d], d);
                message[d] = kind[d];
                message_new[d] = new[d];
                message_key[d] = key[d];
                done[d] = NONE;
                phase[d] = SENT
           }
        :: d_step { stage == SERVING && may_send(d) && kind[d] == LAZY ->
                result[d] = DONE;
                complete(d, result[d]);
                result[d] = NONE
           }
        :: d_step { is_answered(d) && result[d] != UNDO_FAILED && !is_part(d) ->
                complete(d, result[d]);
                result[d] = NONE
           }
        :: d_step { is_answered(d) && result[d] == UNDO_FAILED ->
                complete_stuck(d);
                result[d] = NONE
           }
#ifdef UNMAP_IN_PARTS
        :: d_step { is_answered(d) && is_part(d) ->
                printf("broker: a part of %e in domain %d is done\n", kind[d], d);
                hand_on(d);
                result[d] = NONE
           }
#endif
        /* The session ends: how it ended is not known, the intent stays. */
        :: d_step { stage == ENDING && (phase[d] == COMMITTED || phase[d] == SENT) ->
                printf("broker: nobody will know of %e in domain %d\n", kind[d], d);
                op_over(d)
           }
        /* count, bytes, age, Sync: whenever */
        :: d_step { stage == SERVING && phase[d] == IDLE && node[d] == DEFERRED ->
                printf("broker: flushes domain %d\n", d);
                kind[d] = FLUSH;        /* the unmap's own intent is in the ledger */
                phase[d] = COMMITTED
           }
        od
}

/* ---- restart: recover_load.c, reconcile.c ---- */

#define may_be_mapped(d) (row[d] | open_new[d])

inline load(d) {
        charge(may_be_mapped(d))        /* whatever it will turn out to be, it is paid for */
}

#ifdef QUARANTINE_SETTLED
#define is_stuck(d) false
#else
#define is_stuck(d) stuck[d]
#endif
#ifdef LAZY_FORGOTTEN
#define is_deferred(d) false
#else
#define is_deferred(d) (open_kind[d] == LAZY && translated[d] == row[d])
#endif
#define was_applied(d) (open_kind[d] == MAP && translated[d] == open_new[d] || \
                        open_kind[d] == REPLACE && translated[d] == open_new[d] || \
                        (open_kind[d] == UNMAP || open_kind[d] == LAZY) && translated[d] == open_new[d])

/* With the holder's dump, which is what is translated: an operation that did not happen leaves no trace. A lazy unmap has
 * happened for its client as soon as it was intended, and is flushed. */
inline reconcile(d) {
        refund(may_be_mapped(d));
        known[d] = NONE;
        if
        :: open_kind[d] == NOTHING
#ifdef QUARANTINE_SETTLED
        :: open_kind[d] != NOTHING && stuck[d] ->
                printf("broker: something of %e in domain %d had been done\n", open_kind[d], d);
                settle_done(d);
                row[d] = translated[d]
#endif
        :: is_stuck(d) ->
                printf("broker: domain %d is quarantined\n", d);
                if
                :: open_key[d] != 0 && open_key[d] == request_key[d] ->
                        known[d] = (open_kind[d] == LAZY -> DONE : REFUSED)
                :: else
                fi
        :: open_kind[d] != NOTHING && !stuck[d] && was_applied(d) ->
                printf("broker: %e in domain %d had been done\n", open_kind[d], d);
                settle_done(d)
        :: open_kind[d] != NOTHING && !stuck[d] && !was_applied(d) && is_deferred(d) ->
                printf("broker: %e in domain %d is not flushed yet\n", open_kind[d], d);
#ifdef FLUSH_UNWAITED
                message[d] = UNMAP;
                settle_done(d)
#else
                record_answer(d, open_key[d], DONE)
#endif
        :: else ->
                printf("broker: %e in domain %d had not been done\n", open_kind[d], d);
                settle_refused(d)
        fi;
        if
        :: is_stuck(d) ->
                charge(may_be_mapped(d));
                pages[d] = may_be_mapped(d);
                node[d] = QUARANTINED
        :: else ->
                assert(row[d] == translated[d] || message[d] != NOTHING);       /* what recovery logs as "differ" */
                charge(row[d]);
                pages[d] = row[d];
                node[d] = (row[d] == 0 -> FREE : (open_kind[d] == LAZY -> DEFERRED : LIVE));
                known[d] = answer[d]
        fi
}

/* The mistake: do what was intended once more, and believe what comes of it. */
inline redo(d) {
        node[d] = INTENDED;
        kind[d] = MAP;
        new[d] = open_new[d];
        key[d] = open_key[d];
        phase[d] = COMMITTED
}

inline forget_broker() {
        stage = DOWN;
        keeper = false;
        charged[0] = 0;
        charged[1] = 0;
        do
        :: nempty(journal) -> journal?what, whose
        :: empty(journal) -> break
        od;
        what = 0;
        whose = 0
}

inline forget_domain(d) {
        node[d] = FREE;
        pages[d] = 0;
        op_over(d);
        known[d] = NONE;
        result[d] = NONE;
        reply[d] = NONE;
        if
        :: thread[d] == WAITING -> thread[d] = REPEATING
        :: else
        fi
}

#define drained (message[0] == NOTHING && message[1] == NOTHING)

proctype Restart() {
        mtype:entry what;       /* is lost */
        byte whose;

        do
        :: d_step { broker_is_up ->
                printf("*** the broker is killed\n");
                forget_broker();
                forget_domain(0);
                forget_domain(1);
                kernel_closes()
           }
        :: d_step { stage == DOWN ->
                printf("broker: starts\n");
                if
                :: session_row == ENDED -> stage = ENDED
                :: session_row == ENDING || session_row == SERVING && !holder -> stage = ENDING
                :: else -> stage = DETACHED
                fi;
                load(0);
                load(1)
           }
#ifndef REDO_MAP
        /* The holder is asked once more what it remembers: nothing happens twice, and the answer is what the dump will say. */
        :: d_step { stage == DETACHED && holder && drained && open_kind[0] != NOTHING && done[0] != NONE && result[0] == NONE ->
                printf("broker: repeats %e in domain 0 under its old number\n", open_kind[0]);
                message[0] = open_kind[0];
                message_new[0] = open_new[0];
                message_key[0] = open_key[0];
                message_again[0] = true
           }
#endif
        /* The dump comes behind what the holder had in its queues. */
        :: d_step { stage == DETACHED && holder && !killed && drained ->
                printf("broker: the holder is back\n");
#ifndef REDO_MAP
                assert(result[0] == NONE || (result[0] == DONE) == was_applied(0));
#endif
                result[0] = NONE;
                result[1] = NONE;
                keeper = true;
                stage = SERVING;
#ifdef REDO_MAP
                if
                :: open_kind[0] == MAP -> redo(0)
                :: else -> reconcile(0)
                fi;
                if
                :: open_kind[1] == MAP -> redo(1)
                :: else -> reconcile(1)
                fi
#else
                reconcile(0);
                reconcile(1)
#endif
           }
        od
}

/* ---- the holder ---- */

inline answer_with(d, how) {
        done[d] = how;
        half[d] = false;
        before[d] = 0;
        speak(d)
}

inline speak(d) {
        if
        :: broker_is_up -> result[d] = done[d]
        :: else                 /* the link is down: it is remembered, and the dump will tell */
        fi;
        message[d] = NOTHING;
        message_new[d] = 0;
        message_key[d] = 0;
        message_again[d] = false
}

inline take_effect(d) {
        if
        :: message_key[d] != 0 && message_key[d] == request_key[d] -> assert(!effect[d]); effect[d] = true
        :: else
        fi
}

#ifdef HOLDER_FORGETS
#define is_known(d) false
#else
#define is_known(d) (message_again[d] && done[d] != NONE)
#endif
#define is_new(d) (holder && message[d] != NOTHING && !half[d] && !is_known(d))
#define fits(d) (message[d] == MAP && translated[d] == 0 || message[d] != MAP && translated[d] != 0)

proctype Holder(byte d) {
        do
        :: d_step { holder && message[d] != NOTHING && !half[d] && is_known(d) ->
                printf("holder: remembers %e in domain %d: %e\n", message[d], d, done[d]);
                speak(d)
           }
        :: d_step { is_new(d) && !fits(d) ->
                printf("holder: %e in domain %d is refused, something is there or is not\n", message[d], d);
                answer_with(d, REFUSED)
           }
        /* A device may see a part of it. */
        :: d_step { is_new(d) && fits(d) && message[d] != REPLACE ->
                printf("holder: begins %e in domain %d\n", message[d], d);
                half[d] = true;
                before[d] = translated[d];
                translated[d] = (message[d] == MAP -> HALF : translated[d] & ~HALF)
           }
        :: d_step { is_new(d) && fits(d) && message[d] == REPLACE ->
                printf("holder: replaces in domain %d\n", d);
                translated[d] = message_new[d];
                take_effect(d);
                answer_with(d, DONE)
           }
        :: d_step { is_new(d) && fits(d) && message[d] == REPLACE ->
                printf("holder: cannot replace in domain %d\n", d);
                answer_with(d, REFUSED)
           }
        :: d_step { holder && half[d] ->
                printf("holder: %e in domain %d is done\n", message[d], d);
                translated[d] = message_new[d];
                take_effect(d);
                answer_with(d, DONE)
           }
        :: d_step { d == 0 && holder && half[d] ->
                printf("holder: %e in domain %d fails and is undone\n", message[d], d);
                translated[d] = before[d];
                answer_with(d, REFUSED)
           }
        :: d_step { d == 0 && holder && half[d] && translated[d] != message_new[d] ->
                printf("holder: %e in domain %d fails and cannot be undone\n", message[d], d);
                stuck[d] = true;
                answer_with(d, UNDO_FAILED)
           }
        od
}

/* ---- the end of a session: revocation.c ---- */

inline forget_worker(d) {
        message[d] = NOTHING;
        message_new[d] = 0;
        message_key[d] = 0;
        message_again[d] = false;
        half[d] = false;
        before[d] = 0;
        stuck[d] = false;
        done[d] = NONE
}

inline refund_all(d) {
        pages[d] = 0;
        node[d] = FREE;
        op_over(d);
        known[d] = NONE
}

inline delete_rows(d) {
        row[d] = 0;
        open_kind[d] = NOTHING;
        open_new[d] = 0;
        open_key[d] = 0;
        answer[d] = NONE
}

#define at_end (stage == ENDING && session_row == ENDING)
#define nothing_under_way (phase[0] == IDLE && phase[1] == IDLE)
#define is_unmapped (!keeper || (translated[0] | translated[1]) == 0)

proctype Revocation() {
        do
        :: d_step { holder ->
                printf("*** the holder is killed\n");
                holder = false;
                killed = false;
                forget_worker(0);
                forget_worker(1);
                kernel_closes()
           }
        :: d_step { stage == SERVING || stage == DETACHED && !holder ->
                printf("broker: ends the session\n");
                stage = ENDING
           }
        :: d_step { stage == ENDING && session_row == SERVING ->
                printf("ledger: the session is ending\n");
                session_row = ENDING
           }
        :: d_step { at_end && holder && !killed ->
                printf("broker: kills the holder\n");
                killed = true
           }
        /* Once while it may still be running, as a stuck one can take its time; once when it is gone. */
        :: d_step { at_end && (killed || !holder) && keeper && (translated[0] | translated[1]) != 0 ->
                printf("broker: unmaps everything\n");
                translated[0] = 0;
                translated[1] = 0
           }
#ifdef UNMAP_ONCE
        :: d_step { at_end && (killed || !holder) && nothing_under_way && is_unmapped ->
#else
        :: d_step { at_end && !holder && nothing_under_way && is_unmapped ->
#endif
                printf("broker: refunds everything\n");
                keeper = false;
                kernel_closes();
                charged[0] = 0;
                charged[1] = 0;
                refund_all(0);
                refund_all(1);
                stage = REVOKED
           }
        :: d_step { stage == REVOKED && empty(journal) ->
                printf("ledger: the session is gone\n");
                delete_rows(0);
                delete_rows(1);
                session_row = ENDED;
                stage = ENDED
           }
        od
}

/* ---- what must always hold ---- */

#define goes_on (session_row == SERVING && holder && !killed && stage != ENDING)
#define is_at_rest(d) (stage == SERVING && phase[d] == IDLE && open_kind[d] == NOTHING && message[d] == NOTHING)

/* I2: every translation is explained by a row, or by the record of an operation. */
#define I2(d) ((translated[d] & ~may_be_mapped(d)) == 0)
/* I3: what a client was told to be mapped is, whatever happens to the same pages in the other domain; what a replacement
 * keeps never goes; and when the last reference goes, so has the last translation: before that neither memory nor charge is
 * given back. */
#define I3_stays(d) (!goes_on || stuck[d] || thread[d] != RESTING || (translated[d] & told[d]) == told[d])
#define kept(d) (told[d] & wanted[d])
#define is_replacing(d) (request[d] == REPLACE && thread[d] != RESTING)
#define I3_kept(d) (!goes_on || stuck[d] || !is_replacing(d) || (translated[d] & kept(d)) == kept(d))
#define I3_goes(p) (!broker_is_up || charged[p] > 0 || ((translated[0] | translated[1]) >> (p)) % 2 == 0)
/* I6: after an answer, exactly what was said (or, unmapped lazily, what is still to be flushed); before it, all or nothing. */
#define is_deferred_for(d) (open_kind[d] == LAZY && told[d] == 0)
#define I6_told(d) (!goes_on || stuck[d] || thread[d] != RESTING || translated[d] == told[d] || is_deferred_for(d))
#define I6_whole(d) (!goes_on || !is_at_rest(d) || translated[d] == told[d] || translated[d] == wanted[d])
#define I6_answer(d) (!goes_on || reply[d] != DONE || translated[d] == wanted[d] || open_kind[d] == LAZY)
#define I6_first(d) (first[d] != DONE || reply[d] != REFUSED)
#define I6_agree(d) (!goes_on || !is_at_rest(d) || row[d] == translated[d] && pages[d] == row[d])
#define I6_nothing_left (stage != ENDED || row[0] + row[1] + translated[0] + translated[1] + charged[0] + charged[1] == 0)
/* I12: there is a process of ours that can revoke it. */
#define I12 ((translated[0] | translated[1]) == 0 || holder || keeper)

inline where_we_have_been() {
        reached("both domains have all pages", translated[0] == WHOLE && translated[1] == WHOLE);
        reached("one domain has given up the pages, the other has them", told[0] == 0 && wanted[0] == 0 &&
                translated[0] == 0 && told[1] == WHOLE && charged[0] == 1);
        reached("intended, not sent, the broker is gone", stage == DOWN && open_kind[0] == MAP && message[0] == NOTHING &&
                translated[0] == 0);
        reached("sent, not done, the broker is gone", stage == DOWN && message[0] != NOTHING);
        reached("acknowledged, not settled, the broker is gone", stage == DOWN && open_kind[0] == MAP && told[0] == WHOLE);
        reached("replaced, not settled, the broker is gone", stage == DOWN && open_kind[0] == REPLACE &&
                translated[0] == open_new[0]);
        reached("unmapped lazily, not flushed, the broker is gone", stage == DOWN && open_kind[0] == LAZY &&
                translated[0] == WHOLE);
        reached("half flushed, the broker is gone", stage == DOWN && open_kind[0] == LAZY && half[0]);
        reached("deferred after a restart, and asked again", stage == SERVING && node[0] == DEFERRED &&
                known[0] == DONE && thread[0] == REPEATING);
        reached("a settle and two intents in one group", len(journal) >= 3);
        reached("two settles and two intents in one group", len(journal) == 4);
        reached("a key that is known is repeated", stage == SERVING && known[0] == REFUSED && thread[0] == REPEATING);
        reached("a sequence number that is known is repeated", message_again[0] && done[0] == DONE);
        reached("the holder is gone, the broker can revoke", !holder && keeper && translated[0] == WHOLE &&
                translated[1] == HALF);
        reached("a holder that is being killed maps on", killed && stage == ENDING && half[0] && message[0] == MAP &&
                translated[0] == 0);
        reached("both are gone, and the rows are not", stage == DOWN && !holder && row[0] != 0);
        reached("quarantined, also after a restart", stuck[0] && stage == SERVING && node[0] == QUARANTINED &&
                known[0] == REFUSED && thread[0] == REPEATING);
        reached("the session is gone, and its client hears so", thread[0] == HOMELESS)
}

proctype Always() {
        do
        :: d_step {
                assert(I2(0)); assert(I2(1));
                assert(I3_stays(0)); assert(I3_stays(1));
                assert(I3_kept(0)); assert(I3_kept(1));
                assert(I3_goes(0)); assert(I3_goes(1));
                assert(I6_told(0)); assert(I6_told(1));
                assert(I6_whole(0)); assert(I6_whole(1));
                assert(I6_answer(0)); assert(I6_answer(1));
                assert(I6_first(0)); assert(I6_first(1));
                assert(I6_agree(0)); assert(I6_agree(1));
                assert(I6_nothing_left);
                assert(I12);
                where_we_have_been()
           }
        od
}

init {
        atomic {
                run Client(0); run Client(1);
                run Journal(); run Broker(0); run Broker(1);
                run Holder(0); run Holder(1);
                run Restart(); run Revocation();
                run Always()
        }
}
