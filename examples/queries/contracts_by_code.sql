-- Contracts by the hash of their code: how many accounts run it, and which come first in the alphabet, in the newest complete epoch.
-- DuckDB, after `.read <tables>/_sql/views.sql`. An account names a global contract by its hash, or by the account that deployed it.
with
    -- A global contract is in every shard.
    deployed as (
        select account_id as contract_account_id, any_value(code_hash) as deployed_hash
        from global_contract_code_latest
        where account_id is not null
        group by account_id
    ),
    users as (
        select account_id, contract_kind, coalesce(code_hash, deployed_hash) as code_hash
        from account_latest
        left join deployed using (contract_account_id)
        where contract_kind <> 'none'
    )
select
    code_hash,
    count(*) as users,
    count(*) filter (where contract_kind = 'local') as with_own_copy,
    list(account_id order by account_id)[1:10] as first_users
from users
group by code_hash
order by users desc, code_hash;
