"""What all programs are asked to do: the texts and the shape of the tree."""

SESSION_COUNT = 64
PERSONA_WORDS = 200
PERSONA_REPLY_TOKENS = 32
PERSONA_TEXT = "The story goes that a " * PERSONA_WORDS  # five tokens a time

TREE_ROOT = "The road goes on to a " * 333  # six tokens a time
TREE_TURNS = 20
TREE_SIBLINGS = 8
TREE_REPLY_TOKENS = 32
TREE_REGENERATED_SHARE = 0.3

SERVED_CLIENTS = 64
SERVED_TOKENS = 64
SERVED_TEMPERATURE = 0.8
SHARE_CLIENTS = (1, 16, 64)
SHARE_REPEATS = {1: 7, 16: 5, 64: 3}  # shorter runs vary more

DECODE_TOKENS = {1: 192, 4: 128, 16: 128, 64: 96}
PREFILL_TOKENS = (64, 512, 2048)


def persona_ask(user):
    return f"man number {user} said hello to the {user * 7 % 13} dogs of the town and"


def tree_ask(turn):
    return f" Then traveller {turn} asked how far it is to the next of {turn * 5 % 17} inns."


def tree_again(turn):
    """How many of a turn's siblings are asked for again: 30 % over the whole tree."""
    each = TREE_SIBLINGS * TREE_REGENERATED_SHARE
    return int((turn + 1) * each + 1e-9) - int(turn * each + 1e-9)


def tree_choice(turn):
    """The sibling that the conversation goes on from."""
    return turn * 3 % TREE_SIBLINGS
