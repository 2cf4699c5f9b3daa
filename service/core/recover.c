/* SPDX-License-Identifier: Apache-2.0 */
#include "core/recover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/revoke.h"
#include "core/broker_private.h"
#include "core/check_holders.h"
#include "core/device.h"
#include "core/domain.h"
#include "core/holder_link.h"
#include "core/op.h"
#include "core/reconcile.h"
#include "core/recovery.h"
#include "core/revocation.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/fdmsg.h"
#include "util/log.h"

/*
 * Start, second half: holders come back, prove who they are, and tell what they applied. core/reconcile.c compares.
 */
static int receive_hello(int fd, struct link_hello *ret) {
        struct {
                struct link_header header;
                struct link_hello hello;
        } message = { 0 };
        int fds[FDMSG_MAX_FDS];
        ssize_t n = fdmsg_receive(fd, &message, sizeof message, fds, MSG_DONTWAIT);
        for (size_t i = 0; i < FDMSG_MAX_FDS; i++)
                fd_close(fds[i]);
        if (n < (ssize_t)sizeof message.header || message.header.type != LINK_HELLO ||
            message.header.version >> 16 != LINK_VERSION >> 16)
                return -EPROTO;
        *ret = message.hello;
        return 0;
}

/* The session whose holder this is: by its secret, and by what the kernel says of the process. A reference, or NULL. */
static struct session *recognise(struct broker *b, const struct link_hello *hello, const struct ucred *peer) {
        struct session *s = session_find(b, hello->session);
        struct secret_hash hash;
        bool ok;

        if (!s)
                return NULL;
        secret_hash(hello->secret, sizeof hello->secret, &hash);
        pthread_mutex_lock(&s->lock);
        ok = s->stage == SESSION_DETACHED && secret_hash_equal(&hash, &s->secret_hash) &&
             (uint32_t)peer->pid == s->holder_pid && peer->uid == (s->holder_uid == UINT32_MAX ? geteuid() : s->holder_uid);
        if (ok)
                s->stage = SESSION_RECONCILING;
        pthread_mutex_unlock(&s->lock);
        return ok ? s : session_unref(s);
}

static void greet(struct broker *b, struct session *s, int fd, const struct link_hello *hello) {
        struct holder_link *link;
        uint64_t seq = ledger_next_id(b->ledger);

        if (holder_link_new(b->loop, s, fd, &link) < 0) {
                revocation_begin(s, REFUSAL_INTERNAL, "its holder came back, but could not be watched");
                return;
        }
        pthread_mutex_lock(&s->lock);
        s->link = link;
        s->recovery->dump_seq = seq;
        s->recovery->client_gone = hello->client_gone != 0;
        holder_link_post(link, LINK_DUMP, seq, 0, NULL, 0, NULL, 0);
        pthread_mutex_unlock(&s->lock);
        FAILPOINT(recover_dump_asked);
        loop_arm(b->loop, link, fd);
}

void recover_greet(void *broker, int connection) {
        struct broker *b = broker;
        _cleanup_close_ int fd = connection;
        struct link_hello hello;
        struct refusal r;
        struct session *s;
        struct ucred peer;
        socklen_t size = sizeof peer;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || receive_hello(fd, &hello) < 0)
                return;
        if (ledger_ids_ready(b->ledger, &r) < 0) {
                /* It comes again. That the ledger cannot be written is not its fault: its time begins anew. */
                atomic_store(&b->recover_until_ms, monotonic_ms() + b->options.recover_seconds * 1000ULL);
                return;
        }
        s = recognise(b, &hello, &peer);
        if (!s) {
                log_warning("pid %d (uid %u) says to be the holder of session %" PRIu64 ", and is not", peer.pid, peer.uid,
                            hello.session);
                return;
        }
        FAILPOINT(recover_recognised);
        greet(b, s, fd_steal(&fd), &hello);
        session_unref(s);
}

/* Keepers: a container, a device, nothing else, and each recognised before anything is done with it (DESIGN, section 4). */
static int keep(struct session *s, const struct link_header *h, const struct link_dump_attachment *a, int *fds) {
        int container = -1, device = -1, n = 0;

        if (a->container_sent)
                container = fd_steal(&fds[n++]);
        if (fds[n] >= 0)
                device = fd_steal(&fds[n]);
        if ((container >= 0 && !revoke_is_container_fd(container)) || (device >= 0 && !revoke_is_device_fd(device))) {
                fd_close(container);
                fd_close(device);
                return -1;
        }
        return lease_adopt(s->broker, s, h->domain, a->attach.group, a->attach.device, container, device);
}

/* With the session's lock held. 1: the dump is complete. */
static int note(struct session *s, const struct link_header *h, size_t size, int *fds) {
        struct recovery *rec = s->recovery;

        if (holders_check_message(s, h, size))
                return 0;
        if (s->stage != SESSION_RECONCILING || !rec)
                return 0;
        if (h->type == LINK_RESULT)
                return h->seq == rec->dump_seq;
        if (recovery_note_message(rec, h, size) < 0)
                return -1;
        FAILPOINT(recover_dump_part);
        if (h->type == LINK_DUMP_ATTACHMENT)
                return keep(s, h, &rec->attachments[rec->n_attachments - 1].a, fds);
        return 0;
}

void recover_record(struct session *s) {
        bool gone;

        if (reconcile_record(s) < 0)
                return;
        pthread_mutex_lock(&s->lock);
        gone = s->recovery->client_gone;
        s->recovery = recovery_free(s->recovery);
        pthread_mutex_unlock(&s->lock);
        if (gone)
                revocation_begin(s, REFUSAL_UNKNOWN_SESSION, "the client died while the service was away");
}

void recovery_message(struct session *s, const struct link_header *h, size_t size, int *fds) {
        int r;

        pthread_mutex_lock(&s->lock);
        r = note(s, h, size, fds);
        pthread_mutex_unlock(&s->lock);
        if (r < 0) {
                session_link_lost(s, REFUSAL_HOLDER_LOST, "its holder's account of what it applied makes no sense");
                return;
        }
        if (r == 0)
                return;
        FAILPOINT(recover_dump_complete);
        reconcile_session(s);
        recover_record(s);
}
