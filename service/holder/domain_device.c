/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/domain_private.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/failpoint.h"

/* --- containers ---------------------------------------------------------------------------------------------------*/

void domain_info(const struct domain *d, struct container_info *ret) {
        memset(ret, 0, sizeof *ret);
        for (const struct group *g = d->groups; g; g = g->next) {
                struct container_info i, both;
                uint64_t page;

                container_info(g->container, &i);
                if (g == d->groups) {
                        *ret = i;
                        continue;
                }
                /* the larger of the two granules is one that both can do, whether or not both name it as a page */
                page = page_mask_smallest(i.page_sizes) > page_mask_smallest(ret->page_sizes)
                               ? page_mask_smallest(i.page_sizes) : page_mask_smallest(ret->page_sizes);
                both = (struct container_info){ .page_sizes = (i.page_sizes & ret->page_sizes & ~(page - 1)) | page,
                                                .windows = ret->windows };
                both.max_mappings = i.max_mappings < ret->max_mappings ? i.max_mappings : ret->max_mappings;
                both.n_ranges = (uint32_t)iova_ranges_intersect(i.ranges, i.n_ranges, ret->ranges, ret->n_ranges,
                                                                both.ranges);
                *ret = both;
        }
}

static struct group *group_find(struct domain *d, uint32_t number) {
        for (struct group *g = d->groups; g; g = g->next)
                if (g->number == number)
                        return g;
        return NULL;
}

static void group_unlink(struct domain *d, struct group *g) {
        for (struct group **p = &d->groups; *p; p = &(*p)->next)
                if (*p == g) {
                        *p = g->next;
                        return;
                }
}

static struct group *group_free(struct group *g) {
        if (!g)
                return NULL;
        container_close(g->container);
        fd_close(g->keeper_fd);
        fd_close(g->revoker_fd);
        free(g);
        return NULL;
}

static int check_fds(const struct link_attach *a, const int fds[2], struct refusal *r) {
        bool wanted = a->backend != BACKEND_SOFT;

        if ((fds[0] >= 0) == wanted && (fds[1] >= 0) == wanted)
                return 0;
        return refuse(r, REFUSAL_BAD_MESSAGE, "the first attachment of group %u came %s its container and group fds",
                      a->group, wanted ? "without" : "with");
}

static int replay(struct domain *d, struct container *c, struct refusal *r) {
        struct node *n;

        RB_FOREACH(n, node_tree, &d->tree)
                if (object_check(n->object, n->offset, iova_range_length(n->range), n->access, r) < 0 ||
                    part_map_into(d, c, n, n->range, r) < 0)
                        return -1;
        return 0;
}

/* A container for a group that had none, with all that is mapped so far; not linked yet. */
static int group_new(struct domain *d, const struct link_attach *a, int fds[2], struct group **ret, struct refusal *r) {
        struct backend_open open = { .kind = (enum backend_kind)a->backend, .soft = d->soft };
        struct group *g;

        if (check_fds(a, fds, r) < 0)
                return -1;
        g = calloc(1, sizeof *g);
        if (!g)
                return refuse(r, REFUSAL_INTERNAL, "no memory for a container");
        g->number = a->group;
        g->backend = open.kind;
        g->revoker_fd = -1;
        g->keeper_fd = fds[0] >= 0 ? fcntl(fds[0], F_DUPFD_CLOEXEC, 0) : -1;
        open.container_fd = fd_steal(&fds[0]);
        open.group_fd = fd_steal(&fds[1]);
        if (container_open(&open, &g->container, r) < 0 || container_revoker_fd(g->container, &g->revoker_fd, r) < 0) {
                group_free(g);
                return -1;
        }
        if (g->revoker_fd >= 0)
                d->events.revoker(d->events.userdata, g->number, g->revoker_fd);
        FAILPOINT(apply_container_open);
        if (windows_apply(d, g->container, r) < 0 || replay(d, g->container, r) < 0) {
                group_free(g);
                return -1;
        }
        FAILPOINT(apply_replayed);
        *ret = g;
        return 0;
}

/* --- attachments --------------------------------------------------------------------------------------------------*/

static struct attachment *attachment_find(const struct domain *d, uint64_t id) {
        for (struct attachment *a = d->attachments; a; a = a->next)
                if (a->attach.attachment == id)
                        return a;
        return NULL;
}

static int refuse_unknown(struct refusal *r, uint64_t attachment) {
        return refuse(r, REFUSAL_UNKNOWN_ATTACHMENT, "there is no attachment %" PRIu64, attachment);
}

static int check_attach(struct domain *d, const struct link_attach *a, struct refusal *r) {
        if (domain_takes_new(d, r) < 0)
                return -1;
        if (!memchr(a->device, 0, sizeof a->device))
                return refuse(r, REFUSAL_UNKNOWN_DEVICE, "a device name has 1 to %u characters",
                              BACKEND_DEVICE_NAME_MAX - 1);
        if (attachment_find(d, a->attachment))
                return refuse(r, REFUSAL_IN_USE, "attachment %" PRIu64 " exists already", a->attachment);
        return 0;
}

static int attachment_open(struct attachment *at, struct refusal *r) {
        if (device_open(at->group->container, at->attach.device, &at->device, r) < 0)
                return -1;
        if (device_keeper_fd(at->device, &at->keeper_fd, r) < 0) {
                at->device = device_close(at->device);
                return -1;
        }
        return 0;
}

int domain_attach(struct domain *d, const struct link_attach *a, uint64_t seq, int fds[2], int *ret_keeper_fd,
                  struct refusal *r) {
        _cleanup_free_ struct attachment *at = NULL;
        struct group *g, *fresh = NULL;

        if (check_attach(d, a, r) < 0)
                return -1;
        at = calloc(1, sizeof *at);
        if (!at)
                return refuse(r, REFUSAL_INTERNAL, "no memory for an attachment");
        g = group_find(d, a->group);
        if (!g) {
                if (group_new(d, a, fds, &fresh, r) < 0)
                        return -1;
                g = fresh;
        } else if (g->backend != (enum backend_kind)a->backend)
                return refuse(r, REFUSAL_BAD_MESSAGE, "group %u is served by another backend", a->group);
        *at = (struct attachment){ .attach = *a, .seq = seq, .group = g, .keeper_fd = -1 };
        if (attachment_open(at, r) < 0) {
                group_free(fresh);
                return -1;
        }
        FAILPOINT(apply_device_open);
        if (fresh) {
                fresh->next = d->groups;
                d->groups = fresh;
        }
        g->n_attachments++;
        at->next = d->attachments;
        d->attachments = at;
        *ret_keeper_fd = at->keeper_fd;
        at = NULL;
        return 0;
}

static void answer_fd(struct domain *d, const struct attachment *at, uint64_t cookie) {
        struct domain_fd_answer a = { .cookie = cookie, .attachment = at->attach.attachment, .fd = -1 };
        struct refusal r;

        if (device_client_fd(at->device, &a.fd, &a.kind, &r) < 0)
                a.refusal = &r;
        d->events.fd_answered(d->events.userdata, &a);
        fd_close(a.fd);
}

static void answer_refused(struct domain *d, uint64_t attachment, uint64_t cookie, const struct refusal *r) {
        struct domain_fd_answer a = { .cookie = cookie, .attachment = attachment, .fd = -1, .refusal = r };

        d->events.fd_answered(d->events.userdata, &a);
}

void attachment_free(struct domain *d, struct attachment *at) {
        struct group *g = at->group;

        d->events.detaching(d->events.userdata, at->attach.attachment, at->seq);
        for (struct attachment **p = &d->attachments; *p; p = &(*p)->next)
                if (*p == at) {
                        *p = at->next;
                        break;
                }
        if (at->waiting) {
                struct refusal r;

                refuse(&r, REFUSAL_UNKNOWN_ATTACHMENT, "attachment %" PRIu64 " was detached", at->attach.attachment);
                answer_refused(d, at->attach.attachment, at->cookie, &r);
        }
        device_close(at->device);
        FAILPOINT(apply_device_closed);
        fd_close(at->keeper_fd);
        free(at);
        if (--g->n_attachments > 0)
                return;
        group_unlink(d, g);
        group_free(g);
}

int domain_detach(struct domain *d, uint64_t attachment, struct refusal *r) {
        struct attachment *at = attachment_find(d, attachment);

        if (!at)
                return refuse_unknown(r, attachment);
        attachment_free(d, at);
        return 0;
}

bool domain_has_attachment(const struct domain *d, uint64_t attachment) {
        return attachment_find(d, attachment) != NULL;
}

void domain_ack(struct domain *d, uint64_t attachment) {
        struct attachment *at = attachment_find(d, attachment);

        if (!at)
                return;         /* detached meanwhile */
        at->acked = at->ever_acked = true;
        if (!at->waiting)
                return;
        at->waiting = false;
        answer_fd(d, at, at->cookie);
}

void domain_unack(struct domain *d) {
        for (struct attachment *at = d->attachments; at; at = at->next)
                if (at->keeper_fd >= 0)
                        at->acked = false;
}

void domain_request_fd(struct domain *d, uint64_t attachment, uint64_t cookie) {
        struct attachment *at = attachment_find(d, attachment);
        struct refusal r;

        if (!at || d->ended) {
                refuse_unknown(&r, attachment);
                answer_refused(d, attachment, cookie, &r);
        } else if (at->acked)
                answer_fd(d, at, cookie);
        else if (at->waiting) {
                refuse(&r, REFUSAL_IN_PROGRESS, "an earlier request for the fd of attachment %" PRIu64 " still waits "
                       "for the service to confirm the attachment", attachment);
                answer_refused(d, attachment, cookie, &r);
        } else {
                at->waiting = true;
                at->cookie = cookie;
        }
}
