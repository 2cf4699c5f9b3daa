/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "iommud.pb-c.h"

/*
 * iommuctl: one table of verbs, one file per family of them. A verb parses its arguments, makes its calls, prints, and
 * returns the exit code. Whatever fails has been told on stderr where it failed.
 */
enum ctl_exit {
        CTL_OK = 0,
        CTL_FAILED = 1,                 /* refused, or it went wrong */
        CTL_USAGE = 2,
        CTL_UNREACHABLE = 3,            /* no service, or no right to talk to it */
        CTL_VIOLATIONS = 4,             /* ledger check found some */
};

struct rpc;

struct ctl {
        const char *socket;
        bool json;
        unsigned timeout_seconds;
        const struct verb *verb;
        struct rpc *rpc;                /* NULL until the first call */
};

struct verb {
        const char *family, *name;      /* "tenant", "add"; name "" of a family that is a verb itself */
        const char *arguments;          /* "NAME [OPTION...]" */
        const char *summary;
        const char *help;               /* its own options, one per line; "" if none */
        int (*run)(struct ctl *c, int argc, char **argv);
};

extern const struct verb status_verbs[], tenant_verbs[], device_verbs[], domain_verbs[], window_verbs[],
        ledger_verbs[];

/* ---- arguments ---- */

#define CTL_DEFAULT_SOCKET "/run/iommud/operator/operator.sock"

/* Options that every verb takes (--socket, --timeout, --json, --help), and the verb's own: set() is called with their
 * val (> 255) and value, and returns false when that is no good, having said so. argv[0] is the verb. Returns -1 to go on
 * (*ret_n arguments at ret_arguments), or the exit code. own may be NULL. */
int ctl_arguments(struct ctl *c, int argc, char **argv, const struct option *own,
                  bool (*set)(void *userdata, int option, const char *value), void *userdata, int *ret_n,
                  char ***ret_arguments);

/* The same for a verb without options of its own that takes exactly n arguments. */
int ctl_plain_arguments(struct ctl *c, int argc, char **argv, int n, char ***ret_arguments);

/* An argument that is the id of a domain; false, having said so, when it cannot be one. */
bool ctl_domain_id(const char *text, uint64_t *ret);

/* "iommuctl: TEXT" and where help is; returns CTL_USAGE. */
int ctl_usage(const struct ctl *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "iommuctl: TEXT", control characters replaced. */
void ctl_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- calls ---- */

static inline void ctl_free_message_p(ProtobufCMessage **m) {
        if (*m)
                protobuf_c_message_free_unpacked(*m, NULL);
}
#define _cleanup_message_ __attribute__((cleanup(ctl_free_message_p)))

/* One call of service Operator. *ret is the caller's, of type answer. CTL_OK, or the exit code. */
int ctl_call(struct ctl *c, const char *method, const ProtobufCMessage *request,
             const ProtobufCMessageDescriptor *answer, ProtobufCMessage **ret);

/* A listing: as many calls as it has pages, each() per element of the answers' first field. */
int ctl_list(struct ctl *c, const char *method, ProtobufCMessage *request, const ProtobufCMessageDescriptor *answer,
             void (*each)(const ProtobufCMessage *element, void *userdata), void *userdata);
