/* Goal: the digests are SHA-256, in one piece, in many, and of a file.
 * Method: the vectors that the standard publishes; every way to cut a text in two; a file larger
 * than one read. A flipped bit must change the digest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/sha256.h"

static void assert_digest(const uint8_t digest[SHA256_BYTES], const char *hex)
{
    char text[2 * SHA256_BYTES + 1];

    for (size_t i = 0; i < SHA256_BYTES; i++) {
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    }
    assert_string_equal(text, hex);
}

static void test_published_vectors_come_out(void **state)
{
    uint8_t digest[SHA256_BYTES];
    struct sha256 hash;
    uint8_t piece[1000];

    (void)state;
    sha256_bytes(bytes_of(NULL, 0), digest);
    assert_digest(digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_bytes(bytes_of_text("abc"), digest);
    assert_digest(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_bytes(bytes_of_text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), digest);
    assert_digest(digest, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    memset(piece, 'a', sizeof(piece));
    sha256_init(&hash);
    for (int i = 0; i < 1000; i++) {
        sha256_update(&hash, bytes_of(piece, sizeof(piece)));
    }
    sha256_finish(&hash, digest);
    assert_digest(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void test_pieces_give_the_digest_of_the_whole(void **state)
{
    uint8_t text[200];
    uint8_t whole[SHA256_BYTES];
    uint8_t pieces[SHA256_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (uint8_t)(i * 37);
    }
    sha256_bytes(bytes_of(text, sizeof(text)), whole);
    for (size_t cut = 0; cut <= sizeof(text); cut++) {
        struct sha256 hash;

        sha256_init(&hash);
        sha256_update(&hash, bytes_of(text, cut));
        sha256_update(&hash, bytes_of(NULL, 0));
        sha256_update(&hash, bytes_of(text + cut, sizeof(text) - cut));
        sha256_finish(&hash, pieces);
        assert_memory_equal(pieces, whole, SHA256_BYTES);
    }
    text[100] ^= 1;
    sha256_bytes(bytes_of(text, sizeof(text)), pieces);
    assert_memory_not_equal(pieces, whole, SHA256_BYTES);
}

static void test_a_file_gives_the_digest_of_its_bytes(void **state)
{
    const size_t sizes[] = {0, 1, 65535, 65536, 65537, 200000};
    static uint8_t content[200000];
    uint8_t from_file[SHA256_BYTES];
    uint8_t from_bytes[SHA256_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof(content); i++) {
        content[i] = (uint8_t)(i * i >> 5);
    }
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char path[] = "/tmp/personad_sha256_XXXXXX";
        const int file = mkstemp(path);

        assert_true(file >= 0);
        assert_int_equal(write(file, content, sizes[i]), (ssize_t)sizes[i]);
        close(file);
        assert_int_equal(sha256_file(path, NULL, from_file), STATUS_OK);
        unlink(path);
        sha256_bytes(bytes_of(content, sizes[i]), from_bytes);
        assert_memory_equal(from_file, from_bytes, SHA256_BYTES);
    }
}

static void test_a_file_that_cannot_be_read_is_named(void **state)
{
    uint8_t digest[SHA256_BYTES] = {1, 2, 3};
    const uint8_t before[SHA256_BYTES] = {1, 2, 3};
    struct error error = {0};

    (void)state;
    assert_int_equal(sha256_file("/nowhere/model.gguf", &error, digest), STATUS_NOT_FOUND);
    assert_non_null(strstr(error.text, "/nowhere/model.gguf"));
    assert_int_equal(sha256_file("/tmp", &error, digest), STATUS_IO);
    assert_non_null(strstr(error.text, "\"/tmp\""));
    assert_memory_equal(digest, before, SHA256_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vectors_come_out),
        cmocka_unit_test(test_pieces_give_the_digest_of_the_whole),
        cmocka_unit_test(test_a_file_gives_the_digest_of_its_bytes),
        cmocka_unit_test(test_a_file_that_cannot_be_read_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
