/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who can revoke: one device and whoever holds an fd of it or of its container, while broker and holder crash at any step.
 * One session after another; a client may keep the device's fd for as long as it likes, also over the end of its session.
 * Mapping is one bit here: operations.pml has how it comes about. README.md says what stands for what.
 *
 * Nothing is counted: any number of sessions, attachments and crashes.
 */

#include "reached.pml"

mtype:stage = { DOWN, DETACHED, RECONCILED, SERVING, STOPPED };
mtype:session = { NO_SESSION, LIVE, ENDING, REVOKED };
mtype:lease = { FREE, HELD, ORPHANED };
mtype:op = { NOTHING, ATTACH, DETACH, MAP, UNMAP };
mtype:phase = { IDLE, ADMITTED, COMMITTED, SENT };
mtype:result = { NONE, DONE, REFUSED };

/* ---- the kernel: who has an fd; the last one takes the container and its translations with it ---- */
bool translated;
bool holder_has, broker_has_container, broker_has_device, client_has, message_has;
#define is_open (holder_has || broker_has_container || broker_has_device || client_has || message_has)

/* ---- the ledger (durable) ---- */
mtype:session session_row = NO_SESSION;
bool attachment_row, mapping_row;
mtype:op open_op = NOTHING;

/* ---- the broker (memory) ---- */
mtype:stage stage = SERVING;
mtype:session session = NO_SESSION;
mtype:lease lease = FREE;
bool attached, charged;                 /* its view of the attachment; what the tenant pays for */
bool adopted;                           /* the lease is of a former life, without keepers */
mtype:op op = NOTHING;
mtype:phase phase = IDLE;

/* ---- the link and the holder ---- */
bool holder, killed, link_is_up;
mtype:op message = NOTHING;
bool ack_message;                       /* LINK_ATTACH_ACK, behind it */
mtype:result result = NONE;
bool node, acked;                       /* its record of the mapping; the broker has said that it keeps the device */

inline kernel_closes() {
        if
        :: !is_open -> translated = false
        :: else
        fi
}

/* ---- the broker's requests ---- */

inline begin(what) {
        op = what;
        phase = ADMITTED;
        printf("broker: admits %e\n", op)
}

inline over() {
        op = NOTHING;
        phase = IDLE
}

/* lease_drop() and lease_end_session(): nobody's, and lent to nobody until the device proves to be free. */
inline retire() {
        broker_has_device = false;
        broker_has_container = false;
        lease = ORPHANED;
        kernel_closes()
}

inline settle(how) {
        if
        :: open_op == ATTACH && how == REFUSED || open_op == DETACH && how == DONE -> attachment_row = false
        :: open_op == MAP && how == REFUSED || open_op == UNMAP && how == DONE -> mapping_row = false
        :: else
        fi;
        open_op = NOTHING
}

#define may_ask (stage == SERVING && session == LIVE && phase == IDLE && open_op == NOTHING)

proctype Broker() {
        do
        :: d_step { stage == SERVING && session == NO_SESSION && session_row == NO_SESSION && !holder ->
                printf("broker: a session begins, a holder starts\n");
                session = LIVE;
                session_row = LIVE;
                holder = true;
                link_is_up = true
           }
        :: d_step { may_ask && !attached && lease == FREE && !is_open ->
                assert(!translated);
                lease = HELD;
                broker_has_container = true;
                begin(ATTACH)
           }
        :: d_step { stage == SERVING && lease == FREE && !is_open ->
                printf("broker: another session has the device for a while\n");
                assert(!translated && !client_has)
           }
        :: d_step { may_ask && attached -> begin(DETACH) }
        :: d_step { may_ask && !mapping_row -> charged = true; begin(MAP) }
        :: d_step { may_ask && mapping_row -> begin(UNMAP) }
        :: d_step { phase == ADMITTED ->
                printf("ledger: intent of %e\n", op);
                open_op = op;
                phase = COMMITTED;
                if
                :: op == ATTACH -> attachment_row = true
                :: op == MAP -> mapping_row = true
                :: else
                fi
           }
        :: d_step { phase == COMMITTED && link_is_up && message == NOTHING ->
                printf("broker: sends %e\n", op);
                message = op;
                message_has = (op == ATTACH);
                phase = SENT
           }
        :: d_step { phase == SENT && result == DONE && op == ATTACH ->
                printf("broker: keeps the device, and says so\n");
                broker_has_device = true;
                attached = true;
                ack_message = link_is_up;
                result = NONE;
                over()          /* the settle rides on a later commit: open_op */
           }
        :: d_step { phase == SENT && result == REFUSED && op == ATTACH ->
                printf("broker: the attachment failed\n");
                retire();
                result = NONE;
                over()
           }
        :: d_step { phase == SENT && result == DONE && op == DETACH ->
                printf("broker: the device is given back\n");
                attached = false;
                retire();
                result = NONE;
                over()
           }
        :: d_step { phase == SENT && result != NONE && (op == MAP || op == UNMAP) ->
                printf("broker: %e: %e\n", op, result);
                if
                :: op == MAP && result == REFUSED || op == UNMAP && result == DONE -> charged = false
                :: else
                fi;
                result = NONE;
                over()
           }
        :: d_step { stage == SERVING && session == LIVE && phase == IDLE && open_op != NOTHING ->
                printf("ledger: settles %e\n", open_op);
                /* how it ended is what memory says */
                if
                :: open_op == ATTACH && !attached || open_op == MAP && !charged -> settle(REFUSED)
                :: open_op == UNMAP && charged -> settle(REFUSED)
                :: else -> settle(DONE)
                fi
           }
        :: d_step { stage == SERVING && lease == ORPHANED && !is_open ->
                printf("broker: the device is free again\n");
                lease = FREE
           }
        od
}

/* ---- the holder ---- */

inline taken() {
        message = NOTHING;
        message_has = false
}

inline say(how) {
        if
        :: link_is_up -> result = how
        :: else
        fi;
        taken()
}

#ifdef FD_BEFORE_ACK
#define may_give (holder_has)
#else
#define may_give (holder_has && acked)
#endif

#define is_next(what) (holder && message == what && !ack_message)      /* an ack was sent before it */

proctype Holder() {
        do
        :: d_step { is_next(ATTACH) ->
                printf("holder: attaches\n");
                holder_has = true;
                translated = node;      /* replayed */
                say(DONE)
           }
        :: d_step { is_next(ATTACH) ->
                printf("holder: cannot attach\n");
                say(REFUSED);
                kernel_closes()
           }
        :: d_step { is_next(DETACH) ->
                printf("holder: unmaps, and detaches\n");
                translated = false;
                holder_has = false;
                acked = false;
                say(DONE);
                kernel_closes()
           }
        :: d_step { is_next(MAP) -> node = true; translated = holder_has; printf("holder: maps\n"); say(DONE) }
        :: d_step { is_next(MAP) -> printf("holder: cannot map\n"); say(REFUSED) }
        :: d_step { is_next(UNMAP) ->
                node = false;
                translated = false;
                printf("holder: unmaps\n");
                say(DONE)
           }
        :: d_step { is_next(UNMAP) -> printf("holder: cannot unmap\n"); say(REFUSED) }
        :: d_step { holder && message == NOTHING && ack_message ->
                printf("holder: the broker keeps the device\n");
                ack_message = false;
                acked = holder_has
           }
        /* The link's end comes behind what was sent on it. */
        :: d_step { holder && !link_is_up && message == NOTHING && !ack_message && acked ->
                printf("holder: the broker is gone\n");
                acked = false
           }
        :: d_step { holder && may_give && !client_has ->
                printf("holder: gives the client the device\n");
                assert(!link_is_up || broker_has_container && broker_has_device);
                client_has = true
           }
        :: d_step { client_has ->
                printf("client: closes the device\n");
                client_has = false;
                kernel_closes()
           }
        od
}

/* ---- crashes, and restart ---- */

proctype Restart() {
        do
        :: d_step { stage != DOWN ->
                printf("*** the broker is killed\n");
                stage = DOWN;
                session = NO_SESSION;
                lease = FREE;
                attached = false;
                charged = false;
                adopted = false;
                over();
                link_is_up = false;
                result = NONE;
                broker_has_container = false;
                broker_has_device = false;
                kernel_closes()
           }
        :: d_step { holder ->
                printf("*** the holder is killed\n");
                holder = false;
                killed = false;
                holder_has = false;
                taken();
                ack_message = false;
                node = false;
                acked = false;
                link_is_up = false;
                kernel_closes()
           }
        :: d_step { stage == DOWN ->
                printf("broker: starts\n");
                charged = mapping_row;
                attached = attachment_row;
                if
                :: session_row == NO_SESSION -> session = NO_SESSION; stage = RECONCILED
                :: session_row == LIVE && holder -> session = LIVE; stage = DETACHED
                :: else -> session = ENDING; stage = DETACHED
                fi
           }
        /* The dump, behind everything that the old broker had sent; with it come the keepers. */
        :: d_step { stage == DETACHED && session == LIVE && holder && !link_is_up && message == NOTHING && !ack_message &&
                    !acked ->
                printf("broker: the holder is back\n");
                link_is_up = true;
                if
                :: holder_has ->
                        broker_has_container = true;
                        broker_has_device = true;
                        lease = HELD;
                        ack_message = true
                :: else
                fi
           }
        :: d_step { stage == DETACHED && session == LIVE && holder && link_is_up ->
                printf("ledger: follows the holder\n");
                open_op = NOTHING;
                attachment_row = holder_has;
                mapping_row = node;
                attached = holder_has;
                charged = node;
                stage = RECONCILED
           }
        :: d_step { stage == DETACHED && session == LIVE ->
                printf("broker: the holder does not come back\n");
                session = ENDING
           }
        /* The end of recovery: what is open and nobody's here is an orphan. */
        :: d_step { stage == RECONCILED ->
                printf("broker: recovered\n");
                stage = SERVING;
#ifndef NO_PROBE
                if
                :: lease == FREE && is_open -> lease = ORPHANED
                :: else
                fi
#endif
           }
        od
}

/* ---- the end of a session: revocation.c ---- */

#define at_end (session == ENDING && session_row == ENDING)
#ifdef UNMAP_ONCE
#define is_ended (killed || !holder)
#else
#define is_ended (!holder)
#endif

/* We unmapped it, or the kernel closed it; an adopted orphan is explained and charged until it is free. */
#ifdef ORPHAN_FORGOTTEN
#define is_over (lease == ORPHANED || adopted || !attachment_row)
#else
#define is_over (lease == ORPHANED && !adopted || lease == FREE && (adopted || !attachment_row))
#endif

proctype Revocation() {
        do
        :: d_step { (stage == SERVING || stage == DETACHED && link_is_up) && session == LIVE ->
                printf("broker: ends the session\n");
                session = ENDING
           }
        :: d_step { session == ENDING && session_row == LIVE ->
                printf("ledger: the session is ending\n");
                session_row = ENDING
           }
        :: d_step { at_end && holder && !killed -> printf("broker: kills the holder\n"); killed = true }
        :: d_step { at_end && (killed || !holder) && broker_has_container && translated ->
                printf("broker: unmaps everything\n");
                translated = false
           }
        :: d_step { session == ENDING && phase != IDLE ->
                printf("broker: nobody will know of %e\n", op);
                over();
                result = NONE
           }
        /* Attachments for which there is no keeper: only the kernel knows. */
        :: d_step { at_end && is_ended && phase == IDLE && lease == FREE && attachment_row && !adopted ->
                printf("broker: adopts an orphan\n");
                lease = ORPHANED;
                adopted = true
           }
        :: d_step { at_end && is_ended && phase == IDLE && lease == HELD && (!broker_has_container || !translated) ->
                printf("broker: gives up the lease\n");
                retire()
           }
        :: d_step { at_end && stage == DETACHED && is_ended && lease == ORPHANED ->
                printf("broker: recovered, but for an orphan\n");
                stage = SERVING
           }
        :: d_step { at_end && is_ended && phase == IDLE && lease != HELD && is_over ->
                printf("broker: refunds everything\n");
                charged = false;
                attached = false;
                session = REVOKED
           }
        :: d_step { session == REVOKED ->
                printf("ledger: the session is gone\n");
                attachment_row = false;
                mapping_row = false;
                open_op = NOTHING;
                session_row = NO_SESSION;
                session = NO_SESSION;
                adopted = false;
                result = NONE;
                if
                :: stage == DETACHED -> stage = RECONCILED
                :: else
                fi
           }
        od
}

/* ---- what must always hold ---- */

#define is_at_rest (stage == SERVING && session == LIVE && holder && link_is_up && phase == IDLE && open_op == NOTHING && \
                    message == NOTHING)

/* I1, I2: what is translated has a row and is paid for. */
#define I1 (stage == DOWN || !translated || charged)
#define I2 (!translated || mapping_row)
/* I6: afterwards ledger, broker and holder agree. */
#define I6 (!is_at_rest || mapping_row == node && attachment_row == holder_has && attached == holder_has && \
            translated == (node && holder_has) && charged == node)
#define I6_nothing_left (session_row != NO_SESSION || !translated && !charged)
/* I12: some process of ours can revoke it; else, as soon as there is a broker, the device is an orphan: named, not lent (the
 * assertion where it is), and not said to be free while it is open. */
#define I12 (!translated || holder_has || broker_has_container || stage != SERVING || lease == ORPHANED)
#define I12_named (stage != SERVING || !client_has || lease != FREE)

inline where_we_have_been() {
        reached("the client has the device, all are well", is_at_rest && translated && client_has);
        reached("fds of an attach on their way, the broker is gone", stage == DOWN && message_has);
        reached("the client has the device, the holder is gone, the broker can revoke", client_has && translated &&
                !holder && broker_has_container);
        reached("the acknowledgement of a broker that is gone", stage == DOWN && ack_message);
        reached("the broker has its keepers again", stage == RECONCILED && broker_has_device && translated && client_has);
        reached("both are gone, the client keeps the container", stage == DOWN && !holder && translated);
        reached("an orphan with translations, and a broker", stage == SERVING && translated && adopted);
        reached("an orphan of a session that is gone", stage == SERVING && client_has && session_row == NO_SESSION &&
                lease == ORPHANED);
        reached("a new session while the client of an old one has the device", stage == SERVING && session == LIVE &&
                !attached && client_has && lease == ORPHANED);
        reached("detached, and the client has the device", is_at_rest && node && !attached && client_has);
        reached("a holder that is being killed maps on", killed && translated && session_row == ENDING &&
                broker_has_container)
}

proctype Always() {
        do
        :: d_step {
                assert(I1);
                assert(I2);
                assert(I6);
                assert(I6_nothing_left);
                assert(I12);
                assert(I12_named);
                where_we_have_been()
           }
        od
}

init {
        atomic {
                run Broker(); run Holder(); run Restart(); run Revocation(); run Always()
        }
}
