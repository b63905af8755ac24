-- The hundred accounts that have most, with their stake, what lies on their gas keys, and their share of the supply, in the newest complete epoch.
-- DuckDB, after `.read <tables>/_sql/views.sql`. Amounts are exact yoctoNEAR; near and percent are rounded.
with
    gas_keys as (select account_id, sum(gas_key_balance) as on_gas_keys from access_key_latest group by account_id),
    holders as (
        select account_id, amount, locked, coalesce(on_gas_keys, 0) as on_gas_keys, amount + locked + coalesce(on_gas_keys, 0) as total
        from account_latest
        left join gas_keys using (account_id)
    )
select account_id, amount, locked, on_gas_keys, total, total / 1e24 as near, 100 * (total / sum(total::double) over ()) as percent
from holders
order by total desc, account_id
limit 100;
