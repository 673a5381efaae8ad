#include "schedule/fairness.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "limits.h"

enum { ACCOUNT_COUNT_MAX = 2 * BRANCH_COUNT_MAX, ACCOUNT_NONE = 0xffffffffu };

enum status fairness_init(struct fairness *fairness)
{
    memset(fairness, 0, sizeof(*fairness));
    fairness->accounts = memory_alloc(ACCOUNT_COUNT_MAX, sizeof(*fairness->accounts));
    if (fairness->accounts == NULL ||
        table_init_fixed(&fairness->users, BRANCH_COUNT_MAX) != STATUS_OK ||
        table_init_fixed(&fairness->sessions, BRANCH_COUNT_MAX) != STATUS_OK) {
        fairness_finish(fairness);
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < ACCOUNT_COUNT_MAX; i++) {
        fairness->accounts[i].next_free = i + 1 < ACCOUNT_COUNT_MAX ? i + 1 : ACCOUNT_NONE;
    }
    return STATUS_OK;
}

void fairness_finish(struct fairness *fairness)
{
    memory_free(fairness->accounts);
    table_finish(&fairness->users);
    table_finish(&fairness->sessions);
    memset(fairness, 0, sizeof(*fairness));
}

static uint32_t account_enter(struct fairness *fairness, struct table *table, uint64_t id,
                              uint64_t level_rows)
{
    struct fairness_account *account = table_find(table, id);

    if (account == NULL) {
        const uint32_t index = fairness->free_first;
        CHECK(index != ACCOUNT_NONE);
        account = &fairness->accounts[index];
        fairness->free_first = account->next_free;
        account->id = id;
        account->served_rows = level_rows;
        account->level_rows = 0;
        account->alive_count = 0;
        account->running_count = 0;
        CHECK(table_insert(table, id, account) == STATUS_OK);
    }
    account->alive_count++;
    return (uint32_t)(account - fairness->accounts);
}

static void account_leave(struct fairness *fairness, struct table *table, uint32_t index)
{
    struct fairness_account *account = &fairness->accounts[index];

    CHECK(account->alive_count > 0);
    account->alive_count--;
    if (account->alive_count == 0) {
        CHECK(account->running_count == 0);
        CHECK(table_remove(table, account->id) == account);
        account->next_free = fairness->free_first;
        fairness->free_first = index;
    }
}

/* Where a newcomer starts: level with the running branch that was served least (of one user's
 * sessions, with user_account; of all users, with ACCOUNT_NONE), or else with the last served. */
static uint64_t level_of(const struct fairness *fairness, const struct branch_table *table,
                         uint32_t user_account, uint64_t last_rows)
{
    uint64_t level = UINT64_MAX;

    for (uint32_t i = 0; i < table->running_count; i++) {
        const struct branch *other = &table->branches[table->running[i]];
        const uint32_t account =
            user_account == ACCOUNT_NONE ? other->user_account : other->session_account;
        if ((user_account == ACCOUNT_NONE || other->user_account == user_account) &&
            fairness->accounts[account].served_rows < level) {
            level = fairness->accounts[account].served_rows;
        }
    }
    return level == UINT64_MAX ? last_rows : level;
}

void fairness_enter(struct fairness *fairness, const struct branch_table *table,
                    struct branch *branch)
{
    branch->user_account =
        account_enter(fairness, &fairness->users, branch->spec->user,
                      level_of(fairness, table, ACCOUNT_NONE, fairness->level_rows));
    branch->session_account =
        account_enter(fairness, &fairness->sessions, branch->spec->session,
                      level_of(fairness, table, branch->user_account,
                               fairness->accounts[branch->user_account].level_rows));
}

void fairness_leave(struct fairness *fairness, const struct branch *branch)
{
    account_leave(fairness, &fairness->users, branch->user_account);
    account_leave(fairness, &fairness->sessions, branch->session_account);
}

void fairness_start(struct fairness *fairness, const struct branch *branch)
{
    fairness->accounts[branch->user_account].running_count++;
    fairness->accounts[branch->session_account].running_count++;
}

void fairness_stop(struct fairness *fairness, const struct branch *branch)
{
    CHECK(fairness->accounts[branch->user_account].running_count > 0);
    fairness->accounts[branch->user_account].running_count--;
    fairness->accounts[branch->session_account].running_count--;
}

void fairness_charge(struct fairness *fairness, const struct branch *branch, uint32_t row_count)
{
    struct fairness_account *user = &fairness->accounts[branch->user_account];
    struct fairness_account *session = &fairness->accounts[branch->session_account];

    fairness->level_rows = user->served_rows;
    user->level_rows = session->served_rows;
    user->served_rows += row_count;
    session->served_rows += row_count;
}

/* Below 0: a first; above 0: b first. */
static int order(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int order_served(const struct fairness *fairness, const struct branch *a,
                        const struct branch *b)
{
    const struct fairness_account *accounts = fairness->accounts;
    int by = order(accounts[a->user_account].served_rows, accounts[b->user_account].served_rows);

    if (by == 0 || a->user_account == b->user_account) {
        by = order(accounts[a->session_account].served_rows,
                   accounts[b->session_account].served_rows);
    }
    return by != 0 ? by : order(a->sequence, b->sequence);
}

bool fairness_admits_before(const struct fairness *fairness, const struct branch *a,
                            const struct branch *b)
{
    const struct fairness_account *accounts = fairness->accounts;
    int by = order(a->priority, b->priority);

    if (by == 0) {
        by =
            order(accounts[a->user_account].running_count, accounts[b->user_account].running_count);
    }
    if (by == 0) {
        by = order(accounts[a->session_account].running_count,
                   accounts[b->session_account].running_count);
    }
    return (by != 0 ? by : order_served(fairness, a, b)) < 0;
}

bool fairness_serves_before(const struct fairness *fairness, const struct branch *a,
                            const struct branch *b)
{
    const int by = order(a->priority, b->priority);

    return (by != 0 ? by : order_served(fairness, a, b)) < 0;
}

uint32_t fairness_user_running_count(const struct fairness *fairness, const struct branch *branch)
{
    return fairness->accounts[branch->user_account].running_count;
}
