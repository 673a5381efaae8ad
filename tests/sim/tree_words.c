#include "sim/tree_words.h"

#include "base/check.h"

/* In the byte alphabet of byte-level BPE: U+010A is a newline, U+0120 a space, and U+00C3 and
 * U+00A9 show the bytes c3 and a9, which are one character together. */
static const char *const names[] = {
    "<|im_end|>",
    "<|im_start|>",
    "a",
    "b",
    "c",
    "ab",
    "ca",
    "\u010a",
    "\u00c3",
    "\u00a9",
    "!",
    "d",
    "e",
    "f",
    "g",
    "h",
    "i",
    "j",
    "k",
    "l",
    "m",
    "n",
    "o",
    "p",
    "q",
    "r",
    "s",
    "t",
    "u",
    "v",
    "w",
    "x",
    "y",
    "\u0120",
    "<|endoftext|>",
    "z",
    ":",
    "(",
    ")",
};

enum { TOKEN_COUNT = sizeof(names) / sizeof(names[0]) };

static struct bytes tokens[TOKEN_COUNT], merges[2];
static uint8_t types[TOKEN_COUNT];
static struct vocabulary vocabulary;

struct tokenizer *tree_words_tokenizer(void)
{
    struct tokenizer *tokenizer = NULL;

    for (uint32_t i = 0; i < TOKEN_COUNT; i++) {
        tokens[i] = bytes_of_text(names[i]);
        types[i] = names[i][0] == '<' ? TOKEN_CONTROL : TOKEN_NORMAL;
    }
    merges[0] = bytes_of_text("a b");
    merges[1] = bytes_of_text("c a");
    vocabulary = (struct vocabulary){
        .kind = VOCABULARY_BPE,
        .token_count = TOKEN_COUNT,
        .tokens = tokens,
        .types = types,
        .merges = merges,
        .merge_count = 2,
        .pre = bytes_of_text(""),
        .bos = TOKEN_NONE,
        .eos = 0,
        .eot = TOKEN_NONE,
        .eom = TOKEN_NONE,
        .unknown = TOKEN_NONE,
        .pad = TOKEN_NONE,
        .chat_template = bytes_of_text(""),
    };
    CHECK(tokenizer_create(&vocabulary, NULL, &tokenizer) == STATUS_OK);
    return tokenizer;
}

struct bytes tree_words_text(uint32_t choice)
{
    static const char *const texts[] = {
        "a", "cab", "and so on", "b", "\xc3\xa9", "no way back\nfrom here", "abca", "x\n",
    };

    return bytes_of_text(texts[choice % (sizeof(texts) / sizeof(texts[0]))]);
}

struct bytes tree_words_choice(uint32_t choice)
{
    static const char *const texts[] = {"ab", "abc",  "a cab",    "cab",
                                        "ca", "d\nb", "\xc3\xa9", "no"};

    return bytes_of_text(texts[choice % (sizeof(texts) / sizeof(texts[0]))]);
}

struct bytes tree_words_stop(uint32_t choice)
{
    static const char *const stops[] = {"ab", "c\n", "a!", "bb", "\xc3\xa9", "aca", "!\n", "cab"};

    return bytes_of_text(stops[choice % (sizeof(stops) / sizeof(stops[0]))]);
}
