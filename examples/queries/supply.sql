-- What the newest complete epoch adds up to, against the supply that the block header names; all in yoctoNEAR, exact.
-- DuckDB, after `.read <tables>/_sql/views.sql`. not_in_state is what is on its way between shards, and the gas that was bought for the
-- actions of receipts: docs/spec/decoded-tables.md has the equation. Of a genesis total_supply is what its file says, and not_in_state is 0.
with
    accounts as (select coalesce(sum(amount), 0) as amount, coalesce(sum(locked), 0) as locked from account_latest),
    gas_keys as (select coalesce(sum(gas_key_balance), 0) as on_gas_keys from access_key_latest),
    receipts as (
        select deposit, attached_gas_cost from delayed_receipt_latest
        union all
        select deposit, attached_gas_cost from postponed_receipt_latest
        union all
        select deposit, attached_gas_cost from buffered_receipt_latest
        union all
        select deposit, attached_gas_cost from promise_yield_receipt_latest
    ),
    in_receipts as (select coalesce(sum(deposit), 0) as deposits, coalesce(sum(attached_gas_cost), 0) as attached_gas from receipts),
    newest as (select epoch_height, total_supply from epochs where complete order by epoch_height desc limit 1)
select
    epoch_height,
    amount,
    locked,
    on_gas_keys,
    deposits,
    attached_gas,
    amount + locked + on_gas_keys + deposits + attached_gas as in_state,
    total_supply,
    total_supply - (amount + locked + on_gas_keys + deposits + attached_gas) as not_in_state
from newest, accounts, gas_keys, in_receipts;
