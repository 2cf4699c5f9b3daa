/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "iommud/iommud.h"

/*
 * The calling thread's last failure. A public function calls sdk_enter(__func__) first and then returns what one of the
 * failing functions gives back, so that no error leaves the library without a text and the name of the call.
 */

void sdk_enter(const char *call);

/* Records a failure that has no details and returns error (a negative errno value). */
int sdk_fail(int error, enum iommud_reason reason, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Records a refusal as the service described it; details->error, call and size are filled in here. Returns error. */
int sdk_fail_with(int error, const struct iommud_error *details);

/* The thread's last failure as it is now, and back again: for calls that failed without being a failure of what the
 * program asked for. A program that cleans up before it prints the error wants the first one. */
struct iommud_error sdk_error_keep(void);
void sdk_error_restore(const struct iommud_error *kept);

/* Reason of the failure that was recorded just now. */
unsigned sdk_error_reason(void);

/* The call that failed has no elements as its caller sees it: a batch of one. */
void sdk_error_not_batch(void);

/* The negative errno value for a status of grpc/status.h and a reason (0 if the service gave none); 0 for OK. */
int sdk_errno(int status, unsigned reason);

/* Likewise where only a reason is known, as on the session channel. A reason newer than this library is -EIO. */
int sdk_errno_of_reason(unsigned reason);
