/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * gRPC is not instrumented: ThreadSanitizer does not see that what one thread wrote before it gave a tag to gRPC
 * happens before what another does with the tag that comes out of a completion queue. These two say so, for that tag
 * only.
 */
#if defined(__SANITIZE_THREAD__)
#define TRANSPORT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TRANSPORT_TSAN 1
#endif
#endif

#ifdef TRANSPORT_TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);

static inline void tsan_give(void *tag) {
        __tsan_release(tag);
}
static inline void tsan_take(void *tag) {
        __tsan_acquire(tag);
}
#else
static inline void tsan_give(void *tag) {
        (void)tag;
}
static inline void tsan_take(void *tag) {
        (void)tag;
}
#endif
