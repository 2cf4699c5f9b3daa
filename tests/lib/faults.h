/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "../fault/failpoints.h"
#include "harness.h"

/*
 * Control over a service with failpoints (service_options.failpoints): where it dies, what its ledger's files answer.
 * faults_open() comes before the service is launched; its programs find the file through the environment.
 */
struct failpoints *faults_open(const struct service *s);
void faults_close(struct failpoints *f);

const char *failpoint_name(enum failpoint point);
/* In the broker, or in a holder? */
bool failpoint_is_brokers(enum failpoint point);

/* Whoever passes the point for the `ahead`th time from now dies there (1: the next one). Only one does, until faults_disarm(). */
void faults_arm(struct failpoints *f, enum failpoint point, unsigned ahead, enum failpoint_victims victims);
void faults_disarm(struct failpoints *f);

/* From now on, until faults_clear(). `after` calls of the kind still work. */
void faults_ledger(struct failpoints *f, enum ledger_fault fault, unsigned files, unsigned after);
void faults_clear(struct failpoints *f);
