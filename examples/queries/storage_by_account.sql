-- What each account stores and how many keys it has, largest first, in the newest complete epoch.
-- DuckDB, after `.read <tables>/_sql/views.sql`. For another epoch write account_at(2950) in place of account_latest, and so on.
with
    keys as (
        select account_id, count(*) as access_keys, count(*) filter (where permission = 'full_access') as full_access_keys
        from access_key_latest
        group by account_id
    ),
    entries as (
        select account_id, count(*) as contract_entries, sum(value_length) as contract_entry_bytes
        from contract_data_latest
        group by account_id
    ),
    codes as (select account_id, sum(value_length) as code_bytes from contract_code_latest group by account_id)
select
    account_id,
    storage_usage,
    coalesce(access_keys, 0) as access_keys,
    coalesce(full_access_keys, 0) as full_access_keys,
    coalesce(contract_entries, 0) as contract_entries,
    coalesce(contract_entry_bytes, 0) as contract_entry_bytes,
    coalesce(code_bytes, 0) as code_bytes
from account_latest
left join keys using (account_id)
left join entries using (account_id)
left join codes using (account_id)
order by storage_usage desc, account_id;
