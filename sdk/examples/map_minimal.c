/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest complete program: makes 64 KiB of memory reachable for a device at address 0x100000.
 *
 *   cc map_minimal.c -o map_minimal $(pkg-config --cflags --libs libiommud)
 */
#include <stdio.h>
#include <string.h>

#include <iommud/iommud.h>

int main(void) {
        struct iommud_client *client;
        struct iommud_domain *domain;
        struct iommud_memory *memory;

        /* A session. It is this program's until it ends: nothing that it maps can outlive it. */
        if (iommud_connect(NULL, &client) < 0)
                goto failed;

        /* A domain is an address space as devices see it. It is empty: a device in it reaches nothing yet. */
        if (iommud_domain_create(client, "map_minimal", &domain) < 0)
                goto failed;

        /* Memory that is fit for DMA: its pages are there and stay where they are. It is ours to use as well. */
        if (iommud_memory_alloc(client, 65536, NULL, &memory) < 0)
                goto failed;
        strcpy(iommud_memory_addr(memory), "hello, device");

        /* From here on, every device in the domain reads and writes our memory at 0x100000 and nowhere else. Which
         * addresses may be used, and in which steps: iommud_capabilities(). */
        if (iommud_map(domain, 0x100000, memory, 0, 65536, IOMMUD_READ_WRITE) < 0)
                goto failed;
        printf("mapped 64 KiB at 0x100000; a device that iommud_device_attach() puts here can reach it\n");

        /* When this returns, no device can reach the memory any more. */
        if (iommud_unmap(domain, 0x100000, 65536) < 0)
                goto failed;

        /* Ends the session and frees the rest: memory, domain, client. */
        iommud_close(client);
        return 0;

failed:
        /* What was asked, what stands in the way, and what to do about it, in one sentence. */
        fprintf(stderr, "map_minimal: %s\n", iommud_last_error());
        return 1;
}
