#include "sim/tree_cast.h"

#include <stddef.h>

#define PLAY(how) "\"extensions\":{\"personad\":{\"play\":\"" how "\"}"

/* "zoe" and "ab" are characters of several versions. */
const struct cast_card cast_cards[CAST_CARD_COUNT] = {
    {
        .json = "{\"name\":\"zoe\"," PLAY("plain") "}}",
        .name = "zoe",
        .play = CAST_PLAIN,
        .system = "",
    },
    {
        .json = "{\"name\":\"zoe\",\"description\":\"be kind\"}",
        .name = "zoe",
        .play = CAST_CHAT,
        .system = "be kind",
    },
    {
        .json = "{\"name\":\"max\"," PLAY("plain") "}}",
        .name = "max",
        .play = CAST_PLAIN,
        .system = "",
    },
    {
        .json = "{\"name\":\"zoe\",\"description\":\"know {{user}}\",\"first_mes\":\"a cab!\","
                "\"alternate_greetings\":[\"in {{user}}\"],"
                "\"post_history_instructions\":\"now\"}",
        .name = "zoe",
        .play = CAST_CHAT,
        .system = "know @",
        .greetings = {"a cab!", "in @"},
        .instruction = "now",
    },
    {
        .json = "{\"name\":\"ab\",\"description\":\"grim\",\"first_mes\":\"\\n!d\","
                "\"extensions\":{\"depth_prompt\":{\"prompt\":\"keep dry\",\"depth\":1,"
                "\"role\":\"user\"}},\"character_book\":{\"token_budget\":16,\"entries\":["
                "{\"keys\":[\"CAB\",\"bb\"],\"content\":\"a coach\",\"insertion_order\":5,"
                "\"priority\":1,\"extensions\":{\"position\":4,\"depth\":1,\"role\":2,"
                "\"scan_depth\":3}},"
                "{\"keys\":[\"c\"],\"content\":\"the sea\",\"insertion_order\":3,\"priority\":9,"
                "\"extensions\":{\"scan_depth\":1}},"
                "{\"keys\":[\"a\"],\"secondary_keys\":[\"d\"],\"selective\":true,"
                "\"content\":\"a long road\",\"insertion_order\":4,\"priority\":4},"
                "{\"constant\":true,\"content\":\"fog\",\"insertion_order\":1,"
                "\"extensions\":{\"position\":4,\"depth\":0}}]}}",
        .name = "ab",
        .play = CAST_CHAT,
        .system = "grim",
        .greetings = {"\n!d"},
        .note = "keep dry",
        .note_depth = 1,
        .note_role = CAST_USER,
        .lore_budget = 16,
        .lore = {{"cab|bb", NULL, "a coach", true, 1, 3, CAST_ASSISTANT, 5, 1},
                 {"c", NULL, "the sea", false, 0, 1, CAST_SYSTEM, 3, 9},
                 {"a", "d", "a long road", false, 0, 2, CAST_SYSTEM, 4, 4},
                 {NULL, NULL, "fog", true, 0, 0, CAST_SYSTEM, 1, 0}},
        .lore_count = 4,
    },
    {
        .json = "{\"name\":\"ab\",\"description\":\"on a train\",\"first_mes\":\"hum\","
                "\"character_book\":{\"scan_depth\":1,\"entries\":["
                "{\"keys\":[\"!\"],\"content\":\"loud\",\"extensions\":{\"position\":4,"
                "\"depth\":2}}]}," PLAY("transcript") "}}",
        .name = "ab",
        .play = CAST_TRANSCRIPT,
        .system = "on a train",
        .greetings = {"hum"},
        .lore = {{"!", NULL, "loud", true, 2, 1, CAST_SYSTEM, 0, 0}},
        .lore_count = 1,
    },
    {
        .json = "{\"name\":\"eve\",\"post_history_instructions\":\"be brief\","
                "" PLAY("transcript") "}}",
        .name = "eve",
        .play = CAST_TRANSCRIPT,
        .system = "",
        .instruction = "be brief",
    },
};

const char *cast_human(uint32_t choice)
{
    static const char *const names[] = {"sue", "d", "b", "tom", "a!", "cab"};

    return names[choice % (sizeof(names) / sizeof(names[0]))];
}
