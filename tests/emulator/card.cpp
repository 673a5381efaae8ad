#include "tests/emulator/card.h"

#include <setjmp.h>
#include <stdarg.h>

extern "C" {
#include <cmocka.h>
}

void card_open(struct card *card)
{
    card->copies.clear();
    card->is_owner = true;
    assert_int_equal(device_open(0, NULL, &card->device), STATUS_OK);
}

void card_borrow(struct card *card, struct device *device)
{
    card->copies.clear();
    card->is_owner = false;
    card->device = device;
}

void card_finish(struct card *card)
{
    for (const struct card_copy &copy : card->copies) {
        device_free(card->device, copy.there);
    }
    card->copies.clear();
    if (card->is_owner) {
        device_close(card->device);
    }
}

void *card_give_bytes(struct card *card, const void *bytes, uint64_t size_bytes, void *back_to)
{
    struct card_copy copy = {back_to, NULL, size_bytes};

    assert_int_equal(device_alloc(card->device, size_bytes, &copy.there), STATUS_OK);
    if (device_upload(card->device, copy.there, bytes, size_bytes) != STATUS_OK) {
        fail_msg("%s", device_fault_text(card->device));
    }
    assert_int_equal(device_wait(card->device), STATUS_OK); /* the array may change from here on */
    card->copies.push_back(copy);
    return copy.there;
}

void card_take(struct card *card)
{
    for (const struct card_copy &copy : card->copies) {
        if (copy.host != NULL) {
            assert_int_equal(device_download(card->device, copy.host, copy.there, copy.size_bytes),
                             STATUS_OK);
        }
    }
    assert_int_equal(device_wait(card->device), STATUS_OK);
}

bool card_is_emulated(const char *what)
{
#ifdef __CUDACC__
    print_message("left to the emulator: %s\n", what);
    return false;
#else
    (void)what;
    return true;
#endif
}

void card_read(struct device *device, void *to, const void *from, uint64_t size_bytes)
{
    assert_int_equal(device_download(device, to, from, size_bytes), STATUS_OK);
    assert_int_equal(device_wait(device), STATUS_OK);
}
