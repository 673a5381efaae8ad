/* Letters and numbers that came after Unicode 14, the version of the PCRE2 in Debian 12.
 *
 * Thread: any; constant data for pretokenizer.c alone. Ranges ascend and do not overlap.
 * Kinds: L letters and N numbers of Unicode 16 (the reference's regular expressions); D numbers of
 * Unicode 17 (only the reference's rule for single digits knows them).
 * Made by comparing, over all code points, what the reference and PCRE2 10.42 say. A PCRE2 that
 * knows them already loses nothing by being told twice.
 */
#ifndef PERSONAD_TEXT_UNICODE_NEWER_H
#define PERSONAD_TEXT_UNICODE_NEWER_H

#include <stdint.h>

struct unicode_range {
    uint32_t first;
    uint32_t last;
    char kind;
};

static const struct unicode_range unicode_newer[] = {
    {0x01c89, 0x01c8a, 'L'}, {0x0a7cb, 0x0a7cd, 'L'}, {0x0a7da, 0x0a7dc, 'L'},
    {0x105c0, 0x105f3, 'L'}, {0x10d40, 0x10d49, 'N'}, {0x10d4a, 0x10d65, 'L'},
    {0x10d6f, 0x10d85, 'L'}, {0x10ec2, 0x10ec4, 'L'}, {0x1123f, 0x11240, 'L'},
    {0x11380, 0x11389, 'L'}, {0x1138b, 0x1138b, 'L'}, {0x1138e, 0x1138e, 'L'},
    {0x11390, 0x113b5, 'L'}, {0x113b7, 0x113b7, 'L'}, {0x113d1, 0x113d1, 'L'},
    {0x113d3, 0x113d3, 'L'}, {0x116d0, 0x116e3, 'N'}, {0x11bc0, 0x11be0, 'L'},
    {0x11bf0, 0x11bf9, 'N'}, {0x11de0, 0x11de9, 'D'}, {0x11f02, 0x11f02, 'L'},
    {0x11f04, 0x11f10, 'L'}, {0x11f12, 0x11f33, 'L'}, {0x11f50, 0x11f59, 'N'},
    {0x1342f, 0x1342f, 'L'}, {0x13441, 0x13446, 'L'}, {0x13460, 0x143fa, 'L'},
    {0x16100, 0x1611d, 'L'}, {0x16130, 0x16139, 'N'}, {0x16d40, 0x16d6c, 'L'},
    {0x16d70, 0x16d79, 'N'}, {0x16ff4, 0x16ff6, 'D'}, {0x18cff, 0x18cff, 'L'},
    {0x1b132, 0x1b132, 'L'}, {0x1b155, 0x1b155, 'L'}, {0x1ccf0, 0x1ccf9, 'N'},
    {0x1d2c0, 0x1d2d3, 'N'}, {0x1df25, 0x1df2a, 'L'}, {0x1e030, 0x1e06d, 'L'},
    {0x1e4d0, 0x1e4eb, 'L'}, {0x1e4f0, 0x1e4f9, 'N'}, {0x1e5d0, 0x1e5ed, 'L'},
    {0x1e5f0, 0x1e5f0, 'L'}, {0x1e5f1, 0x1e5fa, 'N'}, {0x2b739, 0x2b739, 'L'},
    {0x2ebf0, 0x2ee5d, 'L'}, {0x31350, 0x323af, 'L'},
};

#endif
