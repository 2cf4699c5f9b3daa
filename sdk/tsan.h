/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the thread sanitizer cannot see: gRPC is not instrumented and synchronises with primitives of its own. A batch
 * of operations is handed to its threads by grpc_call_start_batch and comes back at the completion queue; these two
 * say so, for what this library wrote before and reads after. Nothing otherwise.
 *
 * Accesses of gRPC to its own memory by way of intercepted functions (memcpy, free, recvmsg) are not ours to
 * annotate: programs that test it set the sanitizer's option ignore_noninstrumented_modules=1.
 */
#if defined(__SANITIZE_THREAD__)
#define SDK_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SDK_TSAN 1
#endif
#endif

#ifdef SDK_TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define TSAN_HAND_OVER(tag) __tsan_release(tag)
#define TSAN_TAKE_BACK(tag) __tsan_acquire(tag)
#else
#define TSAN_HAND_OVER(tag) ((void)(tag))
#define TSAN_TAKE_BACK(tag) ((void)(tag))
#endif
