/* SPDX-License-Identifier: Apache-2.0 */
/*
 * With -DREACHED the checker says where it has been, each place once: a model in which nothing can happen proves nothing.
 * (Its own list of unreached statements leaves out what is in a d_step.) None of this is a part of the state, and none of it
 * is there without -DREACHED, as spin's simulation has no C in it.
 *
 *      printf()                every line of the story must have been told
 *      here                    a place without one
 *      reached("...", x)       a condition that must have been true
 */
#ifdef REACHED
c_decl {
        static unsigned char marked[4096];

        static void mark(int line, const char *what)
        {
                if (marked[line])
                        return;
                marked[line] = 1;
                fprintf(stdout, "reached: line %d: %s\n", line, what);
        }
}
#define here c_code { mark(__LINE__, ""); }
#define printf(format, ...) here
#define reached(what, condition) \
        if \
        :: condition -> c_code { mark(__LINE__, what); } \
        :: else \
        fi
#else
#define here skip
#define reached(what, condition) skip
#endif
